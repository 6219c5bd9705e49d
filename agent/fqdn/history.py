"""What each endpoint was told about names, so that a policy which comes later knows it, too.

The problem: the kernel stores an address only for names that some pattern matches when the answer comes. A policy added
a second later would hold back connections of an application that resolved in time and sees no reason to ask again. The
rule: every answer of every endpoint is remembered, with or without a pattern, until its TTL and grace are over, and
`replay` says what the kernel would have learned had the policy been there (requirement F26).

Bounds, each for one endpoint, so that none pushes out another's (requirement F21): NAMES_MAX names, and ADDRESSES_MAX
addresses over all its names, as many as the kernel keeps. There is no bound for one name: a name of a content network
may have a thousand addresses that are all still good, and a bound below the kernel's would forget what the kernel
knows. What was answered longest ago goes first, and is counted.

What has expired stays for EXPIRED_KEPT_NS, for a denial should say which name the address had (requirement F16). Times
are given, CLOCK_BOOTTIME in ns as the kernel's; this module must not read a clock.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping

from agent.fqdn import classes as classes_
from agent.fqdn import patterns
from agent.model import fqdn, net

NAMES_MAX = 512
ADDRESSES_MAX = 4096
"""Of one endpoint; an address that two names have counts twice."""
NAMES_TOLD = 16
"""Of one address, to whoever asks for its names."""
CLASSES_MAX = 4
"""Classes that the kernel keeps with one address of an endpoint; those that expire last."""
SECOND_NS = 1_000_000_000
EXPIRED_KEPT_NS = 600 * SECOND_NS
TTL_LIMIT = 1 << 31
"""A TTL from here on counts as 0 (RFC 2181 section 8)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long an answer is good for."""

    min_ttl_s: int = 0
    """No TTL counts as less."""
    grace_s: int = 60
    """Added to every TTL: applications hold on to addresses, Java for 30 seconds by default; makes TTL 0 usable."""

    def expires_ns(self, at_ns: int, ttl_s: int, alias_ttls_s: Iterable[int] = ()) -> int:
        """Return when an address expires: the least of its TTL and those of the aliases counts (requirement F19)."""
        least = min(_ttl(each) for each in (ttl_s, *alias_ttls_s))
        return at_ns + (max(least, self.min_ttl_s) + self.grace_s) * SECOND_NS


def _ttl(ttl_s: int) -> int:
    return ttl_s if ttl_s < TTL_LIMIT else 0


class History:
    """Remembers answers; for one thread, but for `names`."""

    def __init__(self, lifetimes: Lifetimes) -> None:
        """Begin with nothing."""
        self._lifetimes = lifetimes
        self._endpoints: defaultdict[int, _Endpoint] = defaultdict(_Endpoint)
        self.names_evicted = 0
        """Names forgotten before their time, for NAMES_MAX."""
        self.addresses_evicted = 0
        """Addresses forgotten before their time, for ADDRESSES_MAX or with their name."""

    def learn(self, answered: fqdn.Answered) -> None:
        """Remember an answer; one without addresses changes nothing (requirement F7), nor one for no host name."""
        name = patterns.canonical(answered.name)
        if not name:
            return
        for address, ttl_s in answered.addresses:
            expires_ns = self._lifetimes.expires_ns(answered.at_ns, ttl_s, answered.alias_ttls_s)
            self._put(answered.endpoint, name, address, _Times(answered.at_ns, answered.at_ns, expires_ns))

    def restore(self, remembered: Iterable[fqdn.Remembered]) -> None:
        """Take over what another history remembered, in its order."""
        for each in remembered:
            times = _Times(each.answered_ns, each.answered_ns, each.expires_ns)
            self._put(each.endpoint, each.name, each.address, times)

    def remembered(self) -> Iterator[fqdn.Remembered]:
        """Yield everything, expired or not; of each endpoint what was answered longest ago first."""
        for number, endpoint in self._endpoints.items():
            for (name, address), times in endpoint.times.items():
                yield fqdn.Remembered(
                    endpoint=number,
                    name=name,
                    address=address,
                    answered_ns=times.answered_ns,
                    expires_ns=times.expires_ns,
                )

    def names(self, endpoint: int, address: net.Address, *, until_ns: int | None = None) -> tuple[str, ...]:
        """Return the names by which an endpoint was told an address until then, expired or not; NAMES_TOLD at most.

        Those answered last come first. Any thread may ask: what another takes away meanwhile is left out.
        """
        known = self._endpoints.get(endpoint)
        if known is None:
            return ()
        at = net.normalize(address)
        names = reversed(list(known.names_of.get(at, ())))
        told = ((name, known.times.get((name, at))) for name in names)
        before = (name for name, times in told if times and (until_ns is None or times.first_ns <= until_ns))
        return tuple(itertools.islice(before, NAMES_TOLD))

    def has(self, endpoint: int) -> bool:
        """Tell whether an endpoint was told anything; any thread may ask."""
        return endpoint in self._endpoints

    def sweep(self, now_ns: int, used: Container[fqdn.Place] = frozenset()) -> None:
        """Forget what expired EXPIRED_KEPT_NS ago, but for addresses in use: connections may need the name (F17)."""
        for number, endpoint in self._endpoints.items():
            for name, address in [
                place for place, times in endpoint.times.items() if times.expires_ns + EXPIRED_KEPT_NS <= now_ns
            ]:
                if (number, address) not in used:
                    endpoint.remove(name, address)

    def size(self) -> tuple[int, int]:
        """Return how many names there are, and how many addresses, over all endpoints."""
        endpoints = self._endpoints.values()
        return sum(len(one.addresses_of) for one in endpoints), sum(len(one.times) for one in endpoints)

    def keep_only(self, endpoints: Iterable[int]) -> None:
        """Forget every endpoint that is not among `endpoints`."""
        for gone in set(self._endpoints).difference(endpoints):
            del self._endpoints[gone]

    def _put(self, number: int, name: str, address: net.Address, times: _Times) -> None:
        endpoint = self._endpoints[number]
        endpoint.put(name, net.normalize(address), times)
        while len(endpoint.addresses_of) > NAMES_MAX:
            self.names_evicted += 1
            oldest = next(iter(endpoint.addresses_of))
            for gone in list(endpoint.addresses_of[oldest]):
                self.addresses_evicted += 1
                endpoint.remove(oldest, gone)
        while len(endpoint.times) > ADDRESSES_MAX:
            self.addresses_evicted += 1
            endpoint.remove(*next(iter(endpoint.times)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Times:
    first_ns: int
    answered_ns: int
    expires_ns: int


class _Endpoint:
    """One endpoint's names and addresses; the dicts are in the order of the last answers, the oldest first."""

    __slots__ = ("addresses_of", "names_of", "times")

    def __init__(self) -> None:
        self.times: dict[tuple[str, net.Address], _Times] = {}
        self.addresses_of: dict[str, set[net.Address]] = {}
        self.names_of: dict[net.Address, dict[str, None]] = {}

    def put(self, name: str, address: net.Address, times: _Times) -> None:
        """Note an answer; what was known never expires sooner for it (requirement F19)."""
        known = self.times.pop((name, address), times)
        expires_ns = max(known.expires_ns, times.expires_ns)
        self.times[name, address] = _Times(known.first_ns, times.answered_ns, expires_ns)
        addresses = self.addresses_of[name] = self.addresses_of.pop(name, set())
        addresses.add(address)
        names = self.names_of.setdefault(address, {})
        names.pop(name, None)
        names[name] = None

    def remove(self, name: str, address: net.Address) -> None:
        """Forget one address of one name."""
        del self.times[name, address]
        self.addresses_of[name].discard(address)
        if not self.addresses_of[name]:
            del self.addresses_of[name]
        del self.names_of[address][name]
        if not self.names_of[address]:
            del self.names_of[address]


