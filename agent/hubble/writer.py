"""Records as bytes, at the rate verdicts come.

Building a whole message takes some 80 us, and a busy node makes 20,000 verdicts a second. Most of a flow says the same
as of the last one between the same two ends: those fields are serialised once and kept. A protobuf message may be
written in pieces, one after the other, so a flow is the piece kept and a small one of its own.
"""

from __future__ import annotations

import dataclasses

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2
from agent.hubble import flows, records, words
from agent.model import verdict

NANO = 1_000_000_000
KEPT = 4096
"""Pieces kept; when there are more all are forgotten, as what traffic there is has changed."""
FLOW_TAG = bytes([observer_pb2.GetFlowsResponse.FLOW_FIELD_NUMBER << 3 | 2])
OWN = ("time", "uuid", "l4", "l7", "Summary", "aggregate")
"""Fields that differ from one flow to the next."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """What flows of one kind between two ends have in common."""

    fields: bytes
    summary: str


class Writer:
    """Used in one thread."""

    def __init__(self, *, version: str) -> None:
        """`version` is that of the agent, which emits the flows."""
        self._version = version
        self._pieces: dict[tuple[object, ...], Piece] = {}

    def response(self, record: records.Record) -> bytes:
        """Return a serialised observer.GetFlowsResponse with the flow."""
        event = record.event
        piece = self._piece(record)
        own = pb.Flow(
            uuid=record.uuid,
            l4=flows.layer4(event),
            l7=flows.layer7(event),
            Summary=words.with_call(piece.summary, event),
            aggregate=flows.aggregate(event),
        )
        envelope = observer_pb2.GetFlowsResponse(node_name=words.name(event.node))
        seconds, nanos = divmod(event.time_ns, NANO)
        for time in (own.time, envelope.time):
            time.seconds, time.nanos = seconds, nanos
        flow = piece.fields + own.SerializeToString()
        return b"".join((FLOW_TAG, _varint(len(flow)), flow, envelope.SerializeToString()))

    def _piece(self, record: records.Record) -> Piece:
        key = kind(record.event)
        if (found := self._pieces.get(key)) is None:
            if len(self._pieces) >= KEPT:
                self._pieces.clear()
            message = flows.flow(record, version=self._version)
            for field in OWN:
                message.ClearField(field)
            found = self._pieces[key] = Piece(message.SerializeToString(), words.summary(record.event))
        return found


def kind(event: verdict.VerdictEvent) -> tuple[object, ...]:
    """Return all that a flow says, but the fields of OWN: flows that have it in common differ in nothing else."""
    source, destination = event.source, event.destination
    return (
        *(event.verdict, event.reason, event.direction, event.layer, event.rule, event.isolating, event.node),
        *(event.match, records.dialled(event).owner, event.query is None),
        *(source.address, source.identity, source.namespace, source.pod, source.labels, source.owner),
        *(source.names, destination.names),
        *(destination.address, destination.identity, destination.namespace, destination.pod),
        *(destination.labels, destination.owner),
    )


def _varint(number: int) -> bytes:
    """Write a number below 2**21 as protobuf does."""
    if number < 1 << 7:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
