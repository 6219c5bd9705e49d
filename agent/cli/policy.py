"""`agentctl policy`: what policies mean, answered from manifests alone, without a cluster.

`matrix` judges every pair, `explain` tells the whole way to one verdict. Both ask the evaluator, which shares nothing
with the compiler: where an agent enforces something else, one of the two is wrong. What the manifests get wrong is
shown on stderr, never passed over, and never an error: such a part is enforced as the problem says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

import click
from rich import text as rich_text

from agent import errors, snapshot
from agent.cli import grid, output
from agent.model import net, resources
from agent.policy import dialled, evaluator, explain, reachability
from agent.sources import manifests

COLUMNS = ("from", "to", "port", "family", "allowed")
FAMILIES = {net.Family.IPV4: "IPv4", net.Family.IPV6: "IPv6"}
WITHOUT_PORTS = {net.Protocol.ICMP, net.Protocol.ICMPV6}
MARKS = {True: "✓ ", False: "✗ ", None: ""}
STYLES = {True: "green", False: "bold red", None: ""}

manifests_option = click.option(
    "-f",
    "--filename",
    "paths",
    type=click.Path(path_type=pathlib.Path),
    multiple=True,
    required=True,
    help="A manifest or a directory of them; may be given more than once.",
)


@click.group()
def policy() -> None:
    """Tell what network policies mean."""


@policy.command()
@manifests_option
@click.option(
    "--port", "ports", multiple=True, metavar="PORT[/PROTOCOL]", help="Judge these, not all that are declared."
)
@output.output_option
def matrix(paths: tuple[pathlib.Path, ...], ports: tuple[str, ...], form: output.Form) -> None:
    """Show who reaches whom, for every pair of pods and machines outside.

    ✓ reaches, ✗ does not, 4 or 6: reaches by that family only. Pods that have no address yet are judged with one
    from 10.244.0.0/16.
    """
    with _failures():
        placed = reachability.place(_load(paths))
        wanted = _wanted(placed.snapshot, ports)
        reached = list(reachability.reach(placed.snapshot, wanted))
    if form is output.Form.TABLE:
        for line in _picture(reached, wanted):
            click.echo(line)
        click.echo(_summary(placed, reached))
        return
    document = {"probes": [_probe(one) for one in reached]}
    click.echo(output.render((), columns=COLUMNS, form=form, document=document))


@policy.command(name="explain")
@manifests_option
@click.option("--from", "source", required=True, metavar="END", help="ns/pod, host/NAME, node/NAME or an address.")
@click.option("--to", "destination", required=True, metavar="END", help="As --from; an address may be a Service's.")
@click.option("--port", "port", required=True, metavar="PORT[/PROTOCOL]", help="443/TCP, 53/UDP, or ICMP.")
@output.output_option
def explain_command(
    paths: tuple[pathlib.Path, ...], source: str, destination: str, port: str, form: output.Form
) -> None:
    """Tell why one end reaches another, or why not: every policy, rule, peer and port that was looked at."""
    with _failures():
        placed = reachability.place(_load(paths)).snapshot
        walks = [evaluator.walk(placed, flow) for flow in _flows(placed, source, destination, _port(port))]
    if form is output.Form.TABLE:
        for walk in walks:
            click.echo(output.paint(_painted(walk)))
        return
    document = {"flows": [explain.document(walk) for walk in walks]}
    click.echo(output.render((), columns=COLUMNS, form=form, document=document))


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except errors.NodewallError as error:
        raise output.failure(error) from error


def _load(paths: Sequence[pathlib.Path]) -> snapshot.Snapshot:
    """Read the manifests, and show their problems on stderr."""
    loaded = manifests.load(paths)
    for problem in loaded.problems:
        where = f"{problem.ref} {problem.path}" if problem.path else str(problem.ref)
        click.echo(f"problem: {output.escape(where)}: {output.escape(problem.reason)}", err=True)
    return loaded


def _wanted(placed: snapshot.Snapshot, ports: Sequence[str]) -> list[reachability.Port]:
    declared = reachability.declared(placed)
    if not reachability.ends(placed):
        raise errors.InvalidInput(field="-f", value="no pod", remedy="give manifests that hold the pods, too")
    if not declared:
        remedy = "declare containerPorts: they are what pods are asked for"
        raise errors.InvalidInput(field="-f", value="no port", remedy=remedy)
    wanted = list(dict.fromkeys(_port(text) for text in ports)) or declared
    for port in wanted:
        if port not in declared:
            remedy = f"name a port that some pod declares: {', '.join(_shown(one) for one in declared)}"
            raise errors.InvalidInput(field="--port", value=_shown(port), remedy=remedy)
    return wanted


def _port(text: str) -> reachability.Port:
    """Read `443/TCP`, `443` (TCP), or `ICMP`, which has no ports."""
    number, slash, name = text.partition("/")
    remedy = "write a number from 1 to 65535 and TCP, UDP or SCTP, as in 443/TCP; or ICMP"
    for protocol in WITHOUT_PORTS:
        if text.upper() == protocol.name:
            return 0, protocol
    try:
        protocol = net.Protocol[name.upper() if slash else "TCP"]
    except KeyError:
        raise errors.InvalidInput(field="--port", value=text, remedy=remedy) from None
    valid = number.isascii() and number.isdigit() and len(number) <= len(str(net.PORT_MAX))
    if not valid or not 1 <= int(number) <= net.PORT_MAX or protocol in WITHOUT_PORTS:
        raise errors.InvalidInput(field="--port", value=text, remedy=remedy)
    return int(number), protocol


def _shown(port: reachability.Port) -> str:
    return f"{port[0]}/{port[1].name}"


def _picture(reached: Sequence[reachability.Reach], wanted: Sequence[reachability.Port]) -> Iterator[str]:
    """Yield a grid for every port; a list of all pairs where one of them does not fit the terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else output.PIPE_WIDTH
    by_port = [[one for one in reached if one.port == port] for port in wanted]
    grids = [grid.draw(pairs, width=width) for pairs in by_port if pairs]
    if None in grids:
        rows = [_probe(one) | {"port": _shown(one.port)} for one in reached]
        yield output.render(rows, columns=COLUMNS, form=output.Form.TABLE, document={})
        yield ""
        return
    for drawn in grids:
        yield output.paint(drawn)
        yield ""


