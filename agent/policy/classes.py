"""What each egress policy set allows of each Service's backends, so that connect() to a Service can fail at once.

The rule: a row only where every backend fares alike; where they differ the packet layer judges the one that
is chosen. Sets and Services multiply, so backends are only looked at one by one where their identities have
rows of their own in the set; else the rows of ANY decide by port alone.

Which names a backend's address has is known at the packet alone. So nobody is denied where a name could open a backend,
had the pod learned its address: where the row of some class of names would come before the one that denies. It never
does where that denies before all rules of the dialect are asked, as it does for pods and nodes in Cilium's (rule E15).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, KeysView, Mapping, Sequence
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
    """Class every service for every egress set; mixed ones, and those that `name_classes` might open, are left out."""
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
            reader = Reader(policy_set)
            names = _Names(policy_set, name_classes)
            singled = set().union(*(by_identity.get(number, ()) for number in reader.singled_out))
            alike: dict[tuple[tuple[int, int], ...], Class | None] = {}
            for service, backends in services.items():
                if service in singled:
                    found = _classify(backends, reader, names)
                else:
                    ports = targets[service]
                    if ports not in alike:
                        alike[ports] = _classify(backends, reader, names)
                    found = alike[ports]
                if found is not None:
                    classes[policy_set.id, service] = found
    return classes


def _classify(backends: Sequence[frontends.Backend], reader: Reader, names: _Names) -> Class | None:
    found = frontends.classify(backends, reader.row)
    if found is None or found[0] is desired.ServiceClass.ALL:
        return found
    return None if any(names.may_open(backend, reader.row(backend)) for backend in backends) else found


class _Names:
    """What the names in a set might open. A class's own longest row is not looked for: any that covers the port may."""

    def __init__(self, policy_set: desired.PolicySet, name_classes: Collection[int]) -> None:
        self._first: dict[tuple[int, int, int], tuple[int, int]] = {}
        """By protocol, port and bits: the first place in the Admin tier, and after it, of any class (`desired.Row`)."""
        for key, row in policy_set.rows.items():
            if key.identity in name_classes and row.action is desired.Action.ALLOW:
                place = key.protocol, key.port, key.port_bits
                rank, passed = self._first.get(place, (desired.NO_RANK, desired.NO_RANK))
                self._first[place] = min(rank, row.rank), min(passed, row.passed)

    def may_open(self, backend: frontends.Backend, denying: desired.Row | None) -> bool:
        """Tell whether a name's row would come before the row that denies a backend; None: the default deny."""
        rank, passed = (denying.rank, denying.passed) if denying is not None else (desired.NO_RANK, desired.NO_RANK)
        covering = (self._first.get(place) for place in _places(backend)) if self._first else ()
        return any(found is not None and (found[0] < min(rank, passed) or found[1] < rank) for found in covering)


class Reader:
    """Looks rows of one set up as the datapath does."""

    def __init__(self, policy_set: desired.PolicySet) -> None:
        """Index the rows of `policy_set`."""
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
    return next((row for row in map(rows.get, _places(backend)) if row is not None), None)


def _places(backend: frontends.Backend) -> Iterator[tuple[int, int, int]]:
    """Yield protocol, port and bits of every row that covers a backend's port, the longest first."""
    for bits in range(_PORT_BITS, -1, -1):
        yield backend.protocol, backend.port >> (_PORT_BITS - bits) << (_PORT_BITS - bits), bits
    yield desired.ANY_PROTOCOL, 0, 0
