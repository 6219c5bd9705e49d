"""Rows of names decide by one longest-prefix look-up what the obvious matcher decides pattern by pattern."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fqdn import patterns, trie
from agent.model import fqdn
from tests.fqdn import naming

SUFFIXES = naming.PATTERNS.filter(lambda pattern: trie.suffix(pattern) is not None)


def mirrored(name: str) -> bytes:
    """Make a key of a name on the wire as the module's docstring tells the kernel to."""
    message = naming.wire(name)[:-1]
    starts, at = set[int](), 0
    while at < len(message):
        starts.add(at)
        at += 1 + message[at]
    kept = bytes(0x80 if at in starts else byte for at, byte in enumerate(message.lower()))
    return kept[::-1]


def looked_up(table: dict[bytes, trie.Row[trie.Content]], name: str) -> trie.Content:
    """Look up as an LPM trie does, which knows nothing of labels; every prefix is of whole bytes."""
    wanted = mirrored(name)
    prefixes = [at for at in table if wanted.startswith(at)]
    if not prefixes:
        return trie.NOTHING
    row = table[max(prefixes, key=len)]
    deeper = (len(name.split(".")) if name else 0) - row.labels
    return row.exact if deeper == 0 else row.one_label if deeper == 1 else row.more_labels


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("api.example.com", b"moc\x80elpmaxe\x80ipa\x80"),
        ("com", b"moc\x80"),
        ("", b""),
        ("a.b", b"b\x80a\x80"),
    ],
)
def test_a_key_is_the_name_of_the_wire_from_its_end(name: str, key: bytes) -> None:
    assert trie.key(name) == mirrored(name) == key


def test_the_longest_name_fits_in_a_key() -> None:
    """Requirement F4."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(longest) == patterns.NAME_MAX
    assert len(trie.key(longest)) == 254 <= trie.KEY_MAX


@pytest.mark.parametrize(
    ("text", "field", "found"),
    [
        ("a.com", "matchName", (trie.Reach.ITSELF, "a.com")),
        ("*.a.com", "matchPattern", (trie.Reach.ONE_LABEL, "a.com")),
        ("*.a.com", "domainNames", (trie.Reach.MORE_LABELS, "a.com")),
        ("**.a.com", "matchPattern", (trie.Reach.MORE_LABELS, "a.com")),
        ("*", "matchPattern", (trie.Reach.EVERY, "")),
        ("*.com", "matchPattern", (trie.Reach.ONE_LABEL, "com")),
        ("*.*", "matchPattern", None),
        ("**.*", "matchPattern", None),
        ("a*.com", "matchPattern", None),
        ("*a.com", "matchPattern", None),
        ("a.*.com", "matchPattern", None),
    ],
)
def test_only_stars_of_whole_first_labels_are_suffixes(
    text: str, field: str, found: tuple[trie.Reach, str] | None
) -> None:
    """Requirements F2, F3."""
    assert trie.suffix(naming.READ[field](text)) == found


def test_a_row_says_what_the_domains_above_it_say() -> None:
    """Requirement F2: the nearest row alone is looked at."""
    exact = patterns.parse_cilium_name("b.example.com")
    one = patterns.parse_cilium_pattern("*.example.com")
    more = patterns.parse_cluster("*.example.com")
    rows = trie.rows([exact, one, more, naming.EVERY_NAME])
    every = frozenset({naming.EVERY_NAME})
    below = every | {more}
    assert rows == {
        b"": trie.Row(0, exact=every, one_label=every, more_labels=every),
        trie.key("example.com"): trie.Row(2, exact=every, one_label=below | {one}, more_labels=below),
        trie.key("b.example.com"): trie.Row(3, exact=below | {one, exact}, one_label=below, more_labels=below),
    }


def test_a_domain_ends_where_a_label_ends() -> None:
    """Requirement F2: notexample.com is not below example.com, nor is a name that only begins like another."""
    rows = trie.rows([patterns.parse_cluster("*.example.com"), patterns.parse_cluster("le.com")])
    for name in ("notexample.com", "www.notexample.com", "example.com.evil.org", "ple.com"):
        assert not trie.find(rows, trie.key(name))


def test_a_pattern_with_a_star_inside_has_no_row() -> None:
    """Requirement F3: that is the automaton's."""
    with pytest.raises(ValueError, match=r"a\*\.com"):
        trie.rows([patterns.parse_cilium_pattern("a*.com")])


@naming.SPARING
@given(st.frozensets(SUFFIXES, max_size=8), naming.NAMES)
def test_the_look_up_finds_what_matches(chosen: frozenset[fqdn.NamePattern], name: str) -> None:
    """Requirements F1, F2."""
    rows = trie.rows(chosen)
    expected = {pattern for pattern in chosen if patterns.matches(pattern, name)}
    assert looked_up(rows, name) == expected
    assert (trie.find(rows, trie.key(name)) or frozenset()) == expected


@naming.SPARING
@given(st.frozensets(SUFFIXES, min_size=1, max_size=8))
def test_names_next_to_a_pattern_are_told_apart(chosen: frozenset[fqdn.NamePattern]) -> None:
    """Requirement F2: the apex, one label below it, two, and a label that only ends alike."""
    rows = trie.rows(chosen)
    for pattern in chosen:
        domain = pattern.text.lstrip("*.")
        for name in (domain, f"a.{domain}", f"b.a.{domain}", f"a{domain}", ""):
            found = looked_up(rows, name.removesuffix("."))
            assert found == {one for one in chosen if patterns.matches(one, name)}


def test_rows_are_as_many_as_domains_and_none_is_longer_than_a_key() -> None:
    """Requirement F22."""
    chosen = naming.many(random.Random(1), 500)
    rows = trie.rows(chosen)
    assert len(rows) <= len(chosen)
    assert all(len(at) <= trie.KEY_MAX and at.count(trie.SEPARATOR) == row.labels for at, row in rows.items())
