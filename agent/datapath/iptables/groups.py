"""Peers that a policy set treats alike, and what is allowed of them: what becomes sets and rules.

The problem: a policy set speaks of thousands of identities, and overlapping rules give almost each a region of its
own. The rule: whatever is a union is taken apart into pieces (everything; a stretch of ports of one protocol), and the
identities of a piece make one set, so that rules grow with the ports that policies name and not with the peers. Many
single ports become one set of addresses and ports. Only what the default allows and a peer lacks cannot be a union:
such peers are decided, one region at a time, before the default.

Pure numbers; this module must not know addresses, families or which way a packet goes.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agent.datapath.iptables import members, regions

EXACT_WIDTH = 4
"""Stretches of at most so many ports may become elements, a port each."""
EXACT_PIECES = 8
"""So many are left to rules, whose sets other policy sets can share; more of them become one set."""
EXACT_PEERS = 32
"""Peers with more identities than this are left to rules even then, as far as EXACT_PIECES goes."""

_REST = -1
"""Stands for every identity that has no rows of its own."""
_Piece: TypeAlias = tuple[int, regions.Span]
Exact: TypeAlias = Mapping[tuple[int, int], members.Peers]
"""(Protocol, port) -> who may use it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """What one policy set allows; the parts may be asked in any order, `default` last."""

    everything: members.Peers | None
    """They may do anything."""
    spans: tuple[tuple[members.Peers, int, regions.Spans], ...]
    """They may use these ports of this protocol."""
    exact: Exact
    """(Protocol, port) -> who may use it."""
    decided: tuple[tuple[members.Peers, regions.Region], ...]
    """They may use this region and nothing else, whatever the default says."""
    default: regions.Region
    """What everybody may do who is not decided."""


def group(of_set: regions.SetRegions, default_identity: int) -> Groups:
    """Take apart what a policy set says; `default_identity` is what an address has that nothing is known of."""
    default = of_set.of(default_identity)
    named = frozenset(of_set.own) | {default_identity}
    alike: dict[int, tuple[regions.Region, list[int]]] = {}
    for number, region in ((_REST, of_set.others), *of_set.own.items()):
        if number != default_identity:
            alike.setdefault(id(region), (region, []))[1].append(number)
    decided: defaultdict[regions.Region, list[int]] = defaultdict(list)
    pieces: defaultdict[_Piece, list[int]] = defaultdict(list)
    everything: list[int] = []
    for region, numbers in alike.values():
        if region == default:
            continue
        if region == regions.EVERYTHING:
            everything += numbers
        elif region.base or not region.covers(default):
            decided[region] += numbers
        else:
            for protocol, spans in region.protocols:
                for span in spans:
                    pieces[protocol, span] += numbers
    exact = _exact(pieces, named)
    return Groups(
        everything=_peers(everything, named) if everything else None,
        spans=_spans(pieces, named),
        exact=exact,
        decided=tuple((_peers(found, named), region) for region, found in sorted(decided.items(), key=_order)),
        default=default,
    )


def _order(item: tuple[regions.Region, list[int]]) -> tuple[bool, tuple[tuple[int, regions.Spans], ...]]:
    return item[0].base, item[0].protocols


def _exact(pieces: defaultdict[_Piece, list[int]], named: frozenset[int]) -> Exact:
    """Take the single ports out of `pieces`, if they are too many for rules; each port has its peers in one place.

    A port's peers must not be spread: a hole made for some would hide an element made for others. Large
    ones stay rules all the same, for their elements would be there once a policy set and port.
    """
    small: defaultdict[tuple[frozenset[int], int], list[regions.Span]] = defaultdict(list)
    for (protocol, span), numbers in sorted(pieces.items()):
        if protocol in regions.PORTED and span[1] - span[0] < EXACT_WIDTH:
            small[frozenset(numbers), protocol].append(span)
    if len(small) <= EXACT_PIECES:
        return {}
    by_size = sorted(small, key=lambda each: (_REST not in each[0], -len(each[0])))
    large = {each for each in by_size[:EXACT_PIECES] if _REST in each[0] or len(each[0]) > EXACT_PEERS}
    peers: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for identities, protocol in small.keys() - large:
        for first, last in small[identities, protocol]:
            for port in range(first, last + 1):
                peers[protocol, port].update(identities)
            del pieces[protocol, (first, last)]
    return {place: _peers(found, named) for place, found in sorted(peers.items())}


def _spans(
    pieces: Mapping[_Piece, list[int]], named: frozenset[int]
) -> tuple[tuple[members.Peers, int, regions.Spans], ...]:
    """Join the pieces that the same peers have of one protocol."""
    joined: defaultdict[tuple[int, frozenset[int]], list[regions.Span]] = defaultdict(list)
    for (protocol, span), numbers in sorted(pieces.items()):
        joined[protocol, frozenset(numbers)].append(span)
    return tuple((_peers(numbers, named), protocol, tuple(spans)) for (protocol, numbers), spans in joined.items())


def _peers(numbers: Iterable[int], named: frozenset[int]) -> members.Peers:
    """Name `numbers` by themselves or, where those without rows are among them, by who is not."""
    listed = frozenset(numbers)
    if _REST in listed:
        return members.Peers(named - listed, rest=True)
    return members.Peers(listed)
