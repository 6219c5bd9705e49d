"""What a request for flows means; raises InvalidInput on what cannot be answered, and never answers something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from google.protobuf import timestamp_pb2

from agent import errors
from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.hubble import filters, masks, records
from agent.model import verdict

SECOND_NS = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which of what is stored is asked for, and whether what comes later is too."""

    number: int | None
    """The first or last so many; None: all, or, to follow, none."""
    first: bool
    follow: bool
    since_ns: int | None
    until_ns: int | None

    def admits(self, time_ns: int) -> bool:
        """Tell whether a moment is in the window; both ends are."""
        return (self.since_ns is None or self.since_ns <= time_ns) and not self.passed(time_ns)

    def passed(self, time_ns: int) -> bool:
        """Tell whether a moment is after the window."""
        return self.until_ns is not None and time_ns > self.until_ns

    @property
    def only_new(self) -> bool:
        """Nothing of what is stored."""
        return self.follow and self.number is None and self.since_ns is None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A request for flows."""

    window: Window
    wanted: filters.Predicate
    verdicts: frozenset[verdict.Verdict] | None
    """Flows with any other are not wanted, whatever else they are; None: they may be."""
    dropped: tuple[str, ...]
    """Fields of a flow that are not sent."""

    def admits(self, record: records.Record) -> bool:
        """Tell whether a flow is asked for."""
        return self.window.admits(record.event.time_ns) and self.wanted(record)


def query(message: pb.GetFlowsRequest) -> Query:
    """Read a request for flows."""
    filters.refuse_unknown(message)
    return Query(
        window=window(message),
        wanted=filters.wanted(message.whitelist, message.blacklist),
        verdicts=_verdicts(message.whitelist),
        dropped=masks.dropped(message.field_mask.paths),
    )


def window(message: pb.GetFlowsRequest | pb.GetAgentEventsRequest) -> Window:
    """Read what both kinds of request have."""
    if message.first and message.follow:
        raise errors.InvalidInput(field="first", value=True, remedy="leave it out to follow")
    return Window(
        number=message.number or None,
        first=message.first,
        follow=message.follow,
        since_ns=_ns(message.since) if message.HasField("since") else None,
        until_ns=_ns(message.until) if message.HasField("until") else None,
    )


def _verdicts(allow: Sequence[flow_pb2.FlowFilter]) -> frozenset[verdict.Verdict] | None:
    if not allow or not all(one.verdict for one in allow):
        return None
    asked = {number for one in allow for number in one.verdict}
    return frozenset(kind for kind in verdict.Verdict if kind.value in asked)


def _ns(message: timestamp_pb2.Timestamp) -> int:
    return message.seconds * SECOND_NS + message.nanos
