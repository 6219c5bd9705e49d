"""The automaton decides what the obvious matcher does, and stays within its bounds or says why not."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fqdn import dfa, patterns, trie
from agent.model import fqdn
from tests.fqdn import naming


def built(*texts: str) -> dfa.Dfa[trie.Content]:
    automaton = dfa.build(map(patterns.parse_cilium_pattern, texts))
    assert isinstance(automaton, dfa.Dfa)
    return automaton


def walked(automaton: dfa.Dfa[trie.Content], name: str) -> set[str]:
    """Walk as the module's docstring tells the kernel to."""
    symbols = {byte: at for at, byte in enumerate(string.ascii_lowercase + string.digits + "-_")}
    state = 1
    for byte in trie.key(name):
        state = automaton.states[state].next[38 if byte == 0x80 else symbols[chr(byte)]]
        if not state:
            break
    return {pattern.text for pattern in automaton.states[state].accept}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("api.example.com", {"api.example.com", "*.example.com"}),
        ("a.b.example.com", set()),
        ("example.com", set()),
        ("a.b.cdn.net", {"**.cdn.net"}),
        ("cdn.net", set()),
        ("part-extra-ial.com", {"part*ial.com"}),
        ("part.ial.com", set()),
        ("b.s3.eu-west-1.amazonaws.com", {"*.s3.*.amazonaws.com"}),
        ("special-region1-service.api.cilium.io", {"special*service.api.cilium.io"}),
        ("region1-service.api.cilium.io", set()),
        ("api.example.com.evil.org", set()),
    ],
)
def test_one_walk_finds_every_pattern(name: str, found: set[str]) -> None:
    """Requirements F2, F3."""
    automaton = built(
        "api.example.com",
        "*.example.com",
        "**.cdn.net",
        "part*ial.com",
        "*.s3.*.amazonaws.com",
        "special*service.api.cilium.io",
    )
    assert walked(automaton, name) == found
    assert len(automaton.states) < 120


@naming.SPARING
@given(st.frozensets(naming.PATTERNS, max_size=6), naming.NAMES)
def test_a_walk_finds_what_matches(chosen: frozenset[fqdn.NamePattern], name: str) -> None:
    """Requirements F1, F2, F3: an automaton of any patterns, those of the trie included."""
    automaton = dfa.build(chosen)
    assert isinstance(automaton, dfa.Dfa)
    found = automaton.run(trie.key(name)) or frozenset()
    assert found == {pattern for pattern in chosen if patterns.matches(pattern, name)}


def test_the_same_patterns_give_the_same_automaton() -> None:
    chosen = naming.mixed_infixes(random.Random(2), 20)
    assert dfa.build(chosen) == dfa.build([*reversed(chosen), chosen[0]])


def test_without_patterns_there_are_no_states() -> None:
    nothing: dfa.Dfa[trie.Content] = dfa.Dfa()
    assert dfa.build([]) == nothing
    assert nothing.run(b"a\x80") is None


def test_states_and_symbols_fit_the_kernels_array() -> None:
    automaton = built("a*b.com", "**.x*.y")
    assert dfa.STATES_MAX <= 1 << 16
    assert len(dfa.ALPHABET) == 39
    assert automaton.states[dfa.DEAD] == dfa.State((dfa.DEAD,) * 39, frozenset())
    assert all(0 <= place < len(automaton.states) for state in automaton.states for place in state.next)


def zoned(zone: str, count: int, seed: int = 3) -> list[fqdn.NamePattern]:
    chance = random.Random(seed)
    return [patterns.parse_cilium_pattern(f"*{naming.word(chance)}*.{zone}") for _ in range(count)]


def test_ten_substrings_of_one_zone_are_too_many() -> None:
    """Requirement F4: the automaton has to remember which of them it has seen."""
    found = dfa.build(zoned("y.com", 10))
    assert isinstance(found, dfa.TooLarge)
    assert found.reason == (
        "the automaton for patterns with a * inside would take more than 2048 states; "
        "write fewer of them, or *.example.com and **.example.com, which cost nothing"
    )
    assert found.work < dfa.WORK_MAX


def test_ten_substrings_of_as_many_zones_are_few() -> None:
    """Requirement F4: read from its end, a name shows its zone first."""
    chance = random.Random(4)
    chosen = [one for seed in range(10) for one in zoned(f"{naming.word(chance)}.com", 1, seed)]
    found = dfa.build(chosen)
    assert isinstance(found, dfa.Dfa)
    assert len(found.states) < 400


def test_three_hundred_mixed_patterns_are_too_many() -> None:
    """Requirement F4."""
    found = dfa.build(naming.mixed_infixes(random.Random(5), 300))
    assert isinstance(found, dfa.TooLarge)
    assert "more than 2048 states" in found.reason


def test_work_is_bounded_where_states_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement F4: a state may stand for a great many places."""
    labels = [["*a*" if number >> place & 1 else "*" for place in range(6)] for number in range(64)]
    chosen = [patterns.parse_cilium_pattern(f"**.{'.'.join(each)}.x") for each in labels]
    whole = dfa.build(chosen)
    assert isinstance(whole, dfa.Dfa)
    assert whole.work > 20 * len(whole.states)
    monkeypatch.setattr(dfa, "WORK_MAX", whole.work // 2)
    found = dfa.build(chosen)
    assert isinstance(found, dfa.TooLarge)
    assert f"more than {whole.work // 2} steps" in found.reason


@pytest.mark.parametrize("text", ["*" + "a*" * 60 + ".com", "**." + "*a*." * 60 + "com", "**." + "*." * 120 + "com"])
def test_one_pattern_of_many_stars_is_built(text: str) -> None:
    """Requirement F3."""
    assert len(built(text).states) < dfa.STATES_MAX
