"""Regular expressions of clients: RE2's syntax, bounded memory, and time that no pattern can blow up."""

from __future__ import annotations

import time

import pytest

from agent.hubble import expressions


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("", ["", "x"], []),
        (r"example\.com\.$", ["api.example.com.", "example.com."], ["example.com.org.", "examplexcom."]),
        (r"^(api|www)\.", ["api.example.com."], ["x.api.example.com."]),
        (r"(?i)API", ["api.", "aPi."], ["ap."]),
        (r"[[:alpha:]-]+", ["a-"], ["1"]),
    ],
)
def test_any_part_may_match(pattern: str, inside: list[str], outside: list[str]) -> None:
    matches = expressions.compiled(pattern)
    assert [matches(text) for text in inside] == [True] * len(inside)
    assert [matches(text) for text in outside] == [False] * len(outside)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a(", "missing"),
        ("(?=a)", "perl operator"),
        (r"(a)\1", "escape"),
        ("(a{100}){100}", "repetition"),
        ("((a{30}){30}b)" * 34, "too large"),
        ("a" * (expressions.LENGTH_MOST + 1), "512 are most"),
    ],
)
def test_what_re2_does_not_take_is_refused_with_the_reason(pattern: str, why: str) -> None:
    with pytest.raises(expressions.ExpressionError, match=why):
        expressions.compiled(pattern)


@pytest.mark.parametrize("pattern", ["(a|b)*a(a|b){100}", "(a*)*c", "(a?){120}a{120}$", "(.*.*.*){20}x"])
def test_no_expression_takes_long_for_any_name(pattern: str) -> None:
    """In a backtracking engine each of these takes longer than anybody waits; a name has 255 characters at most."""
    matches = expressions.compiled(pattern)
    begun = time.process_time()
    for _ in range(20):
        matches("a" * 255)
    assert time.process_time() - begun < 5
