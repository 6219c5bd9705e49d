"""Adds up recorded verdicts by who asked whom on which port.

One connection is judged at both ends, and each end's node tells of its own side. What reached the other end is told
there; only where that end told nothing does the opener's side stand for the connection. A denial is told by the end
that denies, and by no other.
"""

from __future__ import annotations

import collections
import dataclasses

from agent.graph import model
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
    last_ns: int = 0
    policies: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    """Those that decided denials; those that allowed, where there was none."""

    def add(self, *, direction: net.Direction, denied: bool, time_ns: int, policies: tuple[str, ...]) -> None:
        """Count one verdict."""
        egress = direction is net.Direction.EGRESS
        if denied:
            if not self.denied:
                self.policies.clear()
            self.denied_out += egress
            self.denied_in += not egress
        else:
            self.sent += egress
            self.received += not egress
        if denied or not self.denied:
            self.policies.update(policies)
        self.last_ns = max(self.last_ns, time_ns)

    @property
    def denied(self) -> int:
        """Attempts that failed."""
        return self.denied_out + self.denied_in

    @property
    def forwarded(self) -> int:
        """Connections that took place."""
        return self.received if self.received or self.denied_in else self.sent


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

    def count(
        self, place: Place, *, direction: net.Direction, denied: bool, time_ns: int, policies: tuple[str, ...]
    ) -> None:
        """Add one verdict."""
        found = self.lanes.get(place)
        if found is None:
            found = self.lanes[place] = Count()
        found.add(direction=direction, denied=denied, time_ns=time_ns, policies=policies)
        self.verdicts += 1
        self.first_ns = min(self.first_ns or time_ns, time_ns)
        self.last_ns = max(self.last_ns, time_ns)

    def saw(self, key: model.Key, kind: model.Kind, *, pod: str, address: str) -> None:
        """Remember who a node stood for."""
        self.kinds[key] = kind
        if pod:
            self.pods.setdefault(key, {})[pod] = None
            return
        addresses = self.addresses.setdefault(key, {})
        if len(addresses) < ADDRESSES_SHOWN:
            addresses[address] = None
