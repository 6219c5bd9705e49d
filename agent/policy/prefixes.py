"""The fewest port prefixes for a row of stretches.

The kernel matches prefixes, so stretches become prefixes (rule A36: never "just the first port"), where a short
prefix with exceptions below it often beats many long ones. Least rows on a binary trie are Fitch's
parsimony (1971): going up, intersect the children's choices, or unite them at the price of one row; going
down, keep what is inherited wherever that is a choice.

A stretch that is denied because nothing allows it gets no row, and no row may cover it: verdicts must tell
an explicit denial from a default one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeAlias

from agent import desired
from agent.model import net

DEFAULT_DENY = desired.Row(desired.Action.DENY, 0)
"""Isolated, and nothing allows it (rule A15): the absence of a row."""
_PORT_BITS = 16

Prefix: TypeAlias = tuple[int, int]
"""Port and port bits, as in `desired.RowKey`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """A stretch, and whether the layer below serves for it."""

    first: int
    last: int
    row: desired.Row
    may_fall: bool

    @property
    def must_fall(self) -> bool:
        """Whether this is a default deny, which has no row and may lie below none."""
        return self.may_fall and self.row == DEFAULT_DENY


def cover(pieces: Sequence[Piece]) -> dict[Prefix, desired.Row]:
    """Return rows for `pieces`, which must be the whole port space, ascending."""
    simple = _simple(pieces)
    return _Trie(pieces).rows() if simple is None else simple


def spanning(first: int, last: int) -> list[Prefix]:
    """Return the fewest port prefixes, (port, bits), that together are `first` to `last`."""
    found: list[Prefix] = []
    while first <= last:
        size = min(first & -first or net.PORT_MAX + 1, 1 << (last - first + 1).bit_length() - 1)
        found.append((first, _PORT_BITS + 1 - size.bit_length()))
        first += size
    return found


def _simple(pieces: Sequence[Piece]) -> dict[Prefix, desired.Row] | None:
    """Cover pieces that stand alone between denied ones, by far the most common case; None: they do not."""
    if any(not one.must_fall and not two.must_fall for one, two in itertools.pairwise(pieces)):
        return None
    return {prefix: each.row for each in pieces if not each.may_fall for prefix in spanning(each.first, each.last)}


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
        return min(self.choices, key=lambda row: (row.action.value, row.rule, row.rank, row.passed, row.asks))


class _Trie:
    """Finds the fewest prefixes for the pieces of one protocol."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._root = self._node(0, 0, pieces)
        self._rows: dict[Prefix, desired.Row] = {}

    def rows(self) -> dict[Prefix, desired.Row]:
        self._fall(self._root)
        return self._rows

    def _node(self, port: int, bits: int, pieces: Sequence[Piece]) -> _Node:
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
