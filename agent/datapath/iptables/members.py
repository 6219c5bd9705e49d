"""Which addresses an identity has, as elements of sets that answer as the ipcache does.

The ipcache looks for the address itself, then for the longest prefix around it. ipset goes from the longest prefix a
set holds to the shortest and lets the first one found decide, a `nomatch` included. So a set of identities needs one
element wherever an address or prefix is in and what surrounds it is not, and a hole where it is the other way round;
nothing else changes any answer. Addresses are gathered once by (identity, identity around it), so that a set costs
its elements only.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from agent import desired
from agent.datapath.iptables import ruleset
from agent.model import identity, net

_MASK4, _MASK6 = ipaddress.IPv4Network("0.0.0.0/32").netmask, ipaddress.IPv6Network("::/128").netmask
_Pair: TypeAlias = tuple[int, int]
"""An identity, and the one around it."""
_Bucket: TypeAlias = dict[ruleset.Member, bool]
Place: TypeAlias = tuple[int, int]
"""Protocol and port of an element."""
_Made: TypeAlias = tuple[_Pair, Place, bool]
NOWHERE: Place = (0, 0)
"""Of elements that are addresses only."""


class _Spot(NamedTuple):
    """What lies in one identity and next in another: addresses, and shorter prefixes."""

    values: list[int]
    nets: list[net.Network]


class Peers(NamedTuple):
    """A set of identities: those listed, or all but those listed."""

    identities: frozenset[int]
    rest: bool = False

    def has(self, number: int) -> bool:
        """Tell whether `number` is one of them."""
        return (number in self.identities) is not self.rest


class Book:
    """All addresses and prefixes of one family, by identity."""

    def __init__(self, state: desired.DesiredState, family: net.Family, before: Book | None = None) -> None:
        """Gather them; what is as in `before` is taken from there, until `finish`."""
        self._family = family
        self._hosts, self._cidrs = state.hosts, state.cidrs
        prefixes = _Prefixes(state, family)
        self.default = prefixes.default
        """The identity of an address nothing is known of, /0 being what is known of every address."""
        self._before = before
        self._spots: dict[_Pair, _Spot] = {}
        values, nets = prefixes.hosts_by_pair(state.hosts), prefixes.by_pair()
        for pair in values.keys() | nets.keys():
            spot = _Spot(values.get(pair, []), nets.get(pair, []))
            old = before._spots.get(pair) if before else None  # noqa: SLF001 - of its own kind
            self._spots[pair] = old if old is not None and old == spot else spot
        self._made: dict[_Made, _Bucket] = {}
        self._around: defaultdict[int, list[int]] = defaultdict(list)
        self._inside: defaultdict[int, list[int]] = defaultdict(list)
        for own, around in self._spots:
            if own != around:
                self._around[own].append(around)
                self._inside[around].append(own)

    def is_of(self, state: desired.DesiredState) -> bool:
        """Tell whether a book made of `state` would be just this one."""
        return self._hosts == state.hosts and self._cidrs == state.cidrs

    def members(self, peers: Peers, at: Place = NOWHERE) -> ruleset.Members:
        """Return the elements for the addresses of `peers`, which must not hold the default identity.

        `at` makes them elements of one protocol and port.
        """
        found: _Bucket = {}
        for pair, matches in self._needed(peers):
            found.update(self._bucket(pair, at, matches=matches))
        return found

    @functools.cached_property
    def hosts(self) -> frozenset[int]:
        """Every single address that is known: the pods of the cluster."""
        return frozenset(itertools.chain.from_iterable(spot.values for spot in self._spots.values()))

    def of_hosts(self) -> ruleset.Members:
        """Return an element for each of `hosts`."""
        found: _Bucket = {}
        for pair, spot in self._spots.items():
            if spot.values:
                found.update(self._bucket(pair, NOWHERE, matches=True))
                for network in spot.nets:
                    del found[ruleset.Member(network)]
        return found

    def keep(self, peers: Peers, at: Place = NOWHERE) -> None:
        """Take from before what `members` would; for who has the result already, and will ask when it has changed."""
        for pair, matches in self._needed(peers):
            self._bucket(pair, at, matches=matches)

    def same_members(self, peers: Peers, before: Book) -> bool:
        """Tell without gathering them whether `before` has the very same elements for `peers`."""
        return self._touched(peers) == before._touched(peers)

    def finish(self) -> None:
        """Let go of what came before."""
        self._before = None

    def _needed(self, peers: Peers) -> Iterator[tuple[_Pair, bool]]:
        """Find what is in and lies in what is not, and what is not and lies in what is."""
        for number in peers.identities:
            for around in self._around.get(number, ()):
                if around not in peers.identities:
                    yield (number, around), not peers.rest
            for own in self._inside.get(number, ()):
                if own not in peers.identities:
                    yield (own, number), peers.rest

    def _touched(self, peers: Peers) -> dict[_Pair, int]:
        """Identify the spots that `peers` touch; the same number, the same spot while both books live."""
        pairs = [(number, around) for number in peers.identities for around in self._around.get(number, ())]
        pairs += [(own, number) for number in peers.identities for own in self._inside.get(number, ())]
        return {pair: id(self._spots[pair]) for pair in pairs}

    def _bucket(self, pair: _Pair, at: Place, *, matches: bool) -> _Bucket:
        """Return the elements of a pair as a set needs them; they are dear, so none is made unasked or twice."""
        key = (pair, at, matches)
        if key not in self._made:
            before, spot = self._before, self._spots[pair]
            if before and key in before._made and before._spots[pair] is spot:  # noqa: SLF001 - of its own kind
                self._made[key] = before._made[key]  # noqa: SLF001 - of its own kind
            else:
                self._made[key] = dict.fromkeys(self._elements(pair, at), matches)
        return self._made[key]

    def _elements(self, pair: _Pair, at: Place) -> Iterator[ruleset.Member]:
        if at != NOWHERE:
            return (ruleset.Member(member.network, *at) for member in self._bucket(pair, NOWHERE, matches=True))
        host: Callable[[int], net.Network] = _host4 if self._family is net.Family.IPV4 else _host6
        spot = self._spots[pair]
        networks: list[net.Network] = [*map(host, spot.values), *spot.nets]
        return map(ruleset.Member, networks)


class _Prefixes:
    """The ipcache's prefixes of one family, those left out that an address of the same length hides."""

    def __init__(self, state: desired.DesiredState, family: net.Family) -> None:
        self.width = ipaddress.IPV4LENGTH if family is net.Family.IPV4 else ipaddress.IPV6LENGTH
        self.default: int = identity.WORLD
        self._numbers: dict[tuple[int, int], int] = {}
        self._networks: list[tuple[net.Network, int]] = []
        for network, number in state.cidrs.items():
            if network.version != family.value:
                continue
            if not network.prefixlen:
                self.default = number
            elif network.prefixlen < self.width or network.network_address not in state.hosts:
                self._numbers[network.prefixlen, int(network.network_address) >> (self.width - network.prefixlen)] = (
                    number
                )
                self._networks.append((network, number))
        self._lengths = sorted({length for length, _ in self._numbers}, reverse=True)

    def around(self, value: int, below: int) -> int:
        """Return the identity of the longest prefix shorter than `below` that contains the address `value`."""
        for length in self._lengths:
            if length < below:
                found = self._numbers.get((length, value >> (self.width - length)))
                if found is not None:
                    return found
        return self.default

    def hosts_by_pair(self, hosts: Mapping[net.Address, identity.NumericIdentity]) -> dict[_Pair, list[int]]:
        """Gather addresses; those that share the bits of the longest prefix lie in the same one."""
        kind = ipaddress.IPv4Address if self.width == ipaddress.IPV4LENGTH else ipaddress.IPv6Address
        shift = self.width - max((length for length in self._lengths if length < self.width), default=0)
        known: dict[int, int] = {}
        found: defaultdict[_Pair, list[int]] = defaultdict(list)
        for address, number in hosts.items():
            if isinstance(address, kind):
                value = int(address)
                around = known.get(value >> shift)
                if around is None:
                    around = known[value >> shift] = self.around(value, self.width)
                found[number, around].append(value)
        return dict(found)

    def by_pair(self) -> dict[_Pair, list[net.Network]]:
        found: defaultdict[_Pair, list[net.Network]] = defaultdict(list)
        for network, number in self._networks:
            found[number, self.around(int(network.network_address), network.prefixlen)].append(network)
        return dict(found)


