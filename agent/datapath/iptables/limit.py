"""How many verdicts of one kind are told: `bpf/include/rate.h` for an engine whose packets are logged.

The problem: NFLOG tells of every packet, and no match of iptables can say how many it held back of what: `hashlimit`
counts by addresses, not by identities, and tells nobody. The rule: the same bucket in the same sizes, applied to what
was read, before anybody gives it names: the next verdict of the kind says how many there were. What the kernel's
buffer cannot hold until then is counted where it is lost.
"""

from __future__ import annotations

import collections
import dataclasses

from agent.datapath.iptables import verdicts
from agent.model import net

SECOND_NS = 1_000_000_000
SAVED_NS = 10 * SECOND_NS
"""A kind that was silent for so long may tell so much at once."""
REMEMBERED = 8192
"""Kinds; the one silent longest is forgotten first."""
_EGRESS = net.Direction.EGRESS.value


@dataclasses.dataclass(slots=True)
class _Bucket:
    due_ns: int
    kept_back: int = 0


class Limit:
    """Keeps back and counts; for one thread, any other may read the counts."""

    def __init__(self, rate: int) -> None:
        """Let through `rate` a second of a kind, and ten seconds' worth at once; 0: all."""
        self._interval_ns = SECOND_NS // rate if rate else 0
        self._buckets: collections.OrderedDict[tuple[int, ...], _Bucket] = collections.OrderedDict()
        self.suppressed = 0
        """Verdicts kept back."""
        self.repeated = 0
        """Of these, told with a later one."""
        self.forgotten = 0
        """Of these, never told, as their kind was forgotten."""

    def admitted(self, events: list[verdicts.Event]) -> list[verdicts.Event]:
        """Return the events that are told, with how many were kept back before each."""
        if not self._interval_ns:
            return events
        return [told for event in events if (told := self._told(event)) is not None]

    def _told(self, event: verdicts.Event) -> verdicts.Event | None:
        peer = event.destination_identity if event.direction == _EGRESS else event.source_identity
        kind = (
            event.endpoint, peer, event.protocol, event.destination_port, event.direction, event.verdict, event.reason
        )  # fmt: skip
        bucket = self._buckets.get(kind)
        if bucket is None:
            self._begin(kind, event.time_ns)
            return event
        self._buckets.move_to_end(kind)
        if bucket.due_ns + self._interval_ns > event.time_ns + SAVED_NS:
            bucket.kept_back += 1
            self.suppressed += 1
            return None
        bucket.due_ns = max(bucket.due_ns, event.time_ns) + self._interval_ns
        if not bucket.kept_back:
            return event
        repeats, bucket.kept_back = bucket.kept_back, 0
        self.repeated += repeats
        return event._replace(repeats=repeats)

    def _begin(self, kind: tuple[int, ...], time_ns: int) -> None:
        self._buckets[kind] = _Bucket(time_ns + self._interval_ns)
        if len(self._buckets) > REMEMBERED:
            _, oldest = self._buckets.popitem(last=False)
            self.forgotten += oldest.kept_back
