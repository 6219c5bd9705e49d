"""Denied flows as log lines: one a flow and interval, with the number of those that were kept back.

What would be denied, were a policy not in audit (rule A51), has a log of its own.

A pod in a loop of connect() calls must not fill the node's disk or take a core: the same denial is logged again after
REPEAT_NS at the earliest, and all denials together get no more than BUDGET lines a second.
"""

from __future__ import annotations

import collections
from collections.abc import AsyncIterator, Callable

from agent.model import net, verdict

REPEAT_NS = 10_000_000_000
BUDGET = 20
"""Lines in one second."""
REMEMBERED = 1024
"""Flows whose last line is remembered; the longest silent is forgotten first."""
SECOND_NS = 1_000_000_000


class DenialLog:
    """Decides which denials become lines; time is that of the verdicts."""

    def __init__(
        self, write: Callable[[dict[str, object]], None], of: verdict.Verdict = verdict.Verdict.DROPPED
    ) -> None:
        """`write` gets the fields of one line; verdicts other than `of` are none of its business."""
        self._write = write
        self._of = of
        self._last_ns: collections.OrderedDict[tuple[object, ...], int] = collections.OrderedDict()
        self._held_back: collections.Counter[tuple[object, ...]] = collections.Counter()
        self._second = 0
        self._lines = 0
        self._unlogged = 0
        """Denials over the budget since the last line, whatever their flow."""

    async def follow(self, items: AsyncIterator[verdict.Item]) -> None:
        """Log denials out of `items` until they end."""
        async for item in items:
            if isinstance(item, verdict.VerdictEvent) and item.verdict is self._of:
                self.see(item)

    def see(self, event: verdict.VerdictEvent) -> None:
        """Write a line for `event`, or count it for the next one."""
        flow = _flow(event)
        last = self._last_ns.get(flow)
        if last is not None and event.time_ns - last < REPEAT_NS:
            self._held_back[flow] += 1 + event.repeats
            return
        if not self._within_budget(event.time_ns):
            self._unlogged += 1 + event.repeats
            return
        self._last_ns[flow] = event.time_ns
        self._last_ns.move_to_end(flow)
        if len(self._last_ns) > REMEMBERED:
            forgotten, _ = self._last_ns.popitem(last=False)
            self._unlogged += self._held_back.pop(forgotten, 0)
        suppressed = self._held_back.pop(flow, 0) + event.repeats
        line = fields(event)
        if suppressed:
            line["suppressed"] = suppressed
        if self._unlogged:
            line["suppressed_others"] = self._unlogged
            self._unlogged = 0
        self._write(line)

    def _within_budget(self, time_ns: int) -> bool:
        second = time_ns // SECOND_NS
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= BUDGET


def fields(event: verdict.VerdictEvent) -> dict[str, object]:
    """Return what one line says: self-contained, and every name as it is (the log's writer escapes)."""
    known = {member.value: member.name for member in net.Protocol}
    line: dict[str, object] = {
        "direction": event.direction.name.lower(),
        "source": _end(event.source),
        "destination": _end(event.destination),
        "port": f"{event.destination.port}/{known.get(event.protocol, event.protocol)}",
        "reason": event.reason.name.lower(),
        "layer": event.layer.name.lower(),
    }
    if event.rule is not None:
        line["rule"] = str(event.rule)
    if event.isolating:
        line["isolated_by"] = ", ".join(str(ref) for ref in event.isolating)
    if names := event.source.names or event.destination.names:
        line["names"] = ", ".join(names)
    if event.query is not None:
        line["asked"] = f"{event.query.name} {event.query.type}"
    if event.dialled is not None:
        line["dialled"] = _end(event.dialled)
    if event.process is not None:
        line["process"] = f"{event.process.command}[{event.process.pid}]"
    return line


def _end(end: verdict.FlowEnd) -> str:
    if end.pod:
        return f"{end.namespace}/{end.pod} ({end.address})"
    return f"{end.owner} ({end.address})" if end.owner is not None else str(end.address)


def _flow(event: verdict.VerdictEvent) -> tuple[object, ...]:
    """Return what makes two denials one flow to a reader: everything but the source port and the process."""
    source, destination = event.source, event.destination
    flow = (source.address, destination.address, destination.port, event.protocol, event.direction, event.reason)
    return flow if event.query is None else (*flow, event.query)
