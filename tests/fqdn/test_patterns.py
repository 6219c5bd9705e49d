"""What a policy may write as a name, and which names it matches, in both dialects."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors
from agent.fqdn import patterns
from agent.model import fqdn
from tests.fqdn import naming

CILIUM, CLUSTER = fqdn.Dialect.CILIUM, fqdn.Dialect.CLUSTER_NETWORK_POLICY
MATCHES = [
    # F1
    ("matchName", "example.com", "example.com Example.COM example.com. EXAMPLE.com.", "a.example.com com example.org"),
    ("matchName", "Example.com.", "example.com example.com.", "example.comx xexample.com example.com.."),
    ("matchPattern", "Example.com.", "EXAMPLE.com", "a.example.com"),
    ("domainNames", "eXample.com.", "example.COM. example.com", "a.example.com ample.com"),
    ("matchName", "localhost", "localhost", "local localhost.localdomain"),
    ("matchName", "_tcp.x.io", "_tcp.x.io", "tcp.x.io"),
    ("matchName", "xn--bcher-kva.example", "XN--BCHER-KVA.example", "bücher.example"),
    # F2
    ("domainNames", "*.example.com", "a.example.com a.b.example.com a.b.c.d.example.com", "example.com aexample.com"),
    ("matchPattern", "*.example.com", "a.example.com A.EXAMPLE.COM.", "example.com a.b.example.com .example.com"),
    ("matchPattern", "**.example.com", "a.example.com a.b.example.com", "example.com axexample.com"),
    ("matchPattern", "****.example.com", "a.example.com a.b.example.com", "example.com"),
    # F3
    ("matchPattern", "part*ial.com", "partial.com part-extra-ial.com part_1ial.com", "part.ial.com partial.com.org"),
    (
        "matchPattern",
        "*.s3.*.amazonaws.com",
        "b.s3.eu-west-1.amazonaws.com",
        "b.s3.amazonaws.com b.s3.a.b.amazonaws.com",
    ),
    ("matchPattern", "a**b.com", "ab.com axb.com", "a.b.com"),
    ("matchPattern", "**a.com", "a.com xxa.com", "x.a.com"),
    ("matchPattern", "x.**.com", "x.a.com", "x.a.b.com x.com"),
    ("matchPattern", "**.a*.com", "x.a.com x.y.abc.com", "a.com x.ba.com"),
    ("matchPattern", "*a*a*.com", "aa.com abac.com", "a.com ab.com"),
    ("matchPattern", "ab*ba.com", "abba.com abxba.com", "aba.com"),
    ("matchPattern", "*", "a a.b.c.d A_1-. .", "a..b .a é.com a\x80b a*b a/b"),
    ("matchPattern", "**", "a.b .", "a..b"),
    ("matchPattern", "*.", "a.b .", "a..b"),
    ("matchPattern", "***.", "a.b .", "a..b"),
    ("matchPattern", "*.*", "a.b", "a a.b.c"),
]


@pytest.mark.parametrize(("field", "text", "matching", "others"), MATCHES)
def test_a_pattern_matches_its_names_and_no_others(field: str, text: str, matching: str, others: str) -> None:
    """Requirements F1, F2, F3; rules D14, E15."""
    pattern = naming.READ[field](text)
    assert [name for name in matching.split() if not patterns.matches(pattern, name)] == []
    assert [name for name in others.split() if patterns.matches(pattern, name)] == []


def test_the_dialect_decides_what_one_text_means() -> None:
    """Requirement F2: one text, read from two API kinds, is two patterns."""
    theirs, ours = patterns.parse_cilium_pattern("*.x.com"), patterns.parse_cluster("*.x.com")
    assert theirs.text == ours.text
    assert theirs != ours
    assert (patterns.matches(theirs, "a.b.x.com"), patterns.matches(ours, "a.b.x.com")) == (False, True)


@pytest.mark.parametrize(
    ("read", "text", "canonical"),
    [
        (patterns.parse_cilium_name, "API.Example.com.", "api.example.com"),
        (patterns.parse_cilium_pattern, "API.example.com", "api.example.com"),
        (patterns.parse_cilium_pattern, "***.A**b.**.com.", "**.a*b.*.com"),
        (patterns.parse_cilium_pattern, "*a.**", "*a.*"),
        (patterns.parse_cilium_pattern, "**.**", "**.*"),
        (patterns.parse_cilium_pattern, "****", "*"),
        (patterns.parse_cluster, "*.Example.COM.", "*.example.com"),
        (patterns.parse_cluster, "_sip.a_b.example.com", "_sip.a_b.example.com"),
        (patterns.parse_cluster, "1.2", "1.2"),
    ],
)
def test_equal_patterns_have_one_text(read: Callable[[str], fqdn.NamePattern], text: str, canonical: str) -> None:
    """Requirement F1."""
    assert read(text).text == canonical


LONG = ".".join(["a" * 61] * 4) + ".abcdef"  # 254 characters
EVERYWHERE = [
    ("", "it names nothing; write a name"),
    (".", "it names nothing; write a name"),
    (LONG, "it has 254 characters and a DNS name at most 253; write a shorter one"),
    ("a." + "b" * 64 + ".com", "a label has 64 characters and may have 63; write a shorter one"),
    ("a..com", "a label is empty; write one dot between labels"),
    (".a.com", "a label is empty; write one dot between labels"),
    ("a.com..", "a label is empty; write one dot between labels"),
    ("a%.com", "'%' is in no host name; write only letters, digits, -, _ and dots"),
    ("a b.com", "' ' is in no host name"),
    (" a.com", "' ' is in no host name"),
    ("a.com\n", r"'\n' is in no host name"),
    ("a\x1b[31m.com", r"'\x1b' is in no host name"),
    ("https://a.com", "':' is in no host name"),
    ("a\x80b.com", r"'\x80' is not ASCII"),
    ("😀.com", r"'\U0001f600' is not ASCII; write the name as it is in DNS, each such label as xn--..."),
    ("\u212a8s.io", r"'\u212a' is not ASCII"),  # whose lower case is k
    *((f"{sign}a.com", "is in no host name") for sign in "[\\]^`"),
]
ONE_FIELD = [
    ("matchName", "*.a.com", "matchName takes no *; write it as matchPattern"),
    ("domainNames", "*", "* stands only for whole labels before a domain; write it first, as in *.example.com"),
    ("domainNames", "**.a.com", "* stands only for whole labels before a domain"),
    ("domainNames", "a*.a.com", "* stands only for whole labels before a domain"),
    ("domainNames", "a.*.com", "* stands only for whole labels before a domain"),
    ("domainNames", "*.*.com", "* stands only for whole labels before a domain"),
    ("domainNames", "a.com.*", "* stands only for whole labels before a domain"),
    ("domainNames", "com", "com has one label; write a domain of two or more, as in example.com"),
    ("domainNames", "com.", "com has one label"),
    ("domainNames", "*.com", "com has one label"),
    ("domainNames", "-a.com", "the label -a has to begin and end with a letter or a digit; correct it"),
    ("domainNames", "a-.com", "the label a- has to begin and end"),
    ("domainNames", "a.com_", "the label com_ has to begin and end"),
    ("matchPattern", "a*" * 64 + ".com", "a label has 64 characters and may have 63"),
]
REFUSED = [(field, text, remedy) for field in naming.READ for text, remedy in EVERYWHERE] + ONE_FIELD


@pytest.mark.parametrize(("field", "text", "remedy"), REFUSED)
def test_what_no_name_can_be_is_refused_with_what_to_write(field: str, text: str, remedy: str) -> None:
    """Requirement F4."""
    with pytest.raises(errors.InvalidInput) as refusal:
        naming.READ[field](text)
    assert refusal.value.field == field
    assert remedy in refusal.value.remedy
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("field", naming.READ)
def test_the_longest_name_is_taken(field: str) -> None:
    """Requirement F4: 253 characters and labels of 63."""
    longest = LONG[:-1]
    assert len(longest) == 253
    assert patterns.matches(naming.READ[field](longest + "."), longest)
    assert naming.READ[field]("a" * 63 + ".com")


def test_stars_do_not_count_as_characters_of_a_label() -> None:
    """Requirement F4: a `*` may stand for nothing."""
    assert patterns.matches(patterns.parse_cilium_pattern("*" + "a" * 63), "a" * 63)


def test_a_refusal_does_not_keep_a_hostile_value_whole() -> None:
    """Requirement F4."""
    with pytest.raises(errors.InvalidInput) as refusal:
        patterns.parse_cilium_pattern("%" * 10**6)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize(
    "name", ["a..b", ".a", "a.", "a\x80", "A.é", "a b", "\u212a8s.io", "İ.com", "a" * 64, LONG, "a*"]
)
def test_what_is_no_host_name_matches_nothing_or_is_folded(name: str) -> None:
    """Requirements F1, F3: the kernel learns nothing for such names, so no pattern may say that it would."""
    assert patterns.matches(naming.EVERY_NAME, name) == (name == "a.")


def test_many_stars_cost_no_more_than_a_few() -> None:
    """Requirement F3: a label is matched without going back."""
    pattern = patterns.parse_cilium_pattern("*a" * 31 + "b")
    begin = time.process_time()
    assert not patterns.matches(pattern, "a" * 63)
    assert patterns.matches(pattern, "a" * 40 + "b")
    assert time.process_time() - begin < 0.1


@naming.SPARING
@given(st.one_of(naming.HOSTILE, st.text("a.*-[ ", max_size=10)), st.sampled_from(sorted(naming.READ)))
def test_any_text_is_read_or_refused_and_reads_again_as_itself(text: str, field: str) -> None:
    """Requirement F4."""
    try:
        pattern = naming.READ[field](text)
    except errors.InvalidInput:
        return
    assert naming.READ[field](pattern.text) == pattern
    if pattern.exact:
        assert patterns.matches(pattern, pattern.text)


@naming.SPARING
@given(naming.PATTERNS, naming.HOSTILE)
def test_case_and_a_trailing_dot_of_a_name_mean_nothing(pattern: fqdn.NamePattern, name: str) -> None:
    """Requirement F1."""
    folded = patterns.canonical(name)
    if folded:
        for written in (folded, folded.upper(), f"{folded}."):
            assert patterns.matches(pattern, written) == patterns.matches(pattern, name)
    elif folded is None:
        assert not patterns.matches(pattern, name)
