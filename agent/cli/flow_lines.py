"""A flow as people read it: one line, a block of fields, or a row of a table; every text of it is a stranger's."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click

from agent.cli import output
from agent.flows import parties, records, talks
from agent.model import verdict

COLOURS = {
    verdict.Verdict.FORWARDED: "green",
    verdict.Verdict.DROPPED: "red",
    verdict.Verdict.ERROR: "red",
    verdict.Verdict.AUDIT: "yellow",
}
SECOND_NS = 1_000_000_000
COLUMNS = ("time", "node", "verdict", "direction", "source", "destination", "why")


def line(item: records.Item, *, policies: bool = False) -> str:
    """Return `TIME node VERDICT direction SOURCE -> DESTINATION:PORT/PROTOCOL why`; with `policies` named apart."""
    if isinstance(item, records.Lost):
        return click.style(f"... {item.count} verdicts lost{_at(item.node)}", fg="yellow")
    cells = row(item, policies=policies)
    shown = click.style(f"{item.verdict.name:<9}", fg=COLOURS[item.verdict])
    moment = click.style(str(cells["time"]), dim=True)
    way = f"{cells['source']} -> {cells['destination']}"
    words = (moment, cells["node"], shown, f"{cells['direction']:<7}", way, cells["why"])
    return " ".join(output.escape(str(word)) if word not in (moment, shown) else str(word) for word in words if word)


def block(item: records.Item, *, policies: bool = False) -> str:
    """Return a flow as `NAME: value` lines, and a line of dashes."""
    if isinstance(item, records.Lost):
        return f"{'LOST':>12}: {item.count}{_at(item.node)}\n------------"
    cells = row(item, policies=policies)
    lines = (f"{name.upper():>12}: {output.escape(str(value))}" for name, value in cells.items() if value)
    return "\n".join((*lines, "------------"))


def row(item: records.Record, *, policies: bool = False) -> Mapping[str, str]:
    """Return what is shown of a flow by name, not escaped yet."""
    destination = _end(item.destination)
    port = item.destination.port
    protocol = parties.protocol_of(item.protocol)
    transport = protocol.name if protocol else str(item.protocol or "?")
    return {
        "time": clock(item.time_ns),
        "node": item.node,
        "verdict": item.verdict.name,
        "direction": item.direction.name.lower(),
        "source": _end(item.source),
        "destination": f"{destination}:{port}/{transport}" if port else f"{destination} {transport}",
        "why": why(item, policies=policies),
    }


def why(item: records.Record, *, policies: bool = False) -> str:
    """Say what decided: what the node said of it, and the policies where that does not name them, or `policies`."""
    named = ", ".join(map(str, item.policies))
    if item.rule is not None:
        named = str(item.rule)
    if not named or (item.summary and not policies):
        return item.summary
    word = "by" if item.verdict is verdict.Verdict.FORWARDED or item.rule is not None else "isolated by"
    return f"{word} {named} ({item.summary})" if item.summary else f"{word} {named}"


def clock(time_ns: int) -> str:
    """Return the day and the time of it here, to the millisecond, as Hubble prints it."""
    fraction = time_ns % SECOND_NS // 1_000_000
    return f"{time.strftime('%b %d %H:%M:%S', time.localtime(time_ns // SECOND_NS))}.{fraction:03}"


def _end(end: records.End) -> str:
    """Return who that is, and the identity; in brackets a port is not part of an address."""
    service = talks.service_of(end)
    if end.pod:
        name = f"{end.namespace}/{end.pod}"
    elif service is not None:
        name = str(service)
    else:
        name = end.names[0] if end.names else str(end.address)
    word = str(next(iter(sorted(end.reserved)), "") or end.identity or "")
    known = [name, word] if end.pod or service is not None else [name, word, str(end.address)]
    _, *more = dict.fromkeys(one for one in known if one)
    return f"{name} ({', '.join(more) or end.address})"


def _at(node: str) -> str:
    return f" on {output.escape(node)}" if node else ""
