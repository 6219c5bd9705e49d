"""Runs packets through a Ruleset as the kernel does, word by word, without a kernel, and says which way they went.

The problem: the kernel tells of a packet what became of it, and not of a packet that nobody has sent. The rule: the
rules themselves are followed, those that were rendered or those that were read back. Sets answer as ipset does: from
the longest prefix length present to the shortest, the first element found decides, and one that is `nomatch` says no.

Only built-in chains whose first rule is our jump are known; what others' rules do is not for it. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from types import MappingProxyType

from agent import errors
from agent.datapath.iptables import matches, prefix, ruleset
from agent.model import net

Packet = matches.Packet
DEPTH_MOST = 16
"""nf_tables follows no more jumps (NFT_JUMP_STACK_SIZE)."""
TARGET_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "NFLOG": ("--nflog-prefix", "--nflog-group", "--nflog-size"),
    "MARK": ("--set-xmark",),
    "REJECT": ("--reject-with",),
    "NFQUEUE": ("--queue-num", "--queue-bypass"),
}
ENDS = frozenset({"DROP", "REJECT"})
_NEEDED = {ruleset.SetKind.NETS: 1, ruleset.SetKind.NET_PORTS: 2, ruleset.SetKind.NET_INTERFACES: 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A set that was asked, and the element that decided; None: none did."""

    name: str
    directions: str
    """Which addresses or ports of the packet: `src`, `dst`, or a pair of them."""
    member: ruleset.Member | None
    matches: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A rule that a packet matched, and the sets that were asked in its chain since the last one."""

    table: ruleset.Table
    chain: str
    rule: ruleset.Rule
    asked: tuple[Asked, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a packet."""

    passed: bool
    mark: int
    notes: tuple[prefix.Note, ...]
    visited: int
    """Rules looked at."""
    way: tuple[Passage, ...] = ()
    """Rules matched, in order."""
    chains: tuple[tuple[ruleset.Table, str], ...] = ()
    """Chains entered, in order."""
    asked: tuple[Asked, ...] = ()
    """Sets asked, in order."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    matchers: tuple[matches.Matcher, ...]
    target: str
    goes: bool
    options: Mapping[str, str]
    rule: ruleset.Rule


class Model:
    """One family's chains and sets."""

    def __init__(self, rules: ruleset.Ruleset, local: Container[net.Address] = frozenset()) -> None:
        """Follow `rules`; `local` are the node's own addresses. A chain is read when a packet first comes to it."""
        self._local = local
        self._source = rules
        self._sets: dict[str, _Set] = {}
        self._jumps = {(table, jump.builtin): jump.chain for table, jumps in rules.jumps.items() for jump in jumps}
        self._rules: Mapping[tuple[ruleset.Table, str], tuple[ruleset.Rule, ...]] = {
            (table, name): found for table, chains in rules.chains.items() for name, found in chains.items()
        }
        self._chains: dict[tuple[ruleset.Table, str], list[_Rule]] = {}

    def emptied(self, table: ruleset.Table, chain: str) -> Model:
        """Return the same with one chain flushed."""
        chains = {**self._source.chains, table: {**self._source.chains[table], chain: ()}}
        return Model(dataclasses.replace(self._source, chains=chains), self._local)

    def hook(self, builtin: str, packet: Packet, *tables: ruleset.Table) -> Outcome:
        """Run a packet through a built-in chain of `tables` (all, if none is given), whose policy accepts.

        Raises InvalidAnswer where a rule on its way cannot be followed.
        """
        walk = _Walk(packet, self._asks)
        passed = True
        for table in tables or ruleset.Table:
            if passed and (table, builtin) in self._jumps:
                passed = self._run(table, self._jumps[table, builtin], walk)
        return Outcome(
            passed=passed,
            mark=walk.mark,
            notes=tuple(walk.notes),
            visited=walk.visited,
            way=tuple(walk.way),
            chains=tuple(walk.chains),
            asked=tuple(walk.asked),
        )

    def _run(self, table: ruleset.Table, first: str, walk: _Walk) -> bool:
        """Return whether the packet is not dropped in this table."""
        position = [(first, self._enter(table, first, walk))]
        while position:
            chain, rules = position[-1]
            rule = next(rules, None)
            if rule is None:
                position.pop()
                continue
            walk.visited += 1
            if not all(matcher(walk) for matcher in rule.matchers):
                continue
            walk.match(table, chain, rule.rule)
            if rule.target in ENDS:
                return False
            if rule.target == "RETURN":
                position.pop()
            elif rule.target in TARGET_OPTIONS:
                walk.take(rule)
            else:
                if rule.goes:
                    position.pop()
                position.append((rule.target, self._enter(table, rule.target, walk)))
                if len(position) >= DEPTH_MOST:
                    raise matches.not_followed(rule.rule, "chains go round in a circle, or too deep")
        return True

    def _enter(self, table: ruleset.Table, chain: str, walk: _Walk) -> Iterator[_Rule]:
        walk.chains.append((table, chain))
        if (table, chain) not in self._chains:
            if (table, chain) not in self._rules:
                raise errors.InvalidAnswer(what=f"the chain {chain} of {table.value}", why="there is none")
            self._chains[table, chain] = [self._parsed(rule) for rule in self._rules[table, chain]]
        return iter(self._chains[table, chain])

    def _parsed(self, rule: ruleset.Rule) -> _Rule:
        found, (how, target, *options) = matches.matchers(rule, self._local)
        given = dict(zip(options[::2], options[1::2], strict=False))
        if not set(given) <= set(TARGET_OPTIONS.get(target, ())):
            raise matches.not_followed(rule, f"{target} with options that are none of ours")
        return _Rule(found, target, how == "-g", MappingProxyType(given), rule)

    def _asks(self, name: str, directions: Sequence[str], packet: Packet) -> Asked:
        if name not in self._sets:
            if name not in self._source.sets:
                raise errors.InvalidAnswer(what=f"the set {name}", why="there is none")
            self._sets[name] = _Set(name, self._source.sets[name])
        return self._sets[name].ask(packet, directions)


