"""Policy sets: the rows of one direction for every endpoint with the same policies.

The rule: a set is named by what its policies say, never by its rows, so that replicas share it and an
identity that comes or goes changes rows in place (`desired.PolicySet`). Within a set, identities that the
same clauses match have the same rows; these are worked out once for each such group, and only where they
differ from the rows of ANY. This module must not look at pods: subjects arrive as policies and named ports.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from agent import desired
from agent.model import fqdn, identity, labels, net, numbers, resources, verdict
from agent.policy import filters, rows, selectors, spelling, tiers

NamedPorts: TypeAlias = Mapping[tuple[str, net.Protocol], tuple[int, ...]]
"""What the names of container ports mean on one pod (rules A31 to A33)."""
_NO_PORTS: NamedPorts = {}
"""Names of ports mean nothing at what is no pod (rule A32)."""
NameClasses: TypeAlias = Mapping[int, frozenset[fqdn.NamePattern]]
"""Number of a class of names -> the patterns that its names match."""
_NO_CLASSES: NameClasses = MappingProxyType({})
RULES_MAX = desired.NO_RANK
"""Of a set that allows by name: each rule has a rank, and those end below NO_RANK."""
_ORDER = (tiers.Action.DENY, tiers.Action.ALLOW, tiers.Action.PASS, tiers.Action.LOG)
"""Who is asked first in a tier that is not ordered."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The policies that select a subject in one direction, tier by tier, and the meaning of their port names."""

    direction: net.Direction
    stack: tuple[tiers.Tier, ...] = dataclasses.field(compare=False)
    """Each tier that selects, reduced to its selecting policies."""
    refs: tuple[tuple[str, resources.ObjectRef], ...]
    """Names the policies of `stack`, tier by tier: enough to compare within one snapshot, and much cheaper."""
    names: tuple[tuple[str, net.Protocol, tuple[int, ...]], ...] = ()

    @property
    def policies(self) -> tuple[tiers.Policy, ...]:
        """All selecting policies, in order."""
        return tuple(itertools.chain.from_iterable(tier.policies for tier in self.stack))

    def rules(self) -> Iterator[tuple[tiers.Policy, tiers.Rule]]:
        """Yield every rule of this direction, in order, with its policy."""
        return ((policy, rule) for policy in self.policies for rule in policy.rules(self.direction))


def select(
    stack: Sequence[tuple[tiers.Tier, Sequence[tiers.Policy]]],
    direction: net.Direction,
    pod_labels: labels.Labels,
    ports: Sequence[resources.ContainerPort],
) -> Selection | None:
    """Find what applies to a pod among the policies that may select it; None: nothing does (rules A14, A19, D4)."""
    chosen = []
    for tier, policies in stack:
        selecting = tuple(
            policy for policy in policies if policy.speaks_of(direction) and policy.subject.selects(pod_labels)
        )
        if selecting:
            isolated = any(direction in policy.directions for policy in selecting)
            end = tier.end if isolated else tiers.EndOfTier.NEXT_TIER
            chosen.append(dataclasses.replace(tier, policies=selecting, end=end))
    if not chosen:
        return None
    refs = tuple((tier.name, policy.ref) for tier in chosen for policy in tier.policies)
    selection = Selection(direction=direction, stack=tuple(chosen), refs=refs)
    if direction is net.Direction.EGRESS:
        return selection
    meaning = named_ports(ports)
    used = sorted({name for _, rule in selection.rules() for name in _names(rule.ports)}, key=_name_key)
    return dataclasses.replace(selection, names=tuple((*name, meaning.get(name, ())) for name in used))


def named_ports(ports: Iterable[resources.ContainerPort]) -> NamedPorts:
    """Gather the numbers of each name and protocol; several containers' are united (rule A33)."""
    gathered: defaultdict[tuple[str, net.Protocol], set[int]] = defaultdict(set)
    for port in ports:
        if port.name is not None:
            gathered[port.name, port.protocol].add(port.number)
    return {name: tuple(sorted(found)) for name, found in gathered.items()}


class Built(NamedTuple):
    """Policy sets, and what their rows' numbers mean."""

    sets: dict[Selection, desired.PolicySet]
    rules: dict[int, verdict.RuleRef]
    filters: dict[int, filters.Content]


