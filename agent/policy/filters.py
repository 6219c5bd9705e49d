"""Filters: which names a pod may ask for, as the numbers that rows carry (rule E17).

The problem: rules that allow one flow unite what they let a pod ask for, and which of them do is known only where rows
are worked out. The rule: there, within one policy set, a pattern is a bit, so that a union is cheap and has one
spelling; at the end each union gets a number by what is in it, as policy sets do, so that it has the same one in every
set and beside every other policy. This module must not know rules, ports or peers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from agent.model import fqdn, numbers

Content: TypeAlias = frozenset[fqdn.NamePattern]
"""The patterns of the names that may be asked for."""
NOTHING: Content = frozenset()


class Bits:
    """The patterns of one policy set, a bit each."""

    def __init__(self, patterns: Iterable[fqdn.NamePattern]) -> None:
        """Give each pattern its bit; the order is theirs, so that rows do not depend on how they arrived."""
        self._order = sorted(set(patterns))
        self._bit = {pattern: 1 << place for place, pattern in enumerate(self._order)}

    def __bool__(self) -> bool:
        """Tell whether there is any: else rows have no filters."""
        return bool(self._order)

    def of(self, patterns: Iterable[fqdn.NamePattern]) -> int:
        """Return these patterns as bits."""
        return sum(self._bit[pattern] for pattern in set(patterns))

    def content(self, bits: int) -> Content:
        """Return the patterns that bits stand for."""
        return frozenset(pattern for place, pattern in enumerate(self._order) if bits >> place & 1)


def number(contents: Iterable[Content]) -> dict[Content, int]:
    """Give each union its number."""
    written = {
        content: repr([(one.dialect.value, one.text) for one in sorted(content)]).encode() for content in contents
    }
    assigned = numbers.assign(written.values())
    return {content: assigned[text] for content, text in written.items()}


def admitted(filters: Mapping[int, Content], classes: Mapping[int, Content]) -> dict[int, frozenset[int]]:
    """Return the classes of names that each filter lets pods ask for; patterns without a class admit nothing."""
    return {
        found: frozenset(class_ for class_, meant in classes.items() if not meant.isdisjoint(content))
        for found, content in filters.items()
    }
