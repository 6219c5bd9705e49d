"""Patterns with stars against a regular expression, and against time."""

from __future__ import annotations

import itertools
import re

from agent.hubble import globs


def test_a_pattern_matches_what_its_regular_expression_does() -> None:
    texts = ["".join(letters) for size in range(5) for letters in itertools.product("ab", repeat=size)]
    patterns = ["".join(letters) for size in range(5) for letters in itertools.product("ab*", repeat=size)]
    for pattern in patterns:
        expression = re.compile(pattern.replace("*", ".*"))
        for text in texts:
            assert globs.matches(pattern, text) is (expression.fullmatch(text) is not None), (pattern, text)


def test_nothing_but_a_star_is_special() -> None:
    assert globs.matches("a?[b].c", "a?[b].c")
    assert not globs.matches("a?", "ab")


def test_a_hostile_pattern_takes_no_longer_than_the_product_of_the_lengths() -> None:
    assert not globs.matches("*a" * 500 + "b", "a" * 2000)