def build(
    selections: Iterable[Selection],
    index: selectors.Index,
    classes: NameClasses = _NO_CLASSES,
    *,
    filtering: bool = True,
) -> Built:
    """Compile each of `selections`. Without `classes` nothing is allowed by name.

    Without `filtering` nothing is allowed where a rule restricts the names that may be asked for (rule E17).
    """
    contents = {selection: canonical(selection) for selection in selections}
    set_numbers = numbers.assign(contents.values())
    rule_numbers = _rule_numbers(contents)
    builders = {
        selection: _Builder(selection, index, rule_numbers, classes, filtering=filtering) for selection in contents
    }
    drafts = {selection: builder.build() for selection, builder in builders.items()}
    filter_numbers = filters.number(
        {content for selection, draft in drafts.items() for content in builders[selection].asking(draft)}
    )
    sets = {
        selection: desired.PolicySet(
            id=set_numbers[content],
            digest=hashlib.blake2b(content, digest_size=32).digest(),
            direction=selection.direction,
            rows=builders[selection].numbered(drafts[selection], filter_numbers),
            isolating=tuple(policy.ref for policy in selection.policies if selection.direction in policy.directions),
            others=tuple(policy.ref for policy in selection.policies if selection.direction not in policy.directions),
        )
        for selection, content in contents.items()
    }
    rules = {number: ref for ref, number in rule_numbers.items()}
    return Built(sets, rules, {number: content for content, number in filter_numbers.items()})


def _rule_numbers(selections: Iterable[Selection]) -> dict[verdict.RuleRef, int]:
    refs = {
        verdict.RuleRef(policy.ref, selection.direction, rule.index)
        for selection in selections
        for policy, rule in selection.rules()
    }
    contents = {ref: repr((spelling.ref(ref.policy), ref.direction.value, ref.index)).encode() for ref in refs}
    assigned = numbers.assign(contents.values())
    return {ref: assigned[content] for ref, content in contents.items()}


def can_rank(selection: Selection) -> bool:
    """Tell whether each rule of a set can have a rank, without which nothing is allowed by name."""
    return sum(_can_match(rule) for _, rule in selection.rules()) <= RULES_MAX


def _can_match(rule: tiers.Rule) -> bool:
    return rule.peers != () and rule.ports != ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Clause:
    """A rule of the set before its peer is known."""

    tier: int
    action: tiers.Action
    number: int
    peers: tuple[tiers.Peer, ...] | None
    ports: tuple[resources.PortMatch, ...] | None
    names: tuple[tuple[str, net.Protocol], ...]
    patterns: frozenset[fqdn.NamePattern] = frozenset()
    """Which names it allows."""
    rank: int = desired.NO_RANK
    asks: tuple[int, ...] = ()
    """Of each of `ports`: the names that may be asked for, as bits; empty: any everywhere."""

    def resolve(self, names: NamedPorts) -> rows.Clause:
        """Turn port names to numbers; a name without meaning matches nothing (rule A32)."""
        if self.ports is None:
            return rows.Clause(self.action, self.number, None, self.rank)
        spans: list[tuple[net.Protocol, net.PortRange]] = []
        asks: list[int] = []
        for place, match in enumerate(self.ports):
            if match.port is None:
                spans.append((match.protocol, rows.EVERY_PORT))
            elif isinstance(match.port, net.PortRange):
                spans.append((match.protocol, match.port))
            else:
                found = names.get((match.port, match.protocol), ())
                spans.extend((match.protocol, net.PortRange(number, number)) for number in found)
            asks += self.asks[place : place + 1] * (len(spans) - len(asks))
        return rows.Clause(self.action, self.number, tuple(spans), self.rank, tuple(asks))


