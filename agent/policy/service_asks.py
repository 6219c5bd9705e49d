"""Which names each egress policy set lets a pod ask a Service for (rule E17, A42).

The problem: a query to a Service is read before anybody has chosen a backend, and policies speak of backends. The rule:
what all backends that are allowed let a pod ask for, it may ask the Service for; where they differ, nothing, for
whichever is chosen might be the one that restricts more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from agent import desired
from agent.model import net
from agent.policy import classes
from agent.services import frontends


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asks:
    """What `desired.DesiredState.service_asks` says."""

    of: Mapping[tuple[int, int], int]
    nothing: dict[int, frozenset[int]]
    """ASKS_NOTHING and the classes that it admits, where it is used; else empty."""


def find(sets: Iterable[desired.PolicySet], services: Mapping[int, Sequence[frontends.Backend]]) -> Asks:
    """Find the filters of every Service for every egress set that has any."""
    of: dict[tuple[int, int], int] = {}
    for policy_set in sets:
        if policy_set.direction is net.Direction.EGRESS and any(row.asks for row in policy_set.rows.values()):
            reader = classes.Reader(policy_set)
            for service, backends in services.items():
                rows = [row for row in map(reader.row, backends) if row is not None]
                found = {row.asks for row in rows if row.action is desired.Action.ALLOW}
                if found - {desired.ASKS_ANYTHING}:
                    of[policy_set.id, service] = found.pop() if len(found) == 1 else desired.ASKS_NOTHING
    used = desired.ASKS_NOTHING in of.values()
    return Asks(of=of, nothing={desired.ASKS_NOTHING: frozenset()} if used else {})
