"""Numbers are a function of the set of contents: order, repetition and history must not show."""

from __future__ import annotations

import itertools

from agent.model import numbers


def test_numbers_do_not_depend_on_order_or_repetition() -> None:
    contents = [b"a", b"b", b"c"]
    expected = numbers.assign(contents)
    for order in itertools.permutations(contents):
        assert numbers.assign([*order, b"a"]) == expected


def test_numbers_are_the_same_beside_other_contents() -> None:
    assert numbers.assign([b"a"])[b"a"] == numbers.assign([b"a", b"b"])[b"a"]


def test_numbers_start_where_asked_and_are_u32() -> None:
    first = 1 << 31  # half of all first attempts fall below
    assigned = numbers.assign([bytes([number]) for number in range(100)], first=first)
    assert all(first <= number < 1 << 32 for number in assigned.values())
    assert len(set(assigned.values())) == 100


def test_numbers_end_where_asked() -> None:
    last = 1 << 30  # three of four first attempts lie above
    assigned = numbers.assign([bytes([number]) for number in range(100)], last=last)
    assert all(numbers.FIRST <= number <= last for number in assigned.values())
    assert len(set(assigned.values())) == 100


def test_the_content_that_sorts_first_keeps_a_shared_digest() -> None:
    seen: dict[int, bytes] = {}
    for number in range(1 << 20):
        content = number.to_bytes(4, "big")
        digest = numbers.digest(content)
        if digest in seen:
            first, second = seen[digest], content
            break
        seen[digest] = content
    assigned = numbers.assign([second, first])
    assert assigned[first] == digest
    assert assigned[second] == numbers.digest(second, 1)
