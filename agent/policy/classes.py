"""What each egress policy set allows of each Service's backends, so that connect() to a Service can fail at once.

The rule: a row only where every backend fares alike; where they differ the packet layer judges the one that
is chosen. Sets and Services multiply, so backends are only looked at one by one where their identities have
rows of their own in the set; else the rows of ANY decide by port alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, KeysView, Mapping, Sequence
from typing import TypeAlias

from agent import desired
from agent.model import identity, net
from agent.services import frontends

Class: TypeAlias = tuple[desired.ServiceClass, int]
_PortRows: TypeAlias = dict[tuple[int, int, int], desired.Row]
_PORT_BITS = 16


def classify(
    sets: Iterable[desired.PolicySet],
    services: Mapping[int, Sequence[frontends.Backend]],
    name_classes: Collection[int] = (),
) -> dict[tuple[int, int], Class]:
    """Class every service for every egress set; mixed ones are left out.

    A set with rows of `name_classes` may allow a backend by its name, which only the packet layer knows: no class
    says there that none is allowed.
    """
    by_identity: defaultdict[int, set[int]] = defaultdict(set)
    for service, backends in services.items():
        for backend in backends:
            by_identity[backend.identity].add(service)
    # in the order of the backends, for the rule named is the first one's
    targets = {
        service: tuple(dict.fromkeys((backend.protocol, backend.port) for backend in backends))
        for service, backends in services.items()
    }
    classes: dict[tuple[int, int], Class] = {}
    for policy_set in sets:
        if policy_set.direction is net.Direction.EGRESS:
            reader = _Reader(policy_set)
            by_name = not reader.singled_out.isdisjoint(name_classes)
            singled = set().union(*(by_identity.get(number, ()) for number in reader.singled_out))
            alike: dict[tuple[tuple[int, int], ...], Class | None] = {}
            for service, backends in services.items():
                if service in singled:
                    found = frontends.classify(backends, reader.row)
                else:
                    ports = targets[service]
                    if ports not in alike:
                        alike[ports] = frontends.classify(backends, reader.row)
                    found = alike[ports]
                if found is not None and not (by_name and found[0] is desired.ServiceClass.NONE):
                    classes[policy_set.id, service] = found
    return classes


class _Reader:
    """Looks rows of one set up as the datapath does."""

    def __init__(self, policy_set: desired.PolicySet) -> None:
        rows: defaultdict[int, _PortRows] = defaultdict(dict)
        for key, row in policy_set.rows.items():
            rows[key.identity][key.protocol, key.port, key.port_bits] = row
        self._any = rows.pop(identity.ANY, {})
        self._rows = rows

    @property
    def singled_out(self) -> KeysView[int]:
        """The identities with rows of their own."""
        return self._rows.keys()

    def row(self, backend: frontends.Backend) -> desired.Row | None:
        """Return the row that decides; None: the default deny."""
        own = self._rows.get(backend.identity)
        return (_longest(own, backend) if own else None) or _longest(self._any, backend)


def _longest(rows: _PortRows, backend: frontends.Backend) -> desired.Row | None:
    for bits in range(_PORT_BITS, -1, -1):
        upper = backend.port >> (_PORT_BITS - bits) << (_PORT_BITS - bits)
        row = rows.get((backend.protocol, upper, bits))
        if row is not None:
            return row
    return rows.get((desired.ANY_PROTOCOL, 0, 0))
