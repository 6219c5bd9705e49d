"""What DNS told this node's pods, and what policies by name make of it, for people.

The problem: whether a name opens an address depends on what was asked, of whom, when, and by which policies; each is
kept somewhere else. The rule: history (what the pod was told), the kernel (what it learned of it) and the compiled
state (which names are meant, and what they open) are read at one moment and joined here; nothing is worked out anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from agent import desired, errors, reconciler
from agent.fqdn import patterns
from agent.model import fqdn, net, resources
from agent.rpc import details, naming, policy_detail

SECOND_NS = 1_000_000_000
NOT_LEARNED = "this engine learns no names: what is allowed by name is denied"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NameTold:
    """A name by which a pod was told an address."""

    name: str
    expires_s: float = 0.0
    """From now; below 0: since then."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassLearned:
    """A class of names for which an address was learned in the kernel."""

    number: int
    patterns: tuple[str, ...] = ()
    """None: of policies that are gone."""
    expires_s: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LearnedAddress:
    """An address that DNS gave a pod."""

    namespace: str
    pod: str
    address: net.Address
    names: tuple[NameTold, ...] = ()
    """The last first."""
    classes: tuple[ClassLearned, ...] = ()
    """None: no policy of this node has any of these names."""
    used: bool = False
    """Whether a connection has needed it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownPattern:
    """A pattern of this node's policies."""

    pattern: str
    dialect: str
    """The API kind."""
    policies: tuple[resources.ObjectRef, ...] = ()
    addresses: int = 0
    """That count for it now, over all pods."""
    refused: str = ""
    """Why it matches nothing; "" where it does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KnownNames:
    """What is learned for, and from whom."""

    learns: bool = False
    patterns: tuple[KnownPattern, ...] = ()
    resolvers: tuple[net.Address, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a name or an address means for a pod."""

    namespace: str
    pod: str
    asked: str
    patterns: tuple[str, ...] = ()
    policies: tuple[resources.ObjectRef, ...] = ()
    """That have one of these patterns."""
    addresses: tuple[LearnedAddress, ...] = ()
    rows: tuple[details.PolicyRow, ...] = ()
    """Of the pod's egress policy set: what these names open."""
    because: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """History and kernel at one moment."""

    remembered: tuple[fqdn.Remembered, ...] = ()
    known: fqdn.Known = dataclasses.field(default_factory=fqdn.Known)
    now_ns: int = 0
    learns: bool = False


async def _at_once() -> None:
    """Wait for nothing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Where that is read."""

    remembered: Callable[[], tuple[fqdn.Remembered, ...]]
    """On the event loop."""
    known: Callable[[], fqdn.Known]
    """In any thread."""
    boot_ns: Callable[[], int]
    caught_up: Callable[[], Awaitable[object]] = _at_once
    """Returns when what was answered until now is remembered."""
    learns: bool = True

    async def told(self) -> Told:
        """Read both. Raises DatapathError."""
        await self.caught_up()
        remembered = self.remembered()
        known = await asyncio.to_thread(self.known)
        return Told(remembered=remembered, known=known, now_ns=self.boot_ns(), learns=self.learns)


NO_NAMES = Names(remembered=tuple, known=fqdn.Known, boot_ns=int, learns=False)


def addresses(now: reconciler.Enforcement, told: Told, pod: str = "") -> list[LearnedAddress]:
    """Return what this node's pods, or one, were told, pod by pod. Raises InvalidInput, NotFound."""
    known = now.state.endpoints
    wanted = [naming.endpoint(now, pod)] if pod else sorted(known.values(), key=lambda one: (one.namespace, one.pod))
    by_place = _names_of(told)
    places: defaultdict[int, set[net.Address]] = defaultdict(set)
    for endpoint, address in (*by_place, *told.known.addresses):
        places[endpoint].add(address)
    return [
        _address(now, told, endpoint, address, by_place.get((endpoint.id, address), ()))
        for endpoint in wanted
        for address in sorted(places[endpoint.id], key=lambda one: (one.version, int(one)))
    ]


def known_names(now: reconciler.Enforcement, told: Told) -> KnownNames:
    """Return the patterns of this node's policies."""
    names = now.state.names
    counting: defaultdict[fqdn.NamePattern, set[fqdn.Place]] = defaultdict(set)
    for place, several in told.known.addresses.items():
        for one in several:
            if one.expires_ns > told.now_ns:
                for pattern in names.contents.get(one.class_number, ()):
                    counting[pattern].add(place)
    policies = _policies(now)
    every = {pattern for content in names.contents.values() for pattern in content} | names.refused.keys()
    return KnownNames(
        learns=told.learns,
        patterns=tuple(
            KnownPattern(
                pattern=pattern.text,
                dialect=pattern.dialect.value,
                policies=tuple(sorted(policies.get(pattern, ()))),
                addresses=len(counting[pattern]),
                refused=names.refused.get(pattern, ""),
            )
            for pattern in sorted(every)
        ),
        resolvers=tuple(sorted(now.state.resolvers, key=lambda one: (one.version, int(one)))),
    )


