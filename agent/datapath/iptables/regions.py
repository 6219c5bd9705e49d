"""What a policy set allows of one peer, as intervals of ports.

Rows say it by longest prefixes, which the packet filter cannot look up; intervals it can match. A region has no trace
of rules, tiers or denials left: what is not allowed is denied. Only TCP, UDP and SCTP have ports here, as in the BPF
programs; of any other protocol all is allowed or nothing, as the row for port 0 says.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agent import desired
from agent.model import identity, net

PORTED = frozenset({net.Protocol.TCP.value, net.Protocol.UDP.value, net.Protocol.SCTP.value})
"""Protocols whose packets have ports to match (`protocol_has_ports` in bpf/include/addr.h)."""

Span: TypeAlias = tuple[int, int]
"""First and last port, both inclusive."""
Spans: TypeAlias = tuple[Span, ...]
"""Ascending, neither touching nor overlapping."""
Line: TypeAlias = tuple[int, int, int, bool]
"""Protocol, port and port bits of a row, and whether it allows."""

NO_PORT: Spans = ()
EVERY_PORT: Spans = ((0, net.PORT_MAX),)


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """What is allowed: `base` of every protocol that `protocols` does not list; equal regions have equal values."""

    base: bool
    protocols: tuple[tuple[int, Spans], ...] = ()
    """Protocol -> allowed ports, ascending, only where they differ from what `base` says."""

    def spans(self, protocol: int) -> Spans:
        """Return the allowed ports of `protocol`."""
        return dict(self.protocols).get(protocol, EVERY_PORT if self.base else NO_PORT)

    def allows(self, protocol: int, port: int) -> bool:
        """Tell whether packets to `port` pass; `port` is 0 where the protocol has none."""
        return any(first <= port <= last for first, last in self.spans(protocol))

    def covers(self, other: Region) -> bool:
        """Tell whether everything that `other` allows is allowed here."""
        if other.base and not self.base:
            return False
        named = dict(self.protocols).keys() | dict(other.protocols).keys()
        return all(_contains(self.spans(protocol), other.spans(protocol)) for protocol in named)


NOTHING = Region(base=False)
EVERYTHING = Region(base=True)


@dataclasses.dataclass(frozen=True, slots=True)
class SetRegions:
    """What one policy set allows of each identity."""

    own: Mapping[int, Region]
    """Identities with rows of their own."""
    others: Region
    """Of every other identity: what the rows of ANY say."""

    def of(self, number: int) -> Region:
        """Return the region of an identity."""
        return self.own.get(number, self.others)


def of_set(policy_set: desired.PolicySet) -> SetRegions:
    """Work out the regions of a set: the longest match among an identity's rows, else among those of ANY, else none.

    Rows of name classes speak of no address, and are left out. What allows to ask for some names only is denied here:
    it is allowed where somebody reads what is asked, which no region knows (`by_name`).
    """
    lines: defaultdict[int, list[Line]] = defaultdict(list)
    allow = desired.Action.ALLOW
    for key, row in policy_set.rows.items():
        if key.identity >= identity.FIRST_NAME_CLASS:
            continue
        lines[key.identity].append((key.protocol, key.port, key.port_bits, row.action is allow and not row.asks))
    others = of_lines(lines.pop(identity.ANY, ()), NOTHING)
    known: dict[tuple[Line, ...], Region] = {}
    own: dict[int, Region] = {}
    for number, found in lines.items():
        found.sort()
        content = tuple(found)
        if content not in known:
            known[content] = of_lines(content, others)
        own[number] = known[content]
    return SetRegions(own=own, others=others)


def of_lines(lines: Iterable[Line], below: Region) -> Region:
    """Work out what rows allow, where `below` decides what none of them matches."""
    by_protocol: defaultdict[int, list[Line]] = defaultdict(list)
    for line in lines:
        by_protocol[line[0]].append(line)
    whole = by_protocol.pop(desired.ANY_PROTOCOL, None)
    if whole:
        below = Region(base=whole[0][3])
    protocols = dict(below.protocols)
    for protocol, found in by_protocol.items():
        protocols[protocol] = _paint(below.spans(protocol), found, protocol)
    plain = EVERY_PORT if below.base else NO_PORT
    return Region(
        base=below.base, protocols=tuple(sorted((key, spans) for key, spans in protocols.items() if spans != plain))
    )


def _paint(spans: Spans, lines: Iterable[Line], protocol: int) -> Spans:
    """Lay rows over `spans`, longer prefixes over shorter ones."""
    painted = list(spans)
    for _, port, bits, allow in sorted(lines, key=lambda line: line[2]):
        first, last = port, port + (1 << (16 - bits)) - 1
        painted = _without(painted, first, last)
        if allow:
            painted.append((first, last))
    if protocol not in PORTED:
        return EVERY_PORT if any(first == 0 for first, _ in painted) else NO_PORT
    return _joined(painted)


def _without(spans: Iterable[Span], first: int, last: int) -> list[Span]:
    kept: list[Span] = []
    for begin, end in spans:
        if begin > last or end < first:
            kept.append((begin, end))
            continue
        if begin < first:
            kept.append((begin, first - 1))
        if end > last:
            kept.append((last + 1, end))
    return kept


def _joined(spans: Iterable[Span]) -> Spans:
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def _contains(outer: Spans, inner: Spans) -> bool:
    return all(any(begin <= first and last <= end for begin, end in outer) for first, last in inner)
