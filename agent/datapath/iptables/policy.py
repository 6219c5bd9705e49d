"""The chains of policy sets: what a peer may do, as rules over sets of addresses.

A chain is entered with the subject known. Every rule that allows goes on where its direction ends; a packet none
matches is denied. Sets are named after the identities they hold, so that policy sets share them; rules over a set that
has no address in this family are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from agent import desired
from agent.datapath.iptables import by_name as by_name_
from agent.datapath.iptables import groups, members, regions, ruleset, ways
from agent.model import net

QUIET, PASS, DENY = "NW-QUIET", "NW-PASS", "NW-DENY"
"""Where judgements end: marked; reported where new, and marked; denied (and `-R`, of a reply)."""
MULTIPORT_SLOTS = 15
"""Ports of one multiport match; a range takes two (XT_MULTI_PORTS)."""
PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
"""As iptables-save prints them; others by number."""

Chains: TypeAlias = dict[str, tuple[ruleset.Rule, ...]]


def set_chain(number: int, way: ways.Way) -> str:
    """Name the chain of a policy set."""
    return f"NW-SET-{number:08x}{way.mark}"


def allowed_target(way: ways.Way) -> str:
    """Return the chain for what this end allows; after egress the other end is still to be asked."""
    return PASS if way.direction is net.Direction.INGRESS and not way.reply else QUIET


def denied_target(way: ways.Way) -> str:
    """Return the chain for what this end denies."""
    return DENY + way.mark


class Writer:
    """Writes the chains of policy sets of one family, and the sets they need."""

    def __init__(
        self,
        family: net.Family,
        book: members.Book,
        before: Writer | None = None,
        by_name: by_name_.ByName | None = None,
    ) -> None:
        """Take addresses from `book`; contents that are as in `before` are taken from there.

        `by_name` begins the chains of sets that have names.
        """
        self._family = family
        self.book = book
        self._by_name = by_name or by_name_.NotByName()
        self._before = before
        self._names: dict[members.Peers, str] = {}
        self.contents: dict[str, ruleset.SetContent] = {}
        """Every set asked for so far, those without members too."""
        self._written: dict[int, _Written] = {}
        self.chains: Chains = {}

    @property
    def sets(self) -> dict[str, ruleset.SetContent]:
        """The sets that the chains written so far refer to."""
        return {name: content for name, content in sorted(self.contents.items()) if content.members}

    def write(self, policy_set: desired.PolicySet, owners: by_name_.Owners) -> None:
        """Write the chains of one policy set, for both ways a packet can go; `owners` have it as their egress set."""
        written = self._as_before(policy_set)
        if written is None:
            found = groups.group(regions.of_set(policy_set), self.book.default)
            written = _Written(policy_set, {}, {}, has_names=by_name_.has_names(policy_set))
            for way in ways.WAYS:
                if way.direction is policy_set.direction:
                    written.chains[set_chain(policy_set.id, way)] = tuple(self._rules(found, way, written))
        self._written[policy_set.id] = written
        self.contents.update(written.sets)
        self.chains.update(written.chains)
        if written.has_names:
            self._begin(policy_set, owners)

    def _begin(self, policy_set: desired.PolicySet, owners: by_name_.Owners) -> None:
        """Put before a set's rules what allows by name; that may change while all else is as before."""
        needed = _Written(policy_set, {}, {})
        for way in ways.WAYS:
            if way.direction is policy_set.direction:
                head = self._by_name.head(policy_set, way, owners, lambda peers: self._nets(peers, needed))
                chain = set_chain(policy_set.id, way)
                self.chains.update(head.chains)
                self.chains[chain] = (*head.rules, *self.chains[chain])

    @property
    def named(self) -> frozenset[int]:
        """The egress sets written so far that have names."""
        return frozenset(number for number, written in self._written.items() if written.has_names)

    def _as_before(self, policy_set: desired.PolicySet) -> _Written | None:
        """Return what was written of the same set when every address was what it is now."""
        if self._before is None or self._before.book is not self.book:
            return None
        written = self._before._written.get(policy_set.id)  # noqa: SLF001 - of its own kind
        return written if written and _is_like(written.policy_set, policy_set) else None

    def pods(self) -> str:
        """Return the name of the set of all pods' addresses; empty: there are none."""
        name = f"NW{self._family.value}-CLUSTER"
        before = self._before
        if before and name in before.contents and (before.book is self.book or before.book.hosts == self.book.hosts):
            self.contents[name] = before.contents[name]
        else:
            self.contents[name] = ruleset.SetContent(kind=ruleset.SetKind.NETS, members=self.book.of_hosts())
        return name if self.contents[name].members else ""

    def finish(self) -> None:
        """Let go of what came before; nothing can be written afterwards that would look there."""
        self._before = None
        self.book.finish()

    def _rules(self, found: groups.Groups, way: ways.Way, written: _Written) -> Iterator[ruleset.Rule]:
        allowed = ("-g", allowed_target(way))
        if found.everything and (name := self._nets(found.everything, written)):
            yield _matching(name, way.peer, (), allowed)
        if found.exact and (name := self._ports(found.exact, written)):
            yield _matching(name, f"{way.peer},{way.port}", (), allowed)
        for peers, protocol, spans in found.spans:
            if name := self._nets(peers, written):
                for words in port_words(protocol, spans, way):
                    yield _matching(name, way.peer, words, allowed)
        for peers, region in found.decided:
            if name := self._nets(peers, written):
                yield _matching(name, way.peer, (), ("-g", self._region(region, way, written)))
        yield from region_rules(found.default, way)

    def _region(self, region: regions.Region, way: ways.Way, written: _Written) -> str:
        """Return the chain that allows a region and denies the rest, shared by all that decide so."""
        if region == regions.NOTHING:
            return denied_target(way)
        chain = f"NW-{way.direction.name[0]}-{digest(repr(region).encode(), 5)}{way.mark}"
        written.chains[chain] = tuple(region_rules(region, way))
        return chain

    def _nets(self, peers: members.Peers, written: _Written) -> str:
        """Return the name of the set of the addresses of `peers`; empty: there are none."""
        name = self._named(peers)
        if name not in self.contents:
            before = self._before
            if before and name in before.contents and self.book.same_members(peers, before.book):
                self.contents[name] = before.contents[name]
                self.book.keep(peers)
            else:
                found = self.book.members(peers)
                self.contents[name] = ruleset.SetContent(kind=ruleset.SetKind.NETS, members=found)
        written.sets[name] = self.contents[name]
        return name if written.sets[name].members else ""

    def _ports(self, exact: groups.Exact, written: _Written) -> str:
        """Return the name of the set of addresses and ports; empty: there are none."""
        content = ((protocol, port, self._named(peers)) for (protocol, port), peers in exact.items())
        name = f"NW{self._family.value}-P-{digest(repr(tuple(content)).encode())}"
        if name not in self.contents:
            before = self._before
            if before and name in before.contents and self._same_ports(exact, before):
                self.contents[name] = before.contents[name]
                for place, peers in exact.items():
                    self.book.keep(peers, place)
            else:
                found: dict[ruleset.Member, bool] = {}
                for place, peers in exact.items():
                    found.update(self.book.members(peers, place))
                self.contents[name] = ruleset.SetContent(kind=ruleset.SetKind.NET_PORTS, members=found)
        written.sets[name] = self.contents[name]
        return name if written.sets[name].members else ""

    def _same_ports(self, exact: groups.Exact, before: Writer) -> bool:
        return all(self.book.same_members(peers, before.book) for peers in exact.values())

    def _named(self, peers: members.Peers) -> str:
        name = self._names.get(peers)
        if name is None:
            content = struct.pack(f"!?{len(peers.identities)}I", peers.rest, *sorted(peers.identities))
            name = self._names[peers] = f"NW{self._family.value}-N-{digest(content)}"
        return name


