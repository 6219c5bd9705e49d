"""What names allow that rows of addresses deny, as stretches of ports.

The problem: a name counts only where its rule is asked before the one that denies (`desired.Row`), and which one denies
depends on the address; rules can be told apart by address and by port, but have no ranks. The rule: for each kind of
address (those whose rows are alike) and each class the stretches where the class decides are worked out here. Most
addresses have rows that differ in nothing that names could see; only the others become sets of their own.

Where a row of the address allows anyway, it does not matter what a name says: addresses that differ there alone are
alike. Pure numbers; this module must not know families, sets or words.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from agent import desired
from agent.datapath.iptables import members, regions
from agent.model import identity, net

Rows: TypeAlias = Mapping[tuple[int, int, int], desired.Row]
"""(Protocol, port, port bits) -> row."""
ByClass: TypeAlias = Mapping[int, regions.Region]
"""Class -> where it allows; classes that allow nothing are left out."""

PORT_BITS = net.PORT_MAX.bit_length()
OTHER_PROTOCOL = -1
"""Stands for every protocol that no row names."""
_DEFAULT = desired.Row(desired.Action.DENY, 0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NameRegions:
    """What the names of one egress set allow."""

    default: ByClass
    """Of every address that is not among the peers of `others`."""
    others: tuple[tuple[members.Peers, ByClass], ...]


def of_set(policy_set: desired.PolicySet, default_identity: int) -> NameRegions:
    """Work it out; `default_identity` is what an address has that nothing is known of."""
    rows: defaultdict[int, dict[tuple[int, int, int], desired.Row]] = defaultdict(dict)
    for key, row in policy_set.rows.items():
        rows[key.identity][key.protocol, key.port, key.port_bits] = row
    classes = {number: rows.pop(number) for number in sorted(rows) if number >= identity.FIRST_NAME_CLASS}
    every = rows.pop(identity.ANY, {})
    found = _Finder(classes, every)
    default = rows.get(default_identity, {})
    others: defaultdict[tuple[tuple[int, regions.Region], ...], set[int]] = defaultdict(set)
    named = frozenset(rows) | {default_identity}
    for number, own in (*rows.items(), (identity.ANY, {})):
        if number != default_identity and not found.alike(own, default):
            others[tuple(sorted(found.by_class(own).items()))].add(number)
    return NameRegions(
        default=found.by_class(default),
        others=tuple((_peers(numbers, named), dict(content)) for content, numbers in sorted(others.items(), key=repr)),
    )


def _peers(numbers: set[int], named: frozenset[int]) -> members.Peers:
    """Name identities; ANY among them stands for those without rows."""
    if identity.ANY in numbers:
        return members.Peers(named - numbers, rest=True)
    return members.Peers(frozenset(numbers))


class _Finder:
    """Works out regions, of equal rows once."""

    def __init__(self, classes: Mapping[int, Rows], every: Rows) -> None:
        self._classes = classes
        self._every = every
        self._known: dict[tuple[tuple[tuple[int, int, int], desired.Row], ...], ByClass] = {}

    def by_class(self, own: Rows) -> ByClass:
        key = tuple(sorted(own.items(), key=lambda each: each[0]))
        if key not in self._known:
            found = {number: self._region(rows, own) for number, rows in self._classes.items()}
            self._known[key] = {number: region for number, region in found.items() if region != regions.NOTHING}
        return self._known[key]

    def alike(self, own: Rows, default: Rows) -> bool:
        """Tell whether names allow the same of both, as far as the first's own rows leave it to them."""
        if own == default:
            return True
        mine, theirs = self.by_class(own), self.by_class(default)
        for number in mine.keys() | theirs.keys():
            one, other = mine.get(number, regions.NOTHING), theirs.get(number, regions.NOTHING)
            if one != other and any(
                _has(one, protocol, port) is not _has(other, protocol, port)
                and self._static(own, protocol, port).action is not desired.Action.ALLOW
                for protocol, port in _places((own, default, self._every, self._classes[number]))
            ):
                return False
        return True

    def _region(self, rows: Rows, own: Rows) -> regions.Region:
        """Lay out where the rows of a class decide over those of an address."""
        spans: defaultdict[int, list[regions.Span]] = defaultdict(list)
        places = list(_places((rows, own, self._every)))
        for place, (protocol, port) in enumerate(places):
            if self._decides(rows, own, protocol, port):
                following = places[place + 1] if place + 1 < len(places) else (protocol + 1, 0)
                last = following[1] - 1 if following[0] == protocol else net.PORT_MAX
                joined = spans[protocol]
                touches = bool(joined) and joined[-1][1] + 1 == port
                joined.append((joined.pop()[0] if touches else port, last))
        base = bool(spans.pop(OTHER_PROTOCOL, ()))
        plain = regions.EVERY_PORT if base else regions.NO_PORT
        protocols = {protocol: tuple(spans.get(protocol, ())) for protocol, _ in places if protocol != OTHER_PROTOCOL}
        return regions.Region(
            base=base, protocols=tuple(sorted((key, found) for key, found in protocols.items() if found != plain))
        )

    def _decides(self, rows: Rows, own: Rows, protocol: int, port: int) -> bool:
        """Tell whether a class allows what the rows of an address deny (`datapath.judge`)."""
        denying, row = self._static(own, protocol, port), _find(rows, protocol, port)
        return (
            denying.action is not desired.Action.ALLOW
            and row is not None
            and (row.rank < min(denying.rank, denying.passed) or row.passed < denying.rank)
        )

    def _static(self, own: Rows, protocol: int, port: int) -> desired.Row:
        return _find(own, protocol, port) or _find(self._every, protocol, port) or _DEFAULT


def _find(rows: Rows, protocol: int, port: int) -> desired.Row | None:
    """Return the longest match: the protocol first, then the port's upper bits."""
    for bits in range(PORT_BITS, -1, -1):
        row = rows.get((protocol, port >> (PORT_BITS - bits) << (PORT_BITS - bits), bits))
        if row is not None:
            return row
    return rows.get((desired.ANY_PROTOCOL, 0, 0))


def _places(several: Sequence[Rows]) -> Iterator[tuple[int, int]]:
    """Yield where anything may change, in order: a protocol, and the first port of each stretch of it."""
    begins: defaultdict[int, set[int]] = defaultdict(set)
    begins[OTHER_PROTOCOL].add(0)
    for rows in several:
        for protocol, port, bits in rows:
            if protocol == desired.ANY_PROTOCOL:
                continue
            begins[protocol].add(0)
            if protocol in regions.PORTED:
                begins[protocol] |= {port, port + (1 << (PORT_BITS - bits))}
    for protocol in sorted(begins):
        for port in sorted(begins[protocol]):
            if port <= net.PORT_MAX:
                yield protocol, port


def _has(region: regions.Region, protocol: int, port: int) -> bool:
    return region.base if protocol == OTHER_PROTOCOL else region.allows(protocol, port)