def _summary(placed: reachability.Placed, reached: Sequence[reachability.Reach]) -> str:
    allowed = sum(one.decision.allowed for one in reached)
    text = (
        f"{len(reached)} pairs, {allowed} reach, {len(reached) - allowed} blocked;"
        f" {len(reachability.ends(placed.snapshot))} ends, {len(placed.snapshot.policies)} policies"
    )
    if placed.pods:
        text += f"; {placed.pods} pods have no address yet and were judged with placeholders"
    return text


def _probe(one: reachability.Reach) -> dict[str, object]:
    """Return what one pair is in JSON."""
    side = one.decisive
    return {
        "from": one.source,
        "to": one.destination,
        "port": one.port[0],
        "protocol": one.port[1].name,
        "family": FAMILIES[one.family],
        "allowed": one.decision.allowed,
        "reason": one.reason.name.lower(),
        "direction": side.direction.name.lower(),
        "rule": str(side.rule) if side.rule else None,
        "isolating": [str(policy) for policy in side.isolating],
        "because": side.because,
    }


def _flows(
    placed: snapshot.Snapshot, source: str, destination: str, port: reachability.Port
) -> Iterator[evaluator.Flow]:
    """Yield the flows between two ends: one a family, or one an endpoint where a Service's address is dialled."""
    opener = _end(placed, "--from", source)
    receivers = [(_end(placed, "--to", destination), port[0])]
    service = _service(placed, destination, port)
    if service is not None:
        receivers = [(_at(address), number) for address, number in service.endpoints]
    found = False
    for receiver, number in receivers:
        for flow in reachability.flows(opener, receiver, (number, port[1])):
            found = True
            yield dataclasses.replace(
                flow,
                source=_known(placed, opener, flow.source_address),
                destination=_known(placed, receiver, flow.destination_address),
                via_service=service is not None,
            )
    if not found:
        raise errors.InvalidInput(field="--to", value=destination, remedy=f"name an end of the same family as {source}")


def _service(placed: snapshot.Snapshot, text: str, port: reachability.Port) -> dialled.Dialled | None:
    """Return the Service whose address and port these are, if any."""
    try:
        address = net.normalize(ipaddress.ip_address(text))
    except ValueError:
        return None
    found = dialled.behind(placed, address, port[0], port[1])
    if found is not None and not found.endpoints:
        remedy = f"{found.service} has no endpoint there: whatever policy says, the connection is refused"
        raise errors.InvalidInput(field="--to", value=f"{text} port {_shown(port)}", remedy=remedy)
    return found


def _at(address: net.Address) -> resources.Host:
    """Return a machine without a name: a bare address, until `_known` says whose it is."""
    return resources.Host(name="", addresses=(address,))


def _end(placed: snapshot.Snapshot, option: str, text: str) -> reachability.End | resources.Node:
    """Return who is meant; raises InvalidInput where nobody is."""
    with contextlib.suppress(ValueError):
        return _at(net.normalize(ipaddress.ip_address(text)))
    kind, _, name = text.partition("/")
    if kind == "node" and name in placed.nodes:
        return placed.nodes[name]
    ends = reachability.ends(placed)
    if text not in ends:
        remedy = f"name an address, host/NAME, node/NAME or one of these pods: {', '.join(ends)}"
        raise errors.InvalidInput(field=option, value=text, remedy=remedy)
    return ends[text]


def _known(placed: snapshot.Snapshot, end: reachability.End | resources.Node, address: net.Address) -> evaluator.Party:
    """Return the end itself, or whoever has the address that was given instead of a name."""
    return end if end.name else evaluator.party_at(placed, address)


def _painted(walk: evaluator.Walk) -> rich_text.Text:
    drawn = rich_text.Text()
    for line in explain.lines(walk):
        if line.heading and drawn:
            drawn.append("\n")
        style = f"bold {STYLES[line.good]}" if line.heading else STYLES[line.good]
        drawn.append("  " * line.depth)
        drawn.append("" if line.heading else MARKS[line.good], style=style)
        drawn.append(f"{output.escape(line.text)}\n", style=style if line.heading else "")
    return drawn