def explain(now: reconciler.Enforcement, told: Told, pod: str, asked: str) -> Explained:
    """Say what a name or an address means for a pod. Raises InvalidInput, NotFound."""
    endpoint = naming.endpoint(now, pod)
    all_of_it = addresses(now, told, pod)
    try:
        address: net.Address | None = naming.address(asked)
    except errors.InvalidInput:
        address = None
    name = patterns.canonical(asked) if address is None else ""
    if name is None or (not name and address is None):
        remedy = "write an address, or a host name as it is in DNS: letters, digits, - and _, labels as xn--..."
        raise errors.InvalidInput(field="name", value=asked, remedy=remedy)
    if address is not None:
        found = [one for one in all_of_it if one.address == address]
    else:
        found = [one for one in all_of_it if any(told_of.name == name for told_of in one.names)]
    numbers = {one.number for each in found for one in each.classes} if address is not None else set()
    numbers |= set(now.state.names.of(name)) if name else set()
    meant = sorted({pattern for number in numbers for pattern in now.state.names.contents.get(number, ())})
    rows = tuple(_rows(now, endpoint, numbers))
    policies = _policies(now)
    return Explained(
        namespace=endpoint.namespace,
        pod=endpoint.pod,
        asked=str(address or name),
        patterns=tuple(pattern.text for pattern in meant),
        policies=tuple(sorted({ref for pattern in meant for ref in policies.get(pattern, ())})),
        addresses=tuple(found),
        rows=rows,
        because=(
            *_because(told, found, patterns_=bool(meant), rows=bool(rows)),
            *(_asking(now, endpoint, name) if name else ()),
        ),
    )


def _because(told: Told, found: Iterable[LearnedAddress], *, patterns_: bool, rows: bool) -> Iterator[str]:
    """Yield what is in the way, or that nothing is."""
    found = list(found)
    counting = [one for one in found if any(each.expires_s > 0 for each in one.classes)]
    if not told.learns:
        yield NOT_LEARNED
    elif not found:
        yield "no resolver that is believed told the pod of it, or not lately; it has to resolve it first"
        if not patterns_:
            yield "no policy by name means it"
    elif not patterns_:
        yield "no policy by name means it; what the pod was told of it opens nothing"
    elif not rows:
        yield "no policy by name that selects the pod means it"
    elif not counting:
        yield "what the pod was told has expired; a new connection has to resolve it again, one that is open goes on"
    else:
        yield f"{len(counting)} of {len(found)} addresses are open as the rows say, until they expire"


def _asking(now: reconciler.Enforcement, endpoint: desired.Endpoint, name: str) -> Iterator[str]:
    """Yield whether each rule that restricts the names a pod may ask for lets it ask for this one (rule E17)."""
    policy_set = now.state.sets.get(endpoint.egress_set)
    rows = policy_set.rows.values() if policy_set is not None else ()
    classes = now.state.names.of(name)
    for rule, asks in sorted({(str(now.state.rules.get(row.rule)), row.asks) for row in rows if row.asks}):
        admitted = not now.state.filters[asks].isdisjoint(classes)
        names = " or ".join(sorted(map(str, now.state.filter_patterns[asks])))
        yield f"where {rule} has it ask for {names} alone, it may {'' if admitted else 'not '}ask for this"


def _address(
    now: reconciler.Enforcement,
    told: Told,
    endpoint: desired.Endpoint,
    address: net.Address,
    names: Iterable[fqdn.Remembered],
) -> LearnedAddress:
    place, contents = (endpoint.id, address), now.state.names.contents
    latest = sorted(names, key=lambda one: (-one.answered_ns, one.name))
    return LearnedAddress(
        namespace=endpoint.namespace,
        pod=endpoint.pod,
        address=address,
        names=tuple(NameTold(name=one.name, expires_s=_seconds(one.expires_ns, told)) for one in latest),
        classes=tuple(
            ClassLearned(
                number=one.class_number,
                patterns=tuple(pattern.text for pattern in sorted(contents.get(one.class_number, ()))),
                expires_s=_seconds(one.expires_ns, told),
            )
            for one in sorted(told.known.addresses.get(place, ()))
        ),
        used=place in told.known.used,
    )


def _seconds(expires_ns: int, told: Told) -> float:
    return round((expires_ns - told.now_ns) / SECOND_NS, 3)


def _names_of(told: Told) -> Mapping[fqdn.Place, list[fqdn.Remembered]]:
    found: defaultdict[fqdn.Place, list[fqdn.Remembered]] = defaultdict(list)
    for one in told.remembered:
        found[one.endpoint, one.address].append(one)
    return found


def _policies(now: reconciler.Enforcement) -> Mapping[fqdn.NamePattern, set[resources.ObjectRef]]:
    """Return the policies of the cluster by the patterns they have, of names they allow or let pods ask for."""
    found: defaultdict[fqdn.NamePattern, set[resources.ObjectRef]] = defaultdict(set)
    for policy in now.snapshot.policies.values():
        for rule in policy.egress:
            for peer in rule.peers or ():
                if isinstance(peer, resources.NamesPeer):
                    for pattern in peer.patterns:
                        found[pattern].add(policy.ref)
            for match in rule.ports or ():
                for pattern in match.asks or ():
                    found[pattern].add(policy.ref)
    return found


def _rows(
    now: reconciler.Enforcement, endpoint: desired.Endpoint, numbers: Iterable[int]
) -> Iterator[details.PolicyRow]:
    policy_set = now.state.sets.get(endpoint.egress_set)
    if policy_set is None:
        return
    wanted = frozenset(numbers)
    for key, row in sorted(policy_set.rows.items()):
        rule = now.state.rules.get(row.rule)
        if key.identity in wanted and rule is not None:
            meant = sorted(now.state.names.contents.get(key.identity, ()))
            yield details.PolicyRow(
                policy_set=policy_set.id,
                direction=policy_set.direction.name.lower(),
                identity=key.identity,
                peer=", ".join(pattern.text for pattern in meant),
                protocol=policy_detail.PROTOCOLS.get(key.protocol, str(key.protocol)),
                ports=policy_detail.ports(key),
                action=row.action.name.lower(),
                rule_index=rule.index,
            )