class _Builder:
    """Works out the rows of one set."""

    def __init__(
        self,
        selection: Selection,
        index: selectors.Index,
        rule_numbers: Mapping[verdict.RuleRef, int],
        classes: NameClasses,
        *,
        filtering: bool,
    ) -> None:
        self._selection = selection
        self._index = index
        self._egress = selection.direction is net.Direction.EGRESS
        self._subject_names: NamedPorts = {(name, protocol): found for name, protocol, found in selection.names}
        self._filtering = filtering
        self._bits = filters.Bits(each for _, rule in selection.rules() for each in rule.asks)
        self._clauses = [
            self._clause(position, rule, rule_numbers[verdict.RuleRef(policy.ref, selection.direction, rule.index)])
            for position, tier in enumerate(selection.stack)
            for policy in tier.policies
            for rule in policy.rules(selection.direction)
            if _can_match(rule)
        ]
        self._any = sum(1 << place for place, clause in enumerate(self._clauses) if clause.peers is None)
        allows_names = any(clause.patterns for clause in self._clauses) and can_rank(selection)
        self._classes = classes if allows_names else _NO_CLASSES
        if self._classes:
            self._rank()
        outside = [clause for clause in self._clauses if clause.patterns and not self._admin(clause)]
        self._cluster = index.in_cluster if self._classes and outside else 0
        """Those whom no name of a later tier opens (rule E15); they fare differently."""
        self._ceiling = min((clause.rank for clause in self._clauses if not self._admin(clause)), default=0)

    def _clause(self, tier: int, rule: tiers.Rule, number: int) -> _Clause:
        """Write a rule; ports where names are restricted and nobody would look match nothing (rules A50, E17)."""
        named = patterns(rule)
        filtered = self._filtering and self._egress and not named
        ports = rule.ports
        if ports is not None:
            ports = tuple(match for match in ports if match.asks is None or (filtered and match.asks))
        return _Clause(
            tier=tier,
            action=rule.action,
            number=number,
            peers=rule.peers,
            ports=ports,
            names=tuple(_names(ports)),
            patterns=named,
            asks=tuple(self._bits.of(match.asks or ()) for match in ports or ()) if rule.asks else (),
        )

    def asking(self, draft: Mapping[desired.RowKey, desired.Row]) -> set[filters.Content]:
        """Return what the rows of `build` let pods ask for."""
        found = {row.asks for row in draft.values() if row.asks} if self._bits else set()
        return {self._bits.content(bits) for bits in found}

    def numbered(
        self, draft: dict[desired.RowKey, desired.Row], numbered: Mapping[filters.Content, int]
    ) -> dict[desired.RowKey, desired.Row]:
        """Put the number of its filter into each row that has one."""
        if not self._bits:
            return draft
        return {
            key: dataclasses.replace(row, asks=numbered[self._bits.content(row.asks)]) if row.asks else row
            for key, row in draft.items()
        }

    def _rank(self) -> None:
        """Give each clause its place in the order in which they are asked (`rows`)."""
        asked = sorted(
            range(len(self._clauses)),
            key=lambda place: (
                self._clauses[place].tier,
                0 if self._ordered(self._clauses[place]) else _ORDER.index(self._clauses[place].action),
                place,
            ),
        )
        for rank, place in enumerate(asked):
            self._clauses[place] = dataclasses.replace(self._clauses[place], rank=rank)

    def _ordered(self, clause: _Clause) -> bool:
        return self._selection.stack[clause.tier].ordered

    def _admin(self, clause: _Clause) -> bool:
        """Tell whether a clause is of the tier whose names mean any address, and which can be passed (rule D2)."""
        return self._selection.stack[clause.tier].name == resources.Tier.ADMIN.value

    def build(self) -> dict[desired.RowKey, desired.Row]:
        """Return the rows of ANY, then those of each identity that fares differently; their filters are bits yet."""
        everyone = rows.flatten(self._stages(self._any, self._subject_names))
        found = _keyed(identity.ANY, rows.cover(everyone))
        for matching, bits in self._groups():
            for names, members in self._by_names(matching | self._any, bits):
                stages = self._stages(matching | self._any, names)
                outcome = rows.flatten(stages, self._ceiling if matching >> len(self._clauses) else desired.NO_RANK)
                parts = rows.cover(outcome, everyone)
                for number in self._index.members(members) if parts else ():
                    found.update(_keyed(number, parts))
        for class_, allowed in self._of_classes():
            found.update(_keyed(class_, allowed))
        return found

    def _of_classes(self) -> Iterator[tuple[int, Mapping[rows.RowPort, desired.Row]]]:
        """Yield what is allowed to each class of names; classes that the same clauses match are worked out once."""
        known: dict[tuple[int, ...], Mapping[rows.RowPort, desired.Row]] = {}
        named = sorted((clause for clause in self._clauses if clause.patterns), key=lambda clause: clause.rank)
        for number, content in self._classes.items():
            matching = [clause for clause in named if clause.patterns & content]
            ranks = tuple(clause.rank for clause in matching)
            if ranks not in known:
                admin = [clause.resolve(_NO_PORTS) for clause in matching if self._admin(clause)]
                later = [clause.resolve(_NO_PORTS) for clause in matching if not self._admin(clause)]
                known[ranks] = rows.cover(rows.by_name(admin, later))
            yield number, known[ranks]

    def _groups(self) -> list[tuple[int, selectors.Bits]]:
        """Split the identities that any clause singles out by the clauses (as bits) that match them."""
        groups: dict[int, selectors.Bits] = {}
        singled = [(1 << place, self._singles_out(clause)) for place, clause in enumerate(self._clauses)]
        singled.append((1 << len(self._clauses), self._cluster))
        rest = 0
        for _, bits in singled:
            rest |= bits
        groups[0] = rest
        for mark, bits in singled:
            split: dict[int, selectors.Bits] = {}
            for matching, members in groups.items():
                if members & bits:
                    split[matching | mark] = members & bits
                if members & ~bits:
                    split[matching] = members & ~bits
            groups = split
        return list(groups.items())

    def _singles_out(self, clause: _Clause) -> selectors.Bits:
        """Return the identities that fare otherwise than others by `clause`; a port name does that too (A31)."""
        bits = 0
        if clause.peers is not None:
            for peer in clause.peers:
                bits |= self._index.peer(peer)
        elif self._egress:
            for name, protocol in clause.names:
                bits |= self._index.naming(name, protocol)
        return bits

    def _by_names(self, matching: int, bits: selectors.Bits) -> Iterator[tuple[NamedPorts, selectors.Bits]]:
        """Split a group by what the port names of its clauses mean there: on the peer (egress), or on the subject."""
        used = {name for place, clause in enumerate(self._clauses) if matching >> place & 1 for name in clause.names}
        if not self._egress or not used:
            yield self._subject_names, bits
            return
        split: defaultdict[tuple[resources.ContainerPort, ...], selectors.Bits] = defaultdict(int)
        for position in self._index.positions(bits):
            ports = tuple(port for port in self._index.ports_of(position) if (port.name, port.protocol) in used)
            split[ports] |= 1 << position
        for ports, members in split.items():
            yield named_ports(ports), members

    def _stages(self, matching: int, names: NamedPorts) -> list[rows.Stage]:
        """Return the tiers with just the clauses that `matching` marks."""
        clauses: list[list[rows.Clause]] = [[] for _ in self._selection.stack]
        for place, clause in enumerate(self._clauses):
            if matching >> place & 1:
                clauses[clause.tier].append(clause.resolve(names))
        return [
            rows.Stage(tier.end, tier.ordered, tuple(found))
            for tier, found in zip(self._selection.stack, clauses, strict=True)
        ]


