"""Runs packets through a Ruleset as the kernel does, word by word, without a kernel.

Only what our rules use is known, and any other word is an error, as is an option whose match was not loaded. Sets
answer as ipset does: from the longest prefix length present to the shortest, the first element found decides, and one
that is `nomatch` says no.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from agent.datapath.iptables import prefix, quoted, ruleset
from agent.model import net

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
CT_STATES = ("NEW", "ESTABLISHED", "RELATED", "INVALID")
MODULE_OF = {
    "--dport": ("tcp", "udp", "sctp"),
    "--sport": ("tcp", "udp", "sctp"),
    "--dports": ("multiport",),
    "--sports": ("multiport",),
    "--match-set": ("set",),
    "--ctstate": ("conntrack",),
    "--ctstatus": ("conntrack",),
    "--ctdir": ("conntrack",),
    "--ctorigsrc": ("conntrack",),
    "--ctreplsrc": ("conntrack",),
    "--mark": ("mark",),
    "--src-type": ("addrtype",),
    "--dst-type": ("addrtype",),
    "--icmpv6-type": ("icmp6",),
    "--hl-eq": ("hl",),
    "--bytecode": ("bpf",),
}
TARGET_OPTIONS = {
    "NFLOG": ("--nflog-prefix", "--nflog-group", "--nflog-size"),
    "MARK": ("--set-xmark",),
    "REJECT": ("--reject-with",),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What rules can see of a packet."""

    source: net.Address
    destination: net.Address
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    hop_limit: int = 64
    interface: str = "eth0"
    state: str = "NEW"
    reply: bool = False
    original_source: net.Address | None = None
    """conntrack's; None: the client is the source, or the destination of a reply."""
    reply_source: net.Address | None = None
    quoted: net.Address | None = None
    """An ICMP error's: whom the packet was for that it quotes."""
    mark: int = 0
    confirmed: bool = False
    """An earlier packet of the connection has left."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a packet."""

    passed: bool
    mark: int
    notes: tuple[prefix.Note, ...]
    visited: int
    """Rules looked at."""


Matcher: TypeAlias = Callable[[Packet, int], bool]
"""From a packet and its present mark."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    matchers: tuple[Matcher, ...]
    target: str
    goes: bool
    options: Mapping[str, str]


class Model:
    """One family's chains and sets."""

    def __init__(self, rules: ruleset.Ruleset, local: frozenset[net.Address] = frozenset()) -> None:
        """Parse everything; `local` are the node's own addresses."""
        self._local = local
        self._sets = {name: _Set(content) for name, content in rules.sets.items()}
        self._jumps = {(table, jump.builtin): jump.chain for table, jumps in rules.jumps.items() for jump in jumps}
        self._chains = {
            (table, name): [self._parse(rule) for rule in found]
            for table, chains in rules.chains.items()
            for name, found in chains.items()
        }

    def emptied(self, table: ruleset.Table, chain: str) -> Model:
        """Return the same with one chain flushed."""
        other = Model.__new__(Model)
        other._local, other._sets, other._jumps = self._local, self._sets, self._jumps
        other._chains = {**self._chains, (table, chain): []}
        return other

    def hook(self, builtin: str, packet: Packet, *tables: ruleset.Table) -> Outcome:
        """Run a packet through a built-in chain of `tables` (all, if none is given), whose policy accepts."""
        notes: tuple[prefix.Note, ...] = ()
        visited = 0
        outcome = Outcome(passed=True, mark=packet.mark, notes=(), visited=0)
        for table in tables or ruleset.Table:
            if (table, builtin) not in self._jumps:
                continue
            outcome = self._run(table, self._jumps[table, builtin], packet)
            notes += outcome.notes
            visited += outcome.visited
            packet = dataclasses.replace(packet, mark=outcome.mark)
            if not outcome.passed:
                break
        return dataclasses.replace(outcome, notes=notes, visited=visited)

    def _run(self, table: ruleset.Table, chain: str, packet: Packet) -> Outcome:
        walk = _Walk(packet.mark)
        position: list[Iterator[_Rule]] = [iter(self._chains[table, chain])]
        passed = True
        while position:
            rule = next(position[-1], None)
            if rule is None:
                position.pop()
                continue
            walk.visited += 1
            if not all(matcher(packet, walk.mark) for matcher in rule.matchers):
                continue
            if rule.target in {"DROP", "REJECT"}:
                passed = False
                break
            if rule.target == "RETURN":
                position.pop()
            elif rule.target in TARGET_OPTIONS:
                walk.take(rule)
            else:
                if rule.goes:
                    position.pop()
                position.append(iter(self._chains[table, rule.target]))
                assert len(position) < 16
        return Outcome(
            passed=passed,
            mark=walk.mark,
            notes=tuple(walk.notes),
            visited=walk.visited,
        )

    def _parse(self, rule: ruleset.Rule) -> _Rule:
        words = list(rule.words)
        modules: list[str] = []
        matchers: list[Matcher] = []
        but = False
        while words[0] not in {"-j", "-g"}:
            word = words.pop(0)
            if word == "!":
                but = True
                continue
            if word == "-m":
                modules.append(words.pop(0))
                continue
            assert word not in MODULE_OF or set(MODULE_OF[word]) & set(modules), rule
            matcher = self._matcher(word, words, rule)
            matchers.append(_negated(matcher) if but else matcher)
            but = False
        goes, target = words.pop(0) == "-g", words.pop(0)
        options = dict(zip(words[::2], words[1::2], strict=True))
        assert set(options) <= set(TARGET_OPTIONS.get(target, ())), rule
        return _Rule(tuple(matchers), target, goes, MappingProxyType(options))

    def _matcher(self, word: str, words: list[str], rule: ruleset.Rule) -> Matcher:
        value = words.pop(0)
        if word == "--match-set":
            assert value in rule.sets
            return self._sets[value].matcher(words.pop(0).split(","))
        if word in {"--src-type", "--dst-type"}:
            assert value == "LOCAL"
            name = "source" if word == "--src-type" else "destination"
            return lambda packet, _: getattr(packet, name) in self._local
        return _matcher(word, value)


