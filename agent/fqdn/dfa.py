"""Patterns with a `*` inside: an automaton that reads a name's key, from its end, byte by byte.

The problem: `part*ial.com` and `*.s3.*.amazonaws.com` are no suffixes, so no longest prefix finds them. A deterministic
automaton decides them all in one walk, but some sets of patterns make it grow as two to the power of their number. The
rule: it is built only up to STATES_MAX states and WORK_MAX steps, counted and never timed, so that the same patterns
are accepted on every machine; beyond either the answer is TooLarge (requirement F4). It reads names backwards, as the
trie's key has them: what tells patterns apart is mostly their domain, and read first it keeps them from multiplying.

What the kernel walks: state 1 at first; for each of the n bytes of the key (`trie`) from reversed[0] on, the 0x80 at
the end included, state = next[symbol of the byte]; state 0 has no way out, stop. The class is the `accept` of the last
state, 0 for none. A state is

    u16 next[]          by symbol: a to z 0..25, 0 to 9 26..35, - 36, _ 37, 0x80 38; what follows is padding
    u32 accept

This module must not choose which patterns to give up; `classes` does.
"""

from __future__ import annotations

import dataclasses
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from agent.fqdn import patterns, trie
from agent.model import fqdn

STATES_MAX = 2048
"""States of an automaton, the dead one included: they take some 200 kB in the kernel."""
WORK_MAX = 500_000
"""Steps of building one: about a second of a core."""
FOR_INFIX = "the automaton for patterns with a * inside"
ADVICE = "write fewer of them, or *.example.com and **.example.com, which cost nothing"
DEAD, START = 0, 1
ALPHABET = (string.ascii_lowercase + string.digits + "-_").encode() + bytes([trie.SEPARATOR])
"""The bytes of keys, each at its symbol's place."""

_SYMBOLS: Mapping[int, int] = {byte: symbol for symbol, byte in enumerate(ALPHABET)}
_SEPARATOR = _SYMBOLS[trie.SEPARATOR]

Class = TypeVar("Class")


@dataclasses.dataclass(frozen=True, slots=True)
class State(Generic[Class]):
    """Where to go by each symbol, and the class of a name that ends here."""

    next: tuple[int, ...]
    accept: Class


@dataclasses.dataclass(frozen=True, slots=True)
class Dfa(Generic[Class]):
    """An automaton: reading begins at `states[START]`, `states[DEAD]` goes nowhere; without states nothing matches."""

    states: tuple[State[Class], ...] = ()
    work: int = 0
    """Steps that building it took."""

    def run(self, at: bytes) -> Class | None:
        """Walk a key as the kernel does; None where there are no states."""
        if not self.states:
            return None
        place = START
        for byte in at:
            place = self.states[place].next[_SYMBOLS[byte]]
        return self.states[place].accept


@dataclasses.dataclass(frozen=True, slots=True)
class TooLarge:
    """The automaton of some patterns was given up."""

    reason: str
    """What it would have taken, and what to write instead."""
    work: int
    """Steps until then."""


@dataclasses.dataclass(slots=True)
class _Node:
    """A place in the patterns; places that the same tokens lead to are one, whatever the pattern."""

    edges: dict[str, _Node] = dataclasses.field(default_factory=dict)
    within_label: bool = False
    """Stays here by any character of a label: behind a `*`."""
    across_labels: bool = False
    """Stays here by a separator, too: behind `**.` (that is, before it in the pattern)."""
    accepts: set[fqdn.NamePattern] = dataclasses.field(default_factory=set)
    number: int = 0


_MANY = "**"
_STAYING = (patterns.STAR, _MANY)
_BY_TOKEN = {chr(byte): symbol for byte, symbol in _SYMBOLS.items()} | {".": _SEPARATOR}
_Places: TypeAlias = frozenset[int]


