"""Names, on the wire and at random: few letters, so that what differs by one letter comes up often."""

from __future__ import annotations

import random
import string

import hypothesis
from hypothesis import strategies as st

from agent.fqdn import patterns
from agent.model import fqdn

SPARING = hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
"""A loaded machine must not fail a test."""
READ = {
    "matchName": patterns.parse_cilium_name,
    "matchPattern": patterns.parse_cilium_pattern,
    "domainNames": patterns.parse_cluster,
}
EVERY_NAME = patterns.parse_cilium_pattern("*")

_LETTERS = "ab-1_"
_LABELS = st.text(_LETTERS, min_size=1, max_size=3)
_STARRED = st.text(_LETTERS + "**", min_size=1, max_size=5)
NAMES = st.lists(_LABELS, min_size=1, max_size=5).map(".".join)
_TOPS = st.sampled_from(("a", "b", "a.b", "ab.b"))
CILIUM = st.one_of(
    st.builds("{}.{}".format, st.lists(st.one_of(_STARRED, _LABELS), min_size=1, max_size=3).map(".".join), _TOPS),
    st.builds("{}{}".format, st.sampled_from(("*.", "**.", "***.", "")), _TOPS),
    st.sampled_from(("*", "**.", "*.*", "**.*", "*.*.*")),
).map(patterns.parse_cilium_pattern)
CLUSTER = st.builds("{}a{}.{}".format, st.sampled_from(("*.", "*.b.", "")), st.sampled_from(("", "b")), _TOPS).map(
    patterns.parse_cluster
)
PATTERNS = st.one_of(CILIUM, CLUSTER)
HOSTILE = st.one_of(
    st.text(max_size=12),
    st.text("ab.\x80\x00İK*", max_size=12),
    st.builds("{}{}{}".format, NAMES, st.characters(), NAMES),
    NAMES.map(str.upper),
    NAMES.map("{}.".format),
    st.just("a" * 64 + ".a"),
    st.just("a." * 127 + "a"),
)


def word(chance: random.Random) -> str:
    """Draw a label as people write them."""
    return "".join(chance.choices(string.ascii_lowercase, k=chance.randint(4, 9)))


def many(chance: random.Random, count: int) -> list[fqdn.NamePattern]:
    """Draw `count` exact names and as many suffixes, of both dialects."""
    exact = [f"{word(chance)}.{word(chance)}.{chance.choice(('com', 'net'))}" for _ in range(count)]
    suffixes = [f"*.{word(chance)}.{word(chance)}.com" for _ in range(count)]
    return [
        *(patterns.parse_cilium_name(text) for text in exact[::2]),
        *(patterns.parse_cluster(text) for text in exact[1::2]),
        *(patterns.parse_cilium_pattern(text) for text in suffixes[::2]),
        *(patterns.parse_cluster(text) for text in suffixes[1::2]),
    ]


def mixed_infixes(chance: random.Random, count: int) -> list[fqdn.NamePattern]:
    """Draw patterns with a star inside, of every shape."""
    shapes = ("{}*.{}.com", "*.{}.*.{}.com", "*{}*.{}.net", "{}*{}.io", "**.{}-*.{}.org")
    return [
        patterns.parse_cilium_pattern(chance.choice(shapes).format(word(chance), word(chance))) for _ in range(count)
    ]


def wire(name: str) -> bytes:
    """Write a name as messages have it, the root byte included (RFC 1035 3.1)."""
    labels = name.encode("ascii").split(b".") if name else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