@dataclasses.dataclass(frozen=True, slots=True)
class _Written:
    """What one policy set became."""

    policy_set: desired.PolicySet
    chains: Chains
    sets: dict[str, ruleset.SetContent]
    has_names: bool = False


def _is_like(one: desired.PolicySet, other: desired.PolicySet) -> bool:
    """Tell whether two policy sets judge alike."""
    return one is other or (one.direction is other.direction and one.rows == other.rows)


def region_rules(region: regions.Region, way: ways.Way) -> Iterator[ruleset.Rule]:
    """Write a region without regard to the peer; the last rule matches everything."""
    allowed, denied = allowed_target(way), denied_target(way)
    for protocol, spans in region.protocols:
        for words in port_words(protocol, spans, way):
            yield ruleset.Rule((*words, "-g", allowed))
        if region.base:
            yield ruleset.Rule((*protocol_words(protocol), "-g", denied))
    yield ruleset.Rule(("-g", allowed if region.base else denied))


def protocol_words(protocol: int) -> tuple[str, str]:
    """Write the match of a protocol."""
    return "-p", PROTOCOLS.get(protocol, str(protocol))


def matching_set(name: str, direction: str, *, but: bool = False) -> tuple[str, ...]:
    """Write the match of a set."""
    return ("-m", "set", *(("!",) if but else ()), "--match-set", name, direction)


def _matching(name: str, direction: str, words: Sequence[str], target: Sequence[str]) -> ruleset.Rule:
    return ruleset.Rule((*words, *matching_set(name, direction), *target), (name,))


def port_words(protocol: int, spans: regions.Spans, way: ways.Way) -> Iterator[tuple[str, ...]]:
    """Write the matches of ports, as few rules as multiport allows."""
    if spans == regions.EVERY_PORT:
        yield protocol_words(protocol)
        return
    for chunk in _chunks(spans):
        ports = ",".join(_port(span) for span in chunk)
        name = PROTOCOLS[protocol]
        if len(chunk) == 1:
            yield "-p", name, "-m", name, way.port_option, ports
        else:
            yield "-p", name, "-m", "multiport", f"{way.port_option}s", ports


def _chunks(spans: regions.Spans) -> Iterator[list[regions.Span]]:
    chunk: list[regions.Span] = []
    slots = 0
    for span in spans:
        needed = 1 if span[0] == span[1] else 2
        if slots + needed > MULTIPORT_SLOTS:
            yield chunk
            chunk, slots = [], 0
        chunk.append(span)
        slots += needed
    if chunk:
        yield chunk


def _port(span: regions.Span) -> str:
    first, last = span
    return str(first) if first == last else f"{first}:{last}"


def digest(content: bytes, size: int = 10) -> str:
    """Return what names are made of that stand for some content."""
    return hashlib.blake2b(content, digest_size=size).hexdigest()
