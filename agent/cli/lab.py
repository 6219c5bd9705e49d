"""`agentctl lab`: a cluster of network namespaces on this machine, its manifests in, real connections out.

What builds or waits says so on stderr, so that stdout holds results only. A build that is interrupted is taken down
before agentctl exits, and `lab down` removes what a killed one has left.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
from rich import console, measure
from rich import table as rich_table
from rich import text as rich_text

from agent import errors
from agent.cli import output
from agent.lab import comparison, files, plan
from agent.lab import lab as lab_
from agent.model import net
from agent.policy import reachability

FAMILIES = {net.Family.IPV4: "IPv4", net.Family.IPV6: "IPv6"}
COLUMNS = ("from", "to", "port", "family", "allowed", "errno", "ms", "expected")
NODE_COLUMNS = ("node", "addresses", "pods", "agent", "mode", "endpoints", "policies", "error")
PARTY_COLUMNS = ("party", "node", "addresses", "ports", "alive")
TERMINATED = 128 + signal.SIGTERM

name_option = click.option("--name", default=lab_.DEFAULT_NAME, show_default=True, help="The lab, where several run.")
manifests_type = click.Path(path_type=pathlib.Path)


def filename_option(*, required: bool) -> Callable[..., Any]:
    """Give a command -f, as its parameter `paths`."""
    text = "A manifest or a directory of them; may be given more than once."
    return click.option("-f", "--filename", "paths", type=manifests_type, multiple=True, required=required, help=text)


def engine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what its lab's agents enforce with: --engine, --iptables."""
    choices = {"--engine": (lab_.ENGINES, "What enforces."), "--iptables": (lab_.VARIANTS, "Which iptables.")}
    for flag, (values, text) in reversed(choices.items()):
        metavar = "|".join(values)
        command = click.option(flag, default="auto", show_default=True, metavar=metavar, help=text)(command)
    return command


