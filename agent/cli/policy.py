"""`agentctl policy`: what policies mean, answered from manifests alone, without a cluster.

`matrix` judges every pair, `explain` tells the whole way to one verdict. Both ask the evaluator, which shares nothing
with the compiler: where an agent enforces something else, one of the two is wrong. What the manifests get wrong is
shown on stderr, never passed over, and never an error: such a part is enforced as the problem says.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import click
from rich import text as rich_text

from agent import errors, snapshot
from agent.cli import auditing, grid, manifest_files, output, tables
from agent.model import audit as audit_
from agent.model import net
from agent.policy import asked, evaluator, explain, queries, reachability

COLUMNS = ("from", "to", "port", "family", "allowed")
AUDITED_COLUMNS = (*COLUMNS, "would_deny")
"""Where something is in audit."""
FAMILIES = {net.Family.IPV4: "IPv4", net.Family.IPV6: "IPv6"}
MARKS = {True: "✓ ", False: "✗ ", None: ""}
STYLES = {True: "green", False: "bold red", None: ""}


@click.group()
def policy() -> None:
    """Tell what network policies mean."""


@policy.command()
@manifest_files.option(required=True)
@click.option(
    "--port", "ports", multiple=True, metavar="PORT[/PROTOCOL]", help="Judge these, not all that are declared."
)
@auditing.options
@output.output_option
def matrix(paths: tuple[pathlib.Path, ...], ports: tuple[str, ...], audit: audit_.Audit, form: output.Form) -> None:
    """Show who reaches whom, for every pair of pods and machines outside.

    ✓ reaches, ✗ does not, 4 or 6: reaches by that family only, ~ reaches, and policies in audit would deny it. Pods
    that have no address yet are judged with one from 10.244.0.0/16.
    """
    with _failures():
        placed = reachability.place(manifest_files.load(paths))
        wanted = _wanted(placed.snapshot, ports)
        audits = auditing.checked(placed.snapshot, audit)
        reached = list(reachability.reach(placed.snapshot, wanted, audits))
    document = {"probes": [_probe(one) for one in reached]}
    shown = itertools.chain(_picture(reached, wanted), (_summary(placed, reached),))
    for line in output.prose(shown, form=form, document=document):
        click.echo(line)


@policy.command(name="explain")
@manifest_files.option(required=True)
@click.option("--from", "source", required=True, metavar="END", help="ns/pod, host/NAME, node/NAME or an address.")
@click.option("--to", "destination", required=True, metavar="END", help="As --from; an address may be a Service's.")
@click.option("--port", "port", required=True, metavar="PORT[/PROTOCOL]", help="443/TCP, 53/UDP, or ICMP.")
@click.option("--asks", default="", metavar="NAME", help="A DNS query for NAME by it: may it be asked for there?")
@auditing.options
@output.output_option
def explain_command(
    *,
    paths: tuple[pathlib.Path, ...],
    source: str,
    destination: str,
    port: str,
    asks: str,
    audit: audit_.Audit,
    form: output.Form,
) -> None:
    """Tell why one end reaches another, or why not: every policy, rule, peer and port that was looked at."""
    with _failures():
        placed = reachability.place(manifest_files.load(paths)).snapshot
        auditing.checked(placed, audit)
        wanted = asked.port(port)
        name = asked.name(asks, wanted) if asks else ""
        flows = list(asked.flows(placed, source, destination, wanted))
        walks = [evaluator.walk(placed, one.flow, audit) for one in flows]
        answers = [
            queries.asked_of(placed, asked.alternatives(one, flows), name, audit) if name else None for one in flows
        ]
    told = list(zip(walks, answers, strict=True))
    document = {"flows": [_explained(walk, name, answer) for walk, answer in told]}
    texts = (output.paint(_painted(walk, name, answer)) for walk, answer in told)
    for text in output.prose(texts, form=form, document=document):
        click.echo(text)


def _explained(walk: evaluator.Walk, name: str, answer: queries.Answer | None) -> dict[str, object]:
    query = {"query": explain.query_document(name, answer)} if answer is not None else {}
    return {**explain.document(walk), **query}


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except errors.NodewallError as error:
        raise output.failure(error) from error


def _wanted(placed: snapshot.Snapshot, ports: Sequence[str]) -> list[reachability.Port]:
    declared = reachability.declared(placed)
    if not reachability.ends(placed):
        raise errors.InvalidInput(field="-f", value="no pod", remedy="give manifests that hold the pods, too")
    if not declared:
        remedy = "declare containerPorts: they are what pods are asked for"
        raise errors.InvalidInput(field="-f", value="no port", remedy=remedy)
    wanted = list(dict.fromkeys(asked.port(text) for text in ports)) or declared
    for port in wanted:
        if port not in declared:
            remedy = f"name a port that some pod declares: {', '.join(asked.shown(one) for one in declared)}"
            raise errors.InvalidInput(field="--port", value=asked.shown(port), remedy=remedy)
    return wanted


def _picture(reached: Sequence[reachability.Reach], wanted: Sequence[reachability.Port]) -> Iterator[str]:
    """Yield a grid for every port; a list of all pairs where one of them does not fit the terminal."""
    width = tables.screen_width()
    by_port = [[one for one in reached if one.port == port] for port in wanted]
    grids = [grid.draw(pairs, width=width) for pairs in by_port if pairs]
    if None in grids:
        rows = [_probe(one) | {"port": asked.shown(one.port), "would_deny": _denying(one)} for one in reached]
        columns = AUDITED_COLUMNS if any(one.would_deny for one in reached) else COLUMNS
        yield output.render(rows, columns=columns, form=output.Form.TABLE, document={})
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
    audited = sum(one.would_deny is not None for one in reached)
    if audited:
        text += f"; {audited} reach only for an audit: ~"
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
        "would_deny": one.would_deny.because if one.would_deny is not None else "",
    }


def _denying(one: reachability.Reach) -> str:
    """Name the policies that would deny a pair, were those in audit enforced; "" where none would."""
    return ", ".join(map(str, one.would_deny.isolating)) if one.would_deny is not None else ""


def _painted(walk: evaluator.Walk, name: str, answer: queries.Answer | None) -> rich_text.Text:
    drawn = rich_text.Text()
    query = explain.query_lines(name, answer) if answer is not None else ()
    for line in (*explain.lines(walk), *query):
        if line.heading and drawn:
            drawn.append("\n")
        style = f"bold {STYLES[line.good]}" if line.heading else STYLES[line.good]
        drawn.append("  " * line.depth)
        drawn.append("" if line.heading else MARKS[line.good], style=style)
        drawn.append(f"{output.escape(line.text)}\n", style=style if line.heading else "")
    return drawn