class _Walk:
    """A packet on its way, and what it gathers."""

    def __init__(self, packet: Packet, ask: Callable[[str, Sequence[str], Packet], Asked]) -> None:
        self.packet, self._ask = packet, ask
        self.mark = packet.mark
        self.notes: list[prefix.Note] = []
        self.visited = 0
        self.way: list[Passage] = []
        self.chains: list[tuple[ruleset.Table, str]] = []
        self.asked: list[Asked] = []
        self._told = 0

    def has(self, name: str, directions: Sequence[str]) -> bool:
        """Ask a set, and keep the answer."""
        asked = self._ask(name, directions, self.packet)
        self.asked.append(asked)
        return asked.matches

    def match(self, table: ruleset.Table, chain: str, rule: ruleset.Rule) -> None:
        """Keep a rule that matched."""
        asked, self._told = tuple(self.asked[self._told :]), len(self.asked)
        self.way.append(Passage(table=table, chain=chain, rule=rule, asked=asked))

    def take(self, rule: _Rule) -> None:
        """Do what a target does that does not decide. Raises InvalidAnswer."""
        if rule.target == "MARK":
            value, mask = (int(part, 16) for part in rule.options["--set-xmark"].split("/"))
            self.mark = (self.mark & ~mask) ^ value
        elif rule.target == "NFLOG":
            found = prefix.parse(rule.options["--nflog-prefix"].rstrip())
            if found is None or rule.options["--nflog-group"] != str(prefix.GROUP):
                raise matches.not_followed(rule.rule, "it logs to others")
            self.notes.append(found.note)


class _Set:
    """Answers as ipset does."""

    def __init__(self, name: str, content: ruleset.SetContent) -> None:
        self._name, self._kind = name, content.kind
        self._members: dict[tuple[int, int, int, int, str], tuple[ruleset.Member, bool]] = {}
        for member, matches_ in content.members.items():
            network = member.network
            upper = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            self._members[network.prefixlen, upper, member.protocol, member.port, member.interface] = member, matches_
        self._lengths = sorted({key[0] for key in self._members}, reverse=True)

    def ask(self, packet: Packet, directions: Sequence[str]) -> Asked:
        if len(directions) != _NEEDED[self._kind]:
            raise errors.InvalidAnswer(what=f"a match of the set {self._name}", why=f"it asks for {directions}")
        address = packet.source if directions[0] == "src" else packet.destination
        protocol = port = 0
        interface = ""
        if self._kind is ruleset.SetKind.NET_PORTS:
            protocol = packet.protocol
            port = packet.source_port if directions[1] == "src" else packet.destination_port
        if self._kind is ruleset.SetKind.NET_INTERFACES:
            interface = packet.interface
        for length in self._lengths:
            key = (length, int(address) >> (address.max_prefixlen - length), protocol, port, interface)
            if key in self._members:
                return Asked(self._name, ",".join(directions), *self._members[key])
        return Asked(self._name, ",".join(directions), None, matches=False)