class _Walk:
    """What a packet gathers on its way."""

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self.notes: list[prefix.Note] = []
        self.visited = 0

    def take(self, rule: _Rule) -> None:
        """Do what a target does that does not decide."""
        if rule.target == "MARK":
            value, mask = (int(part, 16) for part in rule.options["--set-xmark"].split("/"))
            self.mark = (self.mark & ~mask) ^ value
        elif rule.target == "NFLOG":
            found = prefix.parse(rule.options["--nflog-prefix"])
            assert found is not None
            assert rule.options["--nflog-group"] == str(prefix.GROUP)
            self.notes.append(found.note)


class _Set:
    """Answers as ipset does."""

    def __init__(self, content: ruleset.SetContent) -> None:
        self._kind = content.kind
        self._members: dict[tuple[int, int, int, int, str], bool] = {}
        for member, matches in content.members.items():
            network = member.network
            assert network.prefixlen > 0
            upper = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
            key = (network.prefixlen, upper, member.protocol, member.port, member.interface)
            assert key not in self._members
            self._members[key] = matches
        self._lengths = sorted({key[0] for key in self._members}, reverse=True)

    def matcher(self, directions: list[str]) -> Matcher:
        needed = {ruleset.SetKind.NETS: 1, ruleset.SetKind.NET_PORTS: 2, ruleset.SetKind.NET_INTERFACES: 2}
        assert len(directions) == needed[self._kind]
        return lambda packet, _: self._has(packet, directions)

    def _has(self, packet: Packet, directions: list[str]) -> bool:
        address = packet.source if directions[0] == "src" else packet.destination
        protocol = port = 0
        interface = ""
        if self._kind is ruleset.SetKind.NET_PORTS:
            protocol = packet.protocol
            port = packet.source_port if directions[1] == "src" else packet.destination_port
        if self._kind is ruleset.SetKind.NET_INTERFACES:
            assert directions[1] == "src"
            interface = packet.interface
        for length in self._lengths:
            key = (length, int(address) >> (address.max_prefixlen - length), protocol, port, interface)
            if key in self._members:
                return self._members[key]
        return False


def _negated(matcher: Matcher) -> Matcher:
    return lambda packet, mark: not matcher(packet, mark)


def _matcher(word: str, value: str) -> Matcher:  # noqa: C901, PLR0911, PLR0912 - one case a word
    match word:
        case "-s":
            network = ipaddress.ip_network(value)
            return lambda packet, _: packet.source in network
        case "-d":
            network = ipaddress.ip_network(value)
            return lambda packet, _: packet.destination in network
        case "-i":
            if value.endswith("+"):
                return lambda packet, _: packet.interface.startswith(value[:-1])
            return lambda packet, _: packet.interface == value
        case "-p":
            number = PROTOCOLS.get(value) or int(value)
            return lambda packet, _: packet.protocol == number
        case "--dport" | "--dports":
            inside = _ports(value)
            return lambda packet, _: inside(packet.destination_port)
        case "--sport" | "--sports":
            inside = _ports(value)
            return lambda packet, _: inside(packet.source_port)
        case "--ctstate":
            assert value in CT_STATES
            return lambda packet, _: packet.state == value
        case "--ctdir":
            assert value == "REPLY"
            return lambda packet, _: packet.reply
        case "--ctorigsrc":
            address = ipaddress.ip_address(value)
            return lambda packet, _: packet.original_source == address
        case "--ctreplsrc":
            address = ipaddress.ip_address(value)
            return lambda packet, _: packet.reply_source == address
        case "--mark":
            wanted, mask = (int(part, 16) for part in value.split("/"))
            return lambda _, mark: mark & mask == wanted
        case "--ctstatus":
            assert value == "CONFIRMED"
            return lambda packet, _: packet.confirmed
        case "--icmpv6-type":
            return lambda packet, _: packet.icmp_type == int(value)
        case "--bytecode":
            assert value in {quoted.words(family)[-1] for family in net.Family}
            return lambda packet, _: packet.quoted == packet.source
        case "--hl-eq":
            return lambda packet, _: packet.hop_limit == int(value)
    raise AssertionError(word)


def _ports(value: str) -> Callable[[int], bool]:
    spans = [part.partition(":") for part in value.split(",")]
    assert sum(2 if colon else 1 for _, colon, _ in spans) <= 15
    bounds = [(int(first), int(last or first)) for first, _, last in spans]
    return lambda port: any(first <= port <= last for first, last in bounds)