def _host4(value: int) -> ipaddress.IPv4Network:
    """Return the network of one address, in a fifth of the time that the constructor takes to see what it is given."""
    made = ipaddress.IPv4Network.__new__(ipaddress.IPv4Network)
    made.network_address, made.netmask = ipaddress.IPv4Address(value), _MASK4
    made._prefixlen = ipaddress.IPV4LENGTH  # type: ignore[attr-defined]  # noqa: SLF001 - what `prefixlen` returns
    return made


def _host6(value: int) -> ipaddress.IPv6Network:
    """Return the same of IPv6."""
    made = ipaddress.IPv6Network.__new__(ipaddress.IPv6Network)
    made.network_address, made.netmask = ipaddress.IPv6Address(value), _MASK6
    made._prefixlen = ipaddress.IPV6LENGTH  # type: ignore[attr-defined]  # noqa: SLF001 - likewise
    return made


def of_networks(networks: Iterable[net.Network], holes: Iterable[net.Network] = ()) -> ruleset.Members:
    """Return elements for `networks` less `holes`; /0 becomes its two halves, for ipset has no such prefix."""
    found: dict[ruleset.Member, bool] = {}
    for network in networks:
        parts: Iterable[net.Network] = (network,) if network.prefixlen else network.subnets()
        found.update((ruleset.Member(part), True) for part in parts)
    found.update((ruleset.Member(hole), False) for hole in holes)
    return found
