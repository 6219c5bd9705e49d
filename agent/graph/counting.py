"""Adds up recorded verdicts by who asked whom on which port.

One connection is judged at both ends, and each end's node tells of its own side. What reached the other end is told
there; only where that end told nothing does the opener's side stand for the connection. A denial is told by the end
that denies, and by no other. A verdict that tells how many like it were kept back counts for all of them.
"""

from __future__ import annotations

import collections
import dataclasses

from agent.graph import model
from agent.graph import seen as seen_
from agent.model import net

ADDRESSES_SHOWN = 8
"""Addresses remembered of a node that is no pod."""


@dataclasses.dataclass(slots=True)
class Count:
    """What was seen on one port between two nodes."""

    sent: int = 0
    received: int = 0
    denied_out: int = 0
    denied_in: int = 0
    audited_out: int = 0
    audited_in: int = 0
    last_ns: int = 0
    policies: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Those that decided denials; where there was none, those that would have; else those that allowed."""

    def add(self, seen: seen_.Seen) -> None:
        """Count one verdict, and those that were kept back before it."""
        egress, number = seen.direction is net.Direction.EGRESS, seen.stands_for
        if (seen.denied and not self.denied) or (seen.audited and not self.denied and not self.audited):
            self.policies.clear()
        if seen.denied:
            self.denied_out += number * egress
            self.denied_in += number * (not egress)
        else:
            self.sent += number * egress
            self.received += number * (not egress)
        if seen.audited:
            self.audited_out += number * egress
            self.audited_in += number * (not egress)
        if seen.denied or (not self.denied and (seen.audited or not self.audited)):
            self.policies.update(dict.fromkeys(seen.policies, number))
        self.last_ns = max(self.last_ns, seen.time_ns)

    @property
    def denied(self) -> int:
        """Attempts that failed."""
        return self.denied_out + self.denied_in

    @property
    def forwarded(self) -> int:
        """Connections that took place."""
        return self.received if self.received or self.denied_in else self.sent

    @property
    def audited(self) -> int:
        """Connections that policies in audit would have denied, at least: both ends may tell of the same one."""
        return max(self.audited_out, self.audited_in)


Place = tuple[model.Key, model.Key, int, int]
"""Source, target, port (0 where the protocol has none), protocol."""


class Counts:
    """All that was seen."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.lanes: dict[Place, Count] = {}
        self.pods: dict[model.Key, dict[str, None]] = {}
        self.addresses: dict[model.Key, dict[str, None]] = {}
        self.kinds: dict[model.Key, model.Kind] = {}
        self.verdicts = 0
        self.first_ns = 0
        self.last_ns = 0

    def count(self, place: Place, seen: seen_.Seen) -> None:
        """Add one verdict."""
        found = self.lanes.get(place)
        if found is None:
            found = self.lanes[place] = Count()
        found.add(seen)
        self.verdicts += seen.stands_for
        self.first_ns = min(self.first_ns or seen.time_ns, seen.time_ns)
        self.last_ns = max(self.last_ns, seen.time_ns)

    def saw(self, key: model.Key, kind: model.Kind, *, pod: str, address: str) -> None:
        """Remember who a node stood for."""
        self.kinds[key] = kind
        if pod:
            self.pods.setdefault(key, {})[pod] = None
            return
        addresses = self.addresses.setdefault(key, {})
        if len(addresses) < ADDRESSES_SHOWN:
            addresses[address] = None
