"""From the names that answers are learned for to those they shall be, without a moment in which one is missed.

The problem: what a policy allows by name has to be learned from the first answer on that comes under it, and what the
policy before it allowed until the last. The rule is that of `datapath.plan`: each row has a slot a generation, and an
answer is learned for both. Before the flip the idle slot is written ("staged"), after it both are made equal ("mend").
Where a row is missing in a generation, what is above it speaks for it: a row that only the other generation has carries
there what the next shorter one of this one says, as prefixes do in `datapath.slots`.

The automaton has no rows to share: two of them have room, and a word a slot says where to begin. One that is written
takes the half that the live one does not. A crash anywhere leaves the live slot as it was, and planning again from
what is there ends the same. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from agent.fqdn import classes, dfa, trie

Row: TypeAlias = trie.Row[int]
Pair: TypeAlias = tuple[Row, Row]
"""One a slot; both of one domain."""
NO_AUTOMATON = 0
HALF = dfa.STATES_MAX
"""Where the second half of the states begins."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What the maps hold."""

    rows: Mapping[bytes, Pair] = dataclasses.field(default_factory=dict)
    """By key, see `trie`."""
    starts: tuple[int, int] = (NO_AUTOMATON, NO_AUTOMATON)
    """The first state of each slot's automaton."""


def staged(have: Mapping[bytes, Pair], want: Mapping[bytes, Row], *, idle: int) -> dict[bytes, Pair]:
    """Return every row of both with slot `idle` as wanted and the other one as it is."""
    live = {key: pair[1 - idle] for key, pair in have.items()}
    merged: dict[bytes, Pair] = {}
    for key in live.keys() | want.keys():
        old = live.get(key) or _implied(live, key)
        new = want.get(key) or _implied(want, key)
        merged[key] = (old, new) if idle else (new, old)
    return merged


def unheard(merged: Mapping[bytes, Pair], *, idle: int) -> frozenset[int]:
    """Return the classes that some name has in slot `idle`, and another or none in the live one.

    That other names are learned by such a class already says nothing of what this one taught.
    """
    slots = ((_classes(pair[1 - idle]), _classes(pair[idle])) for pair in merged.values())
    new = {now for before, after in slots for was, now in zip(before, after, strict=True) if now != was}
    return frozenset(new) - {classes.NONE}


def at_rest(want: Mapping[bytes, Row]) -> dict[bytes, Pair]:
    """Return the rows with both slots as wanted."""
    return {key: (row, row) for key, row in want.items()}


def missing(have: Mapping[bytes, Pair], want: Mapping[bytes, Pair]) -> dict[bytes, Pair]:
    """Return what is to be written for `have` to be `want`, but for what is to be deleted."""
    return {key: pair for key, pair in want.items() if have.get(key) != pair}


def start_of(automaton: dfa.Dfa[int], *, live: int) -> int:
    """Return where an automaton begins that is to be written beside the one that begins in `live`."""
    if not automaton.states:
        return NO_AUTOMATON
    return dfa.START if live >= HALF else HALF + dfa.START


def shifted(automaton: dfa.Dfa[int], start: int) -> tuple[dfa.State[int], ...]:
    """Return the states with the numbers they have where the automaton begins in `start`; nobody enters the dead."""
    offset = start - dfa.START
    return tuple(
        dfa.State(tuple(at + offset if at != dfa.DEAD else dfa.DEAD for at in state.next), state.accept)
        for state in automaton.states
    )


def _implied(table: Mapping[bytes, Row], key: bytes) -> Row:
    """Return what a table without a row for `key` says there: what the nearest row above does."""
    labels = key.count(trie.SEPARATOR)
    above = _nearest(table, key)
    if above is None:
        return trie.Row(labels, classes.NONE, classes.NONE, classes.NONE)
    return trie.Row(labels, above.of(labels), above.of(labels + 1), above.of(labels + 2))


def _nearest(table: Mapping[bytes, Row], key: bytes) -> Row | None:
    """Find the longest row that is a beginning of `key` and ends with a label."""
    end = len(key)
    while end > 0:
        end = key.rfind(trie.SEPARATOR, 0, end - 1) + 1
        row = table.get(key[:end])
        if row is not None:
            return row
    return None


def _classes(row: Row) -> tuple[int, int, int]:
    return row.exact, row.one_label, row.more_labels
