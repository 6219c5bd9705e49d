"""Puts things that point at each other into columns, so that most arrows go from left to right.

Cycles are broken where it costs the least, by the rule of Eades, Lin and Smyth (1993): sinks go last, sources first,
and of the rest whoever gives more than it takes. A column is then the length of the longest way to it.
"""

from __future__ import annotations

import collections
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Thing = TypeVar("Thing", bound=Hashable)


def order(things: Sequence[Thing], weights: Mapping[tuple[Thing, Thing], int]) -> list[Thing]:
    """Return `things` in an order that has few arrows going back; equal ones keep their order."""
    out: dict[Thing, dict[Thing, int]] = {one: {} for one in things}
    into: dict[Thing, dict[Thing, int]] = {one: {} for one in things}
    for (source, target), weight in weights.items():
        if source != target and source in out and target in out:
            out[source][target] = into[target][source] = weight
    left: dict[Thing, None] = dict.fromkeys(things)
    first: list[Thing] = []
    last: collections.deque[Thing] = collections.deque()
    while left:
        chosen = next((one for one in reversed(left) if not out[one] and into[one]), None)
        if chosen is not None:
            last.appendleft(chosen)
        else:
            chosen = max(left, key=lambda one: (not into[one], sum(out[one].values()) - sum(into[one].values())))
            first.append(chosen)
        del left[chosen]
        for other in out.pop(chosen):
            into[other].pop(chosen, None)
        for other in into.pop(chosen):
            out[other].pop(chosen, None)
    return [*first, *last]


def columns(things: Sequence[Thing], weights: Mapping[tuple[Thing, Thing], int], *, most: int) -> list[list[Thing]]:
    """Return `things` in at most `most` columns, each in the order of `order`."""
    arranged = order(things, weights)
    place = {one: number for number, one in enumerate(arranged)}
    rank = dict.fromkeys(arranged, 0)
    ahead: dict[Thing, list[Thing]] = {one: [] for one in arranged}
    for source, target in weights:
        if source in place and target in place and place[source] < place[target]:
            ahead[source].append(target)
    for one in arranged:
        for target in ahead[one]:
            rank[target] = max(rank[target], rank[one] + 1)
    deepest = max(rank.values(), default=0)
    found: list[list[Thing]] = [[] for _ in range(min(deepest + 1, most))]
    for one in arranged:
        found[rank[one] if deepest < most else rank[one] * most // (deepest + 1)].append(one)
    return found if things else []
