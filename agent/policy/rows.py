"""From tiers of clauses to the fewest map rows that say the same.

Two problems. *Flattening*: the kernel looks up one row and that row must be final, so tiers, orders, Pass
and ends of tiers are worked out here, once for every stretch of ports on which all clauses agree.
*Covering*: the kernel matches port prefixes, so stretches become prefixes (rule A36: never "just the first
port"), where a short prefix with exceptions below it often beats many long ones. Least rows on a binary
trie are Fitch's parsimony (1971): going up, intersect the children's choices, or unite them at the price
of one row; going down, keep what is inherited wherever that is a choice.

A stretch that is denied because nothing allows it gets no row, and no row may cover it: verdicts must tell
an explicit denial from a default one. Pure numbers; this module must not know selectors or identities.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from agent import desired
from agent.model import net
from agent.policy import tiers

DEFAULT_DENY = desired.Row(desired.Action.DENY, 0)
"""Isolated, and nothing allows it (rule A15): the absence of a row."""
DEFAULT_ALLOW = desired.Row(desired.Action.ALLOW, 0)
"""Every tier passed: what a subject without isolation has."""

EVERY_PORT = net.PortRange(0, net.PORT_MAX)
_PORT_BITS = 16

RowPort: TypeAlias = tuple[int, int, int]
"""Protocol, port and port bits, as in `desired.RowKey`."""
Stretch: TypeAlias = tuple[int, int, desired.Row]
"""First and last port, both inclusive, and what happens to them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Clause:
    """A rule whose peer is known to match; `ports` None is every port of every protocol (rule A5)."""

    action: tiers.Action
    rule: int
    ports: tuple[tuple[net.Protocol, net.PortRange], ...] | None

    def covers(self, protocol: net.Protocol | None, port: int) -> bool:
        """Tell whether the clause speaks of `port`; protocol None is one that no clause names."""
        return self.ports is None or any(named is protocol and port in span for named, span in self.ports)


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """What one tier says to a subject it selects."""

    end: tiers.EndOfTier
    ordered: bool
    clauses: tuple[Clause, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What happens to every protocol and port; `protocols` lists those that clauses name."""

    others: desired.Row
    protocols: Mapping[net.Protocol, tuple[Stretch, ...]]

    def stretches(self, protocol: net.Protocol) -> tuple[Stretch, ...]:
        """Return the whole port space of `protocol`, ascending."""
        return self.protocols.get(protocol, ((0, net.PORT_MAX, self.others),))


DENIED = Outcome(DEFAULT_DENY, {})


def flatten(stages: Sequence[Stage]) -> Outcome:
    """Work out what the tiers, one after the other, do to each protocol and port."""
    named = {protocol for stage in stages for clause in stage.clauses for protocol, _ in clause.ports or ()}
    return Outcome(
        others=_decide(stages, None, 0),
        protocols={protocol: _stretches(stages, protocol) for protocol in named},
    )


def cover(outcome: Outcome, below: Outcome = DENIED) -> dict[RowPort, desired.Row]:
    """Write `outcome` as rows; where none matches, `below` decides.

    Where `below` allows what `outcome` allows, no row is spent to name another rule.
    """
    found: dict[RowPort, desired.Row] = {}
    if not _may_fall(outcome.others, below.others):
        found[desired.ANY_PROTOCOL, 0, 0] = outcome.others
        below = Outcome(outcome.others, {})
    for protocol in sorted(outcome.protocols.keys() | below.protocols.keys(), key=lambda each: each.value):
        pieces = _pieces(outcome.stretches(protocol), below.stretches(protocol))
        parts = _simple(pieces)
        for (port, bits), row in (_Trie(pieces).rows() if parts is None else parts).items():
            found[protocol.value, port, bits] = row
    return found


def prefixes(first: int, last: int) -> list[tuple[int, int]]:
    """Return the fewest port prefixes, (port, bits), that together are `first` to `last`."""
    found: list[tuple[int, int]] = []
    while first <= last:
        size = min(first & -first or net.PORT_MAX + 1, 1 << (last - first + 1).bit_length() - 1)
        found.append((first, _PORT_BITS + 1 - size.bit_length()))
        first += size
    return found


def _may_fall(row: desired.Row, below: desired.Row) -> bool:
    """Whether `below` serves in place of `row`: the same, or both allow."""
    return row == below or (row.action is desired.Action.ALLOW and below.action is desired.Action.ALLOW)


def _stretches(stages: Sequence[Stage], protocol: net.Protocol) -> tuple[Stretch, ...]:
    """Cut the port space where any clause begins or ends, decide each part, and join equal neighbours."""
    cuts = {0}
    for stage in stages:
        for clause in stage.clauses:
            for named, span in clause.ports or ():
                if named is protocol:
                    cuts.update((span.first, span.last + 1))
    cuts.discard(net.PORT_MAX + 1)
    starts = sorted(cuts)
    joined: list[Stretch] = []
    for first, following in zip(starts, [*starts[1:], net.PORT_MAX + 1], strict=True):
        row = _decide(stages, protocol, first)
        if joined and joined[-1][2] == row:
            joined[-1] = (joined[-1][0], following - 1, row)
        else:
            joined.append((first, following - 1, row))
    return tuple(joined)


def _decide(stages: Iterable[Stage], protocol: net.Protocol | None, port: int) -> desired.Row:
    """Go through the tiers for one protocol and port."""
    for stage in stages:
        decisive = _decisive(stage, protocol, port)
        if decisive is None and stage.end is tiers.EndOfTier.DENY:
            return DEFAULT_DENY
        if decisive is not None and decisive.action is tiers.Action.ALLOW:
            return desired.Row(desired.Action.ALLOW, decisive.rule)
        if decisive is not None and decisive.action is tiers.Action.DENY:
            return desired.Row(desired.Action.DENY, decisive.rule)
    return DEFAULT_ALLOW


def _decisive(stage: Stage, protocol: net.Protocol | None, port: int) -> Clause | None:
    """Find the clause that ends the tier: ordered, the first; unordered, a Deny before an Allow before a Pass."""
    hits = [
        clause for clause in stage.clauses if clause.action is not tiers.Action.LOG and clause.covers(protocol, port)
    ]
    if stage.ordered:
        return hits[0] if hits else None
    for action in (tiers.Action.DENY, tiers.Action.ALLOW, tiers.Action.PASS):
        for clause in hits:
            if clause.action is action:
                return clause
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch, and whether the layer below serves for it."""

    first: int
    last: int
    row: desired.Row
    may_fall: bool

    @property
    def must_fall(self) -> bool:
        return self.may_fall and self.row == DEFAULT_DENY


def _pieces(upper: Sequence[Stretch], below: Sequence[Stretch]) -> list[_Piece]:
    """Cut both at each other's edges."""
    pieces: list[_Piece] = []
    remaining = list(reversed(below))
    for first, last, row in upper:
        start = first
        while start <= last:
            _, end, under = remaining[-1]
            stop = min(last, end)
            pieces.append(_Piece(start, stop, row, _may_fall(row, under)))
            if stop == end:
                remaining.pop()
            start = stop + 1
    return pieces


def _simple(pieces: Sequence[_Piece]) -> dict[tuple[int, int], desired.Row] | None:
    """Cover pieces that stand alone between denied ones, by far the most common case; None: they do not."""
    if any(not one.must_fall and not two.must_fall for one, two in itertools.pairwise(pieces)):
        return None
    return {prefix: each.row for each in pieces if not each.may_fall for prefix in prefixes(each.first, each.last)}


@dataclasses.dataclass(frozen=True, slots=True)
class _Node:
    """A port prefix; leaves hold one kind of piece."""

    port: int
    bits: int
    choices: frozenset[desired.Row]
    changes: int
    """Rows needed below this node if it has one of `choices`."""
    falling: int
    """Rows needed if nothing above has a row."""
    must_fall: bool
    children: tuple[_Node, ...]

    @property
    def takes_row(self) -> bool:
        """Whether a row here is at least as good as rows further down, nothing above having one."""
        return not self.must_fall and self.falling == 1 + self.changes

    @property
    def preferred(self) -> desired.Row:
        return min(self.choices, key=lambda row: (row.action.value, row.rule))


class _Trie:
    """Finds the fewest prefixes for the pieces of one protocol."""

    def __init__(self, pieces: Sequence[_Piece]) -> None:
        self._root = self._node(0, 0, pieces)
        self._rows: dict[tuple[int, int], desired.Row] = {}

    def rows(self) -> dict[tuple[int, int], desired.Row]:
        self._fall(self._root)
        return self._rows

    def _node(self, port: int, bits: int, pieces: Sequence[_Piece]) -> _Node:
        kinds = {(piece.row, piece.may_fall) for piece in pieces}
        if len(kinds) == 1:
            (piece, *_) = pieces
            falling = 0 if piece.may_fall else 1
            return _Node(port, bits, frozenset((piece.row,)), 0, falling, piece.must_fall, ())
        middle = port + (1 << (_PORT_BITS - bits - 1))
        left = self._node(port, bits + 1, [piece for piece in pieces if piece.first < middle])
        right = self._node(middle, bits + 1, [piece for piece in pieces if piece.last >= middle])
        shared = left.choices & right.choices
        changes = left.changes + right.changes + (0 if shared else 1)
        falling = left.falling + right.falling
        must_fall = left.must_fall or right.must_fall
        return _Node(
            port,
            bits,
            shared or left.choices | right.choices,
            changes,
            falling if must_fall else min(falling, 1 + changes),
            must_fall,
            (left, right),
        )

    def _fall(self, node: _Node) -> None:
        """Descend where no row is inherited."""
        if node.falling == 0:
            return
        if node.takes_row:
            self._rows[node.port, node.bits] = node.preferred
            self._inherit(node, node.preferred)
            return
        for child in node.children:
            self._fall(child)

    def _inherit(self, node: _Node, inherited: desired.Row) -> None:
        """Descend below a row."""
        for child in node.children:
            chosen = inherited
            if inherited not in child.choices:
                chosen = self._rows[child.port, child.bits] = child.preferred
            self._inherit(child, chosen)
