"""A recording asked as an agent's ring is: the same filters, the same window."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from agent.flows import records as recorded
from agent.hubble import records, requests
from agent.model import verdict


@dataclasses.dataclass(frozen=True, slots=True)
class Replayed(records.Record):
    """A recorded verdict; what a ring would work out of the event stands in the recording."""

    uuid: str
    drop_reason: int
    event_type: int
    event_sub_type: int


def answered(lines: Iterable[recorded.Line], query: requests.Query) -> Iterator[recorded.Line]:
    """Yield the lines that `query` asks for; those that tell of losses belong to every answer without a limit."""
    found = (line for line in lines if isinstance(line.item, recorded.Lost) or query.admits(replayed(line.item)))
    number = query.window.number
    if number is None:
        yield from found
        return
    verdicts = (line for line in found if isinstance(line.item, recorded.Record))
    if not query.window.first:
        yield from collections.deque(verdicts, maxlen=number)
        return
    for _, line in zip(range(number), verdicts, strict=False):
        yield line


def replayed(record: recorded.Record) -> Replayed:
    """Return a recorded verdict as filters take it."""
    event = verdict.VerdictEvent(
        time_ns=record.time_ns,
        node=record.node,
        verdict=record.verdict,
        reason=record.reason or verdict.Reason.UNJUDGED,
        direction=record.direction,
        layer=verdict.Layer.SOCKET if record.socket else verdict.Layer.PACKET,
        protocol=record.protocol,
        source=_end(record.source),
        destination=_end(record.destination),
        generation=0,
        query=verdict.Query(name=record.query, type="") if record.query else None,
    )
    return Replayed(event, 0, 0, record.uuid, record.drop_reason, *record.event_type)


def _end(end: recorded.End) -> records.RecordedEnd:
    return records.RecordedEnd(
        address=end.address,
        port=end.port,
        identity=end.identity,
        namespace=end.namespace,
        pod=end.pod,
        labels=end.labels,
        owner=end.service,
        names=end.names,
        words=tuple(sorted(end.reserved)),
    )
