"""Classes: numbers for the sets of patterns that a name can match, all known before any name is seen.

The problem: the kernel learns an address for a name, and which rules that opens has to fit into a u32. The rule: a
class is a set of patterns, numbered by its content as policy sets are, so the number a name has does not change when
policies of other names come and go, and what was learned before stays true. There are as many classes as the trie's
rows and the automaton's states tell apart; nothing is worked out when a name comes.

A name has up to two classes, the trie's and the automaton's, and the kernel stores both. Their union would be a third
number for every pair that some name can have, a table to find it by, and a change of numbers for names that matched
all along; and as classes only ever allow, two that are looked up one after the other open what their union opens.

Patterns come in groups, one for each policy, as the automaton has room for so many. Groups that take fewer states go
first, whatever their order; the patterns of the others are refused, each with a reason, and match nothing: a policy
nobody can build must not close other people's. This module must not know policies or rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from agent.fqdn import dfa, patterns, trie
from agent.model import fqdn, identity, numbers

NONE = 0
"""No class: nothing is learned."""
WORK_IN_ALL = 4 * dfa.WORK_MAX
"""Steps for trying groups one by one; only patterns that are made to be too large come near it."""
_TOO_MUCH_WORK = f"{dfa.FOR_INFIX} would take too many steps to build; {dfa.ADVICE}"
_Group: TypeAlias = tuple[fqdn.NamePattern, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Which class every name has: the kernel's tables, and what its numbers mean."""

    rows: Mapping[bytes, trie.Row[int]] = dataclasses.field(default_factory=dict)
    """By key, see `trie`; NONE where nothing matches."""
    automaton: dfa.Dfa[int] = dataclasses.field(default_factory=dfa.Dfa)
    """See `dfa`; without states there is nothing to walk."""
    contents: Mapping[int, trie.Content] = dataclasses.field(default_factory=dict)
    """The patterns of each class."""
    refused: Mapping[fqdn.NamePattern, str] = dataclasses.field(default_factory=dict)
    """Patterns that match nothing because the automaton has no room, each with what is wrong and what to write."""

    def of(self, name: str) -> tuple[int, ...]:
        """Return the classes of a question's name, none, one or two; none for what is no host name."""
        folded = patterns.canonical(name)
        if folded is None:
            return ()
        at = trie.key(folded)
        return tuple(number for number in (trie.find(self.rows, at), self.automaton.run(at)) if number)

    def patterns_of(self, name: str) -> trie.Content:
        """Return the patterns that match a question's name."""
        return trie.NOTHING.union(*(self.contents[number] for number in self.of(name)))


def build(groups: Iterable[Iterable[fqdn.NamePattern]]) -> Classes:
    """Work out the classes of all patterns in `groups`, one group for each policy."""
    by_suffix: set[fqdn.NamePattern] = set()
    infix: set[trie.Content] = set()
    for group in groups:
        found = frozenset(group)
        rest = frozenset(pattern for pattern in found if trie.suffix(pattern) is None)
        by_suffix |= found - rest
        if rest:
            infix.add(rest)
    rows = trie.rows(by_suffix)
    automaton, refused = _admit(infix)
    found_classes = {content for row in rows.values() for content in (row.exact, row.one_label, row.more_labels)}
    found_classes |= {state.accept for state in automaton.states}
    number = _numbers(found_classes)
    return Classes(
        rows={
            at: trie.Row(row.labels, number[row.exact], number[row.one_label], number[row.more_labels])
            for at, row in rows.items()
        },
        automaton=dfa.Dfa(
            tuple(dfa.State(state.next, number[state.accept]) for state in automaton.states), automaton.work
        ),
        contents={found: content for content, found in number.items() if found != NONE},
        refused=refused,
    )


class Remembered:
    """Builds classes, and gives the last ones again while the groups are the same.

    For twenty thousand patterns that takes half a second, which not every pod that comes shall wait for.
    """

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._groups: frozenset[trie.Content] = frozenset()
        self._built = Classes()

    def build(self, groups: Iterable[Iterable[fqdn.NamePattern]]) -> Classes:
        """Return what `build` returns."""
        asked = frozenset(map(frozenset, groups))
        if asked != self._groups:
            self._built, self._groups = build(asked), asked
        return self._built


def _numbers(contents: Iterable[trie.Content]) -> dict[trie.Content, int]:
    """Give sets of patterns their numbers, by what is in them; the empty one is NONE."""
    written = {
        content: repr(sorted((pattern.dialect.value, pattern.text) for pattern in content)).encode()
        for content in contents
        if content
    }
    assigned = numbers.assign(written.values(), first=identity.FIRST_NAME_CLASS)
    return {trie.NOTHING: NONE} | {content: assigned[text] for content, text in written.items()}


def _admit(groups: set[trie.Content]) -> tuple[dfa.Dfa[trie.Content], dict[fqdn.NamePattern, str]]:
    """Build one automaton of all groups, else of as many as it has room for; also return what is refused, and why."""
    everything = dfa.build(_joined(groups))
    if isinstance(everything, dfa.Dfa):
        return everything, {}
    alone, reasons = _alone(groups)
    automaton, count = _longest([group for _, group in alone])
    for _, group in alone[count:]:
        reasons.append((group, f"{dfa.FOR_INFIX} is full of those of policies that take less room; {dfa.ADVICE}"))
    admitted = set(_joined(group for _, group in alone[:count]))
    return automaton, {
        pattern: reason for group, reason in sorted(reasons) for pattern in group if pattern not in admitted
    }


def _alone(groups: Iterable[trie.Content]) -> tuple[list[tuple[int, _Group]], list[tuple[_Group, str]]]:
    """Return the states that each group takes alone, fewest first; apart from these, why some cannot be built."""
    found: list[tuple[int, _Group]] = []
    reasons: list[tuple[_Group, str]] = []
    work = 0
    for group in sorted(map(_ordered, groups), key=_length):
        built = dfa.build(group) if work <= WORK_IN_ALL else dfa.TooLarge(_TOO_MUCH_WORK, 0)
        work += built.work
        if isinstance(built, dfa.TooLarge):
            reasons.append((group, built.reason))
        else:
            found.append((len(built.states), group))
    return sorted(found), reasons


def _ordered(group: trie.Content) -> _Group:
    return tuple(sorted(group))


def _length(group: _Group) -> tuple[int, _Group]:
    return sum(len(pattern.text) for pattern in group), group


def _longest(groups: Sequence[_Group]) -> tuple[dfa.Dfa[trie.Content], int]:
    """Find how many of `groups`, from the first, one automaton holds; more patterns never take fewer states."""
    best: dfa.Dfa[trie.Content] = dfa.Dfa()
    holds, too_many = 0, len(groups) + 1
    while too_many - holds > 1:
        attempt = (holds + too_many) // 2
        built = dfa.build(_joined(groups[:attempt]))
        if isinstance(built, dfa.TooLarge):
            too_many = attempt
        else:
            best, holds = built, attempt
    return best, holds


def _joined(groups: Iterable[Iterable[fqdn.NamePattern]]) -> Iterator[fqdn.NamePattern]:
    return (pattern for group in groups for pattern in group)