def build(names: Iterable[fqdn.NamePattern]) -> Dfa[trie.Content] | TooLarge:
    """Build the automaton of `names`, any patterns whatever; the same patterns always give the same one."""
    nodes = _nodes(sorted(set(names)))
    if len(nodes) == 1:
        return Dfa()
    return _Subsets(nodes).build()


def _nodes(names: Sequence[fqdn.NamePattern]) -> list[_Node]:
    """Write the patterns, from their ends, into one tree of tokens."""
    root = _Node()
    nodes = [root]
    for pattern in names:
        node = root
        for token in _tokens(pattern):
            if token not in node.edges:
                node.edges[token] = _Node(
                    within_label=token in _STAYING, across_labels=token == _MANY, number=len(nodes)
                )
                nodes.append(node.edges[token])
            node = node.edges[token]
        node.accepts.add(pattern)
    return nodes


def _tokens(pattern: fqdn.NamePattern) -> list[str]:
    """Split a pattern into characters, `*` within a label, and `**` for whole labels; the last comes first."""
    found = trie.suffix(pattern)
    if found is not None and found[0] is trie.Reach.EVERY:
        return [_MANY]
    text = pattern.text
    many = found[0] is trie.Reach.MORE_LABELS if found is not None else text.startswith("**.")
    rest = text.split(".", 1)[1] if many else text
    return [*reversed(rest), ".", *([_MANY, "."] if many else [])]


class _Subsets:
    """The construction: a state is the set of places that the bytes read so far can have led to."""

    def __init__(self, nodes: Sequence[_Node]) -> None:
        self._nodes = nodes
        self._numbers: dict[_Places, int] = {frozenset(): DEAD}
        self._order: list[_Places] = [frozenset()]
        self._work = 0

    def build(self) -> Dfa[trie.Content] | TooLarge:
        """Go on from sets of places that were come upon until there are no new ones, or too many."""
        self._number([self._nodes[0]])
        states = [State((DEAD,) * len(ALPHABET), trie.NOTHING)]
        while len(states) < len(self._order):
            places = self._order[len(states)]
            states.append(State(self._next(places), self._accepts(places)))
            if len(self._order) > STATES_MAX:
                return self._too_large(f"more than {STATES_MAX} states")
            if self._work > WORK_MAX:
                return self._too_large(f"more than {WORK_MAX} steps to build")
        return Dfa(tuple(states), self._work)

    def _next(self, places: _Places) -> tuple[int, ...]:
        """Follow every symbol from a set of places."""
        within: list[_Node] = []
        by_symbol: defaultdict[int, list[_Node]] = defaultdict(list)
        for number in places:
            node = self._nodes[number]
            if node.within_label:
                within.append(node)
            if node.across_labels:
                by_symbol[_SEPARATOR].append(node)
            for token, target in node.edges.items():
                if token not in _STAYING:
                    by_symbol[_BY_TOKEN[token]].append(target)
        self._work += len(places)
        row = [self._number(within)] * len(ALPHABET)
        row[_SEPARATOR] = DEAD
        for symbol, targets in by_symbol.items():
            row[symbol] = self._number(targets if symbol == _SEPARATOR else within + targets)
        return tuple(row)

    def _number(self, nodes: Sequence[_Node]) -> int:
        """Return the state of these places and of those that a `*` in front of nothing leads to."""
        reached = {node.number for node in nodes}
        for node in nodes:
            reached.update(node.edges[token].number for token in _STAYING if token in node.edges)
        self._work += len(reached)
        places = frozenset(reached)
        number = self._numbers.setdefault(places, len(self._order))
        if number == len(self._order):
            self._order.append(places)
        return number

    def _accepts(self, places: _Places) -> trie.Content:
        return frozenset(pattern for number in places for pattern in self._nodes[number].accepts)

    def _too_large(self, what: str) -> TooLarge:
        return TooLarge(f"{FOR_INFIX} would take {what}; {ADVICE}", self._work)