def _keyed(number: int, parts: Mapping[rows.RowPort, desired.Row]) -> dict[desired.RowKey, desired.Row]:
    return {desired.RowKey(number, protocol, port, bits): row for (protocol, port, bits), row in parts.items()}


def patterns(rule: tiers.Rule) -> frozenset[fqdn.NamePattern]:
    """Return the patterns of the names that a rule allows."""
    named = (peer for peer in rule.peers or () if isinstance(peer, tiers.NamesPeer))
    return frozenset(pattern for peer in named for pattern in peer.patterns)


def _names(ports: Iterable[resources.PortMatch] | None) -> Iterator[tuple[str, net.Protocol]]:
    return ((match.port, match.protocol) for match in ports or () if isinstance(match.port, str))


def _name_key(name: tuple[str, net.Protocol]) -> tuple[str, int]:
    return name[0], name[1].value


def canonical(selection: Selection) -> bytes:
    """Write what a set says as bytes that no other content has; repr quotes what could run together."""
    stack = [
        (
            tier.name,
            tier.end.value,
            tier.ordered,
            [
                (spelling.ref(policy.ref), [spelling.rule(rule) for rule in policy.rules(selection.direction)])
                for policy in tier.policies
            ],
        )
        for tier in selection.stack
    ]
    names = [(name, protocol.value, found) for name, protocol, found in selection.names]
    return repr((selection.direction.value, stack, names)).encode()