def replay(
    remembered: Iterable[fqdn.Remembered],
    classes: classes_.Classes,
    *,
    now_ns: int,
    new: Container[int] | None = None,
    used: Container[fqdn.Place] = frozenset(),
) -> fqdn.LearnedAddresses:
    """Return what the kernel would have learned by `classes`, by endpoint and address, what lasts longest first.

    `new` are the classes that it has not learned for yet; None: all of them. Of addresses that are `used` also what has
    expired: it opens nothing, but a connection goes on only as long as the address has a class that the policy allows
    (requirement F17). Whoever writes it must keep a later expiry the kernel already has (requirement F19).
    """
    of_name: dict[str, tuple[int, ...]] = {}
    found: defaultdict[fqdn.Place, dict[int, int]] = defaultdict(dict)
    for each in remembered:
        if each.expires_ns <= now_ns and (each.endpoint, each.address) not in used:
            continue
        if each.name not in of_name:
            of_name[each.name] = tuple(one for one in classes.of(each.name) if new is None or one in new)
        for number in of_name[each.name]:
            expiries = found[each.endpoint, each.address]
            expiries[number] = max(expiries.get(number, 0), each.expires_ns)
    return {place: _lasting(expiries) for place, expiries in found.items()}


def _lasting(expiries: Mapping[int, int]) -> tuple[fqdn.Learned, ...]:
    ordered = sorted(expiries.items(), key=lambda each: (-each[1], each[0]))
    return tuple(fqdn.Learned(number, expires_ns) for number, expires_ns in ordered[:CLASSES_MAX])
