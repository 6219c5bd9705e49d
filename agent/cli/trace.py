"""`agentctl trace`: one flow by the policies and by what the kernel holds at this moment, told apart where they differ.

Exits with 0 where the flow is allowed, 3 where it is denied, 1 where the policies, the compiled state and the kernel do
not say the same: then neither answer is to be relied upon.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import click

from agent.cli import connection, flow_lines, output
from agent.datapath import tracing
from agent.hubble import client as flows_client
from agent.model import net
from agent.rpc import client, traces

PROTOCOLS = {member.value: member.name for member in net.Protocol}
WORDS = {True: "allowed", False: "denied"}
COLOURS = {True: "green", False: "red"}
MARK = "!"


@click.command()
@click.option("--from", "source", required=True, metavar="END", help="ns/pod, host/NAME, node/NAME or an address.")
@click.option("--to", "destination", required=True, metavar="END", help="As --from, or service/NS/NAME.")
@click.option("--port", required=True, metavar="PORT[/PROTOCOL]", help="443/TCP, 53/UDP, or ICMP.")
@click.option("--asks", default="", metavar="NAME", help="A DNS query for NAME by it: may it be asked for there?")
@connection.agent_options
@output.output_option
def trace(socket: pathlib.Path, *, source: str, destination: str, port: str, asks: str, form: output.Form) -> None:
    """Tell what becomes of a flow: by the policies, by the compiled state, by the kernel's maps or rules.

    Exit code: 0 allowed, 3 denied, 1 where the three do not say the same, or on failure.
    """
    with client.AgentClient(socket) as agent:
        found = agent.trace(source, destination, port, asks)
    for line in output.prose(lines(found), form=form, document=output.plain(found)):
        click.echo(line)
    sys.exit(code(found))


def code(found: traces.Traced) -> output.ExitCode:
    """Return what the shell learns."""
    if any(flow.disagreements for flow in found.flows):
        return output.ExitCode.FAILURE
    return output.ExitCode.OK if all(flow.allowed for flow in found.flows) else output.ExitCode.DISAGREEMENT


def lines(found: traces.Traced) -> Iterator[str]:
    """Yield what a person reads: the verdict first, then policies, then each layer, look-up by look-up."""
    for place, flow in enumerate(found.flows):
        if place:
            yield ""
        yield _heading(flow, found.node)
        for one in flow.disagreements:
            yield click.style(f"{MARK} {output.escape(one)}", fg="red", bold=True)
        yield from _policies(flow)
        yield f"{_name('path')}{output.escape(flow.path_why)}"
        for layer in flow.layers:
            yield from _layer(layer)
        if flow.verdicts:
            yield "last verdicts"
            lines = map(flows_client.line_of, flow.verdicts)
            yield from (f"  {flow_lines.line(one.item)}" for one in lines if one is not None)


def _heading(flow: traces.FlowTrace, node: str) -> str:
    protocol = PROTOCOLS.get(flow.protocol, str(flow.protocol))
    port = f" {flow.port}/{protocol}" if flow.port else f" {protocol}"
    asks = f" asking for {flow.query.name}" if flow.query is not None else ""
    ends = f"{flow.source} ({flow.source_address}) -> {flow.destination} ({flow.destination_address}){port}{asks}"
    dialled = f" by {flow.service} at {flow.dialled}" if flow.dialled else ""
    if flow.disagreements:
        verdict = click.style("DISAGREEMENT", fg="red", bold=True)
    elif flow.allowed and (flow.egress.would_deny or flow.ingress.would_deny or _would_refuse(flow)):
        verdict = click.style("ALLOWED IN AUDIT", fg="yellow", bold=True)
    else:
        verdict = click.style(WORDS[flow.allowed].upper(), fg=COLOURS[flow.allowed], bold=True)
    return f"{verdict} {output.escape(ends + dialled)}, node {output.escape(node)}"


def _policies(flow: traces.FlowTrace) -> Iterator[str]:
    for side in (flow.egress, flow.ingress):
        here = "" if side.judged_here or side.subject is None else " [not judged here]"
        told = f"{_said(side.allowed)}: {output.escape(side.because)}{here}"
        yield f"{_name('policy')}{side.direction.name.lower():<7} {told}"
        if side.would_deny:
            would = click.style("in audit, would be denied", fg="yellow")
            yield f"{_name('')}{'':<7} {would}: {output.escape(side.would_deny)}"
    if flow.query is not None:
        yield f"{_name('policy')}{tracing.QUERY:<7} {_said(flow.query.allowed)}: {output.escape(flow.query.because)}"
        if flow.query.would_refuse:
            yield f"{_name('')}{'':<7} {click.style('in audit, would be refused', fg='yellow')}"


def _would_refuse(flow: traces.FlowTrace) -> bool:
    return flow.query is not None and flow.query.would_refuse


def _layer(layer: tracing.Layer) -> Iterator[str]:
    yield f"{layer.layer.name.lower()} layer ({layer.hook})"
    for name, answer in (("compiled", layer.compiled), ("kernel", layer.loaded)):
        yield f"  {name:<8} {_said(answer.allowed)}: {output.escape(answer.why)}"
    differing = {(one.table, one.row): one for one in layer.differences}
    for one in layer.loaded.lookups:
        by = f" by {one.entry}" if one.entry and one.entry != one.key else ""
        asked = f" [{one.key}]" if one.key else ""
        text = output.escape(f"{one.table}{asked}{by} = {one.value}")
        mark = click.style(MARK, fg="red", bold=True) if (one.table, one.key) in differing else " "
        yield f"  {mark} {text}"
    for difference in layer.differences:
        yield click.style(f"  {MARK} {output.escape(f'{difference.table} [{difference.row}]')}", fg="red", bold=True)
        yield f"      expected {output.escape(difference.expected)}"
        yield f"      found    {output.escape(difference.found)}"


def _said(allowed: bool) -> str:  # noqa: FBT001 - a verdict
    return click.style(WORDS[allowed], fg=COLOURS[allowed])


def _name(text: str) -> str:
    return f"{text:<8} "
