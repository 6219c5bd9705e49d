"""`agentctl observe`: verdicts as they happen, one line each, with the policy that caused it."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator

import click

from agent import errors
from agent.cli import connection, output
from agent.model import net, verdict
from agent.rpc import client

COLOURS = {
    verdict.Verdict.FORWARDED: "green",
    verdict.Verdict.DROPPED: "red",
    verdict.Verdict.ERROR: "red",
    verdict.Verdict.AUDIT: "yellow",
}
PROTOCOLS = {member.value: member.name for member in net.Protocol}
SECOND_NS = 1_000_000_000


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come.")
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Stored ones to begin with; all, or with -f 20.")
@click.option("--verdict", "which", type=click.Choice(["forwarded", "dropped"], case_sensitive=False))
@click.option("--pod", metavar="NAMESPACE/NAME", help="Flows of this pod, at either end.")
@click.option("-n", "--namespace", help="Flows of this namespace, at either end.")
@connection.agent_options
@output.output_option
def observe(
    socket: pathlib.Path,
    *,
    follow: bool,
    last: int | None,
    which: str | None,
    pod: str | None,
    namespace: str | None,
    form: output.Form,
) -> None:
    """Print verdicts; as JSON or YAML one document each, so that a stream of them can be piped."""
    wanted = filter_of(which, pod, namespace)
    if last is None:
        last = 20 if follow else 0
    elif last == 0 and not follow:
        return
    with client.AgentClient(socket) as agent:
        try:
            for item in agent.watch_verdicts(follow=follow, last=last, wanted=wanted):
                click.echo(printed(item, form))
        except KeyboardInterrupt:
            return  # how a person ends --follow


def filter_of(which: str | None, pod: str | None, namespace: str | None) -> verdict.Filter:
    """Return which verdicts the options mean; raises InvalidInput."""
    name = ""
    if pod is not None:
        pod_namespace, slash, name = pod.partition("/")
        if not slash or not pod_namespace or not name or "/" in name:
            raise errors.InvalidInput(field="--pod", value=pod, remedy="write NAMESPACE/NAME")
        if namespace not in {None, pod_namespace}:
            raise errors.InvalidInput(field="--namespace", value=namespace, remedy=f"--pod says {pod_namespace}")
        namespace = pod_namespace
    kind = verdict.Verdict[which.upper()] if which is not None else None
    return verdict.Filter(verdict=kind, namespace=namespace or "", pod=name)


def printed(item: verdict.Item, form: output.Form) -> str:
    """Return an item of the stream as a line, a JSON object in one line, or a YAML document."""
    match form:
        case output.Form.TABLE:
            return line(item)
        case output.Form.JSON:
            return json.dumps(document(item))
        case output.Form.YAML:
            return "---\n" + output.render((), columns=(), form=form, document=document(item))


def document(item: verdict.Item) -> dict[str, object]:
    """Return an item as JSON says it: {"verdict": {...}} or {"lost": {...}}."""
    if isinstance(item, verdict.Lost):
        return {"lost": output.plain(item)}
    return {"verdict": output.plain(item)}


def line(item: verdict.Item) -> str:
    """Return `TIME node VERDICT direction SOURCE -> DESTINATION:PORT/PROTOCOL why (layer, process)`."""
    if isinstance(item, verdict.Lost):
        return click.style(f"... {item.count} verdicts lost ({item.where})", fg="yellow")
    fraction = item.time_ns % SECOND_NS // 1_000_000
    clock = f"{time.strftime('%H:%M:%S', time.localtime(item.time_ns // SECOND_NS))}.{fraction:03}"
    shown = click.style(f"{item.verdict.name:<9}", fg=COLOURS[item.verdict])
    return " ".join(
        (
            click.style(clock, dim=True),
            output.escape(item.node),
            shown,
            f"{item.direction.name.lower():<7}",
            f"{_end(item.source)} -> {_end(item.destination)}{_port(item)}",
            *_why(item),
        )
    )


def _end(end: verdict.FlowEnd) -> str:
    owner = str(end.address) if end.owner is None else str(end.owner)
    name = f"{end.namespace}/{end.pod}" if end.pod else owner
    return f"{output.escape(name)} ({end.identity or end.address})"


def _port(event: verdict.VerdictEvent) -> str:
    protocol = PROTOCOLS.get(event.protocol, str(event.protocol))
    return f":{event.destination.port}/{protocol}" if event.destination.port else f" {protocol}"


def _why(event: verdict.VerdictEvent) -> Iterator[str]:
    """Yield what decided, why, at which layer, and who asked."""
    if event.rule is not None:
        yield f"by {output.escape(str(event.rule))}"
    elif event.isolating:
        yield "isolated by " + ", ".join(output.escape(str(ref)) for ref in event.isolating)
    yield click.style(event.reason.name.lower(), dim=True)
    yield event.layer.name.lower()
    if event.process is not None:
        yield f"{output.escape(event.process.command)}[{event.process.pid}]"