def shape_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what a lab is built with: --topology, --families, --engine, --iptables, --agents."""
    topologies = click.Choice([topology.value for topology in plan.Topology])
    decorators: list[Callable[..., Any]] = [
        click.option(
            "--topology", type=topologies, default="routed", show_default=True, help="How pods are connected."
        ),
        click.option(
            "--families", default="", metavar="ipv4,ipv6", help="What every pod has; the manifests' unless told."
        ),
        engine_options,
        click.option("--agents/--no-agents", default=True, help="Whether nodes have an agent."),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


class Verbs(click.Group):
    """A group that imports the demo only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return [*super().list_commands(ctx), "demo"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb."""
        if cmd_name != "demo":
            return super().get_command(ctx, cmd_name)
        command: click.Command = importlib.import_module("agent.cli.demo").command
        return command


@click.group(cls=Verbs)
def lab() -> None:
    """Run pods, nodes and services as network namespaces on this machine."""


@lab.command()
@filename_option(required=True)
@name_option
@shape_options
def up(paths: tuple[pathlib.Path, ...], name: str, **shape: Any) -> None:
    """Build a lab from manifests, with an agent on each node."""
    with _failures(), _progress() as progress:
        built = _lab(name, progress, **shape)
        built.up(files.load(paths))
    click.echo(f"lab {name} is up: {len(built.plan.pods)} pods on {len(built.plan.nodes)} nodes, {built.paths.path}")


@lab.command()
@name_option
def down(name: str) -> None:
    """Remove a lab, also one of which only parts are left."""
    with _failures():
        found = lab_.Lab(name=name).down()
    click.echo(f"lab {name} is removed" if found else f"there is no lab {name}")


@lab.command()
@filename_option(required=True)
@name_option
def apply(paths: tuple[pathlib.Path, ...], name: str) -> None:
    """Make manifests the whole content of a running lab, and wait until it is enforced."""
    with _failures(), _progress() as progress:
        lab_.Lab.open(name, progress=progress).apply(files.load(paths))


@lab.command(context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("party")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str, party: str, command: tuple[str, ...]) -> None:  # noqa: A001 - the verb's name
    """Run a command as a process of a pod (namespace/pod), a host/NAME or a node/NAME: exec x/a -- curl 10.0.0.2."""
    with _failures():
        line = lab_.Lab.open(name).exec_command(party, command)
    os.execv(line[0], line)  # noqa: S606 - exit status, terminal and signals are the command's


@lab.command()
@name_option
@output.output_option
def status(name: str, form: output.Form) -> None:
    """Show nodes with their agents, and who runs where."""
    with _failures():
        document = lab_.Lab.open(name).status()
    click.echo(output.render(document["nodes"], columns=NODE_COLUMNS, form=form, document=document))
    if form is output.Form.TABLE:
        click.echo()
        click.echo(output.render(document["parties"], columns=PARTY_COLUMNS, form=form, document=document))


@lab.command()
@filename_option(required=False)
@name_option
@shape_options
@click.option(
    "--port", "ports", multiple=True, metavar="PORT[/PROTOCOL]", help="Only these, not all that are declared."
)
@click.option(
    "--timeout",
    default=lab_.DEFAULT_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Of a connection; NODEWALL_PATIENCE multiplies it.",
)
@output.output_option
def probe(
    paths: tuple[pathlib.Path, ...],
    name: str,
    ports: tuple[str, ...],
    timeout: float,
    form: output.Form,
    **shape: Any,
) -> None:
    """Really connect, every pair on every port, and compare with what the policies say.

    In the running lab; with -f in one that is built for this and taken down. Exits with 3 if anything disagrees.
    """
    with _failures():
        wanted = [_port(text) for text in ports]
        with _running(paths, name, shape) as (running, progress):
            progress("connecting")
            rows = comparison.compare(running, ports=wanted, timeout_s=timeout)
    wrong = comparison.disagreements(rows)
    if form is output.Form.TABLE:
        for line in _picture(rows):
            click.echo(line)
    else:
        document = {"probes": [_probe(row) for row in rows], "disagreements": len(wrong)}
        click.echo(output.render((), columns=COLUMNS, form=form, document=document))
    if wrong:
        sys.exit(output.ExitCode.DISAGREEMENT)


@contextlib.contextmanager
def _running(
    paths: tuple[pathlib.Path, ...], name: str, shape: dict[str, Any]
) -> Iterator[tuple[lab_.Lab, lab_.Progress]]:
    """Give the running lab, or one for these manifests, and take that down."""
    with _progress() as progress:
        if not paths:
            yield lab_.Lab.open(name, progress=progress), progress
            return
        documents = files.load(paths)
        with _lab(f"probe-{os.getpid()}", progress, **shape) as built:
            built.up(documents)
            yield built, progress


def _lab(
    name: str,
    progress: lab_.Progress,
    *,
    topology: str,
    families: str,
    engine: str,
    iptables: str,
    agents: bool,
) -> lab_.Lab:
    chosen = []
    for text in filter(None, families.split(",")):
        try:
            chosen.append(net.Family[text.strip().upper()])
        except KeyError:
            raise errors.InvalidInput(field="--families", value=text, remedy="write ipv4, ipv6 or both") from None
    return lab_.Lab(
        name=name,
        topology=plan.Topology(topology),
        families=chosen,
        engine=engine,
        iptables=iptables,
        agents=agents,
        progress=progress,
    )


def _port(text: str) -> reachability.Port:
    number, slash, protocol = text.partition("/")
    try:
        return int(number), net.Protocol[protocol.upper() if slash else "TCP"]
    except (KeyError, ValueError):
        remedy = "write a number and TCP, UDP or SCTP, as in 53/UDP"
        raise errors.InvalidInput(field="--port", value=text, remedy=remedy) from None


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except errors.NodewallError as error:
        raise output.failure(error) from error


@contextlib.contextmanager
def _progress() -> Iterator[lab_.Progress]:
    """Give what reports a step: a spinner on a terminal, else a line; SIGTERM ends it as Ctrl-C does, with cleanup."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        if not sys.stderr.isatty():
            yield lambda step: click.echo(f"{step} ...", err=True)
            return
        with console.Console(stderr=True).status("") as spinner:
            yield lambda step: spinner.update(output.escape(step))
    finally:
        signal.signal(signal.SIGTERM, before)


def _probe(row: comparison.Row) -> dict[str, object]:
    """Return what one connection is in JSON."""
    one, met = row.expected, row.measured
    return {
        "from": one.source,
        "to": one.destination,
        "port": one.port[0],
        "protocol": one.port[1].name,
        "family": FAMILIES[one.family],
        "allowed": met.allowed,
        "errno": met.error or None,
        "milliseconds": met.milliseconds,
        "answered_by": met.answered_by or None,
        "expected": one.decision.allowed,
        "agrees": row.agrees,
        "because": one.decisive.because,
    }


def _picture(rows: Sequence[comparison.Row]) -> Iterator[str]:
    """Yield a grid for every port and family (a list, where one does not fit), what disagrees, and the sum."""
    groups: dict[tuple[reachability.Port, net.Family], list[comparison.Row]] = {}
    for row in rows:
        groups.setdefault((row.expected.port, row.expected.family), []).append(row)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else output.PIPE_WIDTH
    unbounded = console.Console(width=output.PIPE_WIDTH)
    grids = [_grid(port, family, group) for (port, family), group in groups.items()]
    if all(measure.Measurement.get(unbounded, unbounded.options, grid).maximum <= width for grid in grids):
        for grid in grids:
            yield f"{output.paint(grid)}\n"
    else:
        yield output.render([_row(row) for row in rows], columns=COLUMNS, form=output.Form.TABLE, document={})
    wrong = comparison.disagreements(rows)
    for row in wrong:
        one = row.expected
        said = "reach" if one.decision.allowed else "not reach"
        yield output.escape(
            f"disagrees: {one.source} should {said} {one.destination} on {one.port[0]}/{one.port[1].name}"
            f" ({FAMILIES[one.family]}), as {one.decisive.because}; measured: {_outcome(row)}"
        )
    denials = collections.Counter(row.measured.error for row in rows if not row.measured.allowed)
    reached = len(rows) - sum(denials.values())
    counted = f" ({', '.join(f'{count} {error}' for error, count in denials.most_common())})" if denials else ""
    verdict = f"{len(wrong)} disagree with the policies" if wrong else "all as the policies say"
    yield f"{len(rows)} connections, {reached} reach, {sum(denials.values())} do not{counted}; {verdict}"


def _grid(port: reachability.Port, family: net.Family, rows: Sequence[comparison.Row]) -> rich_table.Table:
    """Return sources down, destinations across; `!` marks a cell that disagrees."""
    cells = {(row.expected.source, row.expected.destination): row for row in rows}
    targets = sorted({target for _source, target in cells}, key=lambda target: (target.startswith("host/"), target))
    heading = f"{port[0]}/{port[1].name} {FAMILIES[family]}"
    table = rich_table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in (heading, *targets):
        table.add_column(rich_text.Text(output.escape(column)), no_wrap=True)
    for source in dict.fromkeys(row.expected.source for row in rows):
        line = [rich_text.Text(output.escape(source))]
        for target in targets:
            row = cells.get((source, target))
            text = "" if row is None else f"{'' if row.agrees else '!'}{_outcome(row)}"
            line.append(rich_text.Text(text, style=_style(row)))
        table.add_row(*line)
    return table


def _style(row: comparison.Row | None) -> str:
    if row is None:
        return ""
    if not row.agrees:
        return "bold reverse yellow"
    return "green" if row.measured.allowed else "red"


def _row(row: comparison.Row) -> dict[str, object]:
    ends = _probe(row)
    port = f"{ends['port']}/{ends['protocol']}"
    return ends | {
        "port": port,
        "ms": f"{row.measured.milliseconds:.1f}",
        "expected": "" if row.agrees else "DISAGREES",
    }


def _outcome(row: comparison.Row) -> str:
    met = row.measured
    return f"{'✓' if met.allowed else met.error} {met.milliseconds:.1f}"
