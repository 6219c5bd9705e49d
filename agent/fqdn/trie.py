"""Names and suffix wildcards as rows that one longest-prefix look-up on the reversed name decides.

The problem: the kernel has a question's name for a microsecond and cannot try patterns one by one. The rule: a name,
read from its end, has every domain above it as a prefix, so one look-up finds the nearest domain that a pattern speaks
of, and what all patterns above say is worked out here and stored in each row. Patterns with a `*` elsewhere are the
automaton's (`dfa`); this module must not be given any.

The key, exactly; the kernel builds the same from the answer (BPF_MAP_TYPE_LPM_TRIE):

    u32 prefixlen       bits, host byte order: 8 times the bytes used
    u8  reversed[256]   the most data a trie's key may have

A name on the wire (RFC 1035 3.1) without its root byte is n bytes, 0 to 254: a length, a label, a length, a label...
reversed[i] is byte n-1-i of it, A to Z folded to a to z, every length byte written as 0x80. So the last label comes
first, backwards, and 0x80 follows each label, the last one in the key too:

    api.example.com     m o c 80 e l p m a x e 80 i p a 80     n = 16, prefixlen = 128
    the root            nothing                                n = 0, prefixlen = 0

A byte of a label that is not one of a-z, 0-9, - and _ after folding makes the answer teach nothing, so that no label
can forge a 0x80. Bytes from n on are not compared; write them 0.

A row's key is the key of its domain, so it ends after a 0x80, or is empty: only `*` alone makes that row. Its value:

    u32 exact           the class of the name whose key this is
    u32 one_label       of names with exactly one more label
    u32 more_labels     of names with two or more labels more
    u32 labels          how many labels the row's own name has; 0 in the empty row

Look up the question with prefixlen 8 * n and count its labels, q. The row that is found has labels <= q; q - labels
chooses exact (0), one_label (1) or more_labels. Class 0, or no row: no pattern of this kind matches. Answers to
shorter rows never have to be added: a row says what its ancestors say.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from agent.fqdn import patterns
from agent.model import fqdn

SEPARATOR = 0x80
KEY_MAX = 256
"""Bytes of data in a key; a name needs 254 at most."""
ROOT = b""

Class = TypeVar("Class")
Content = frozenset[fqdn.NamePattern]
NOTHING: Content = frozenset()


class Reach(enum.Enum):
    """Which names around a domain a pattern matches."""

    ITSELF = enum.auto()
    ONE_LABEL = enum.auto()
    """Exactly one label more."""
    MORE_LABELS = enum.auto()
    """One label more, or several."""
    EVERY = enum.auto()
    """Whatever there is, the root included."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row(Generic[Class]):
    """What holds at a domain and below it, down to the next row."""

    labels: int
    """How many labels the domain has."""
    exact: Class
    one_label: Class
    more_labels: Class

    def of(self, labels: int) -> Class:
        """Return the class of a name with that many labels for which this is the nearest row."""
        return (self.exact, self.one_label, self.more_labels)[min(labels - self.labels, 2)]


_NO_ROW = Row(0, NOTHING, NOTHING, NOTHING)


def suffix(pattern: fqdn.NamePattern) -> tuple[Reach, str] | None:
    """Return what a row can say of a pattern: how far around which domain; None: only the automaton can."""
    if pattern.text == patterns.STAR:
        return Reach.EVERY, ""
    if pattern.text.startswith("**."):
        reach, domain = Reach.MORE_LABELS, pattern.text[3:]
    elif pattern.text.startswith("*."):
        cluster = pattern.dialect is fqdn.Dialect.CLUSTER_NETWORK_POLICY
        reach, domain = Reach.MORE_LABELS if cluster else Reach.ONE_LABEL, pattern.text[2:]
    else:
        reach, domain = Reach.ITSELF, pattern.text
    return None if patterns.STAR in domain else (reach, domain)


def key(name: str) -> bytes:
    """Return the bytes of a canonical name's key (see above)."""
    if not name:
        return ROOT
    return name[::-1].replace(".", "\x80").encode("latin-1") + bytes([SEPARATOR])


def rows(names: Iterable[fqdn.NamePattern]) -> dict[bytes, Row[Content]]:
    """Return the row of each domain that one of `names` speaks of, by its key; a `*` inside is a ValueError."""
    itself: defaultdict[bytes, set[fqdn.NamePattern]] = defaultdict(set)
    one: defaultdict[bytes, set[fqdn.NamePattern]] = defaultdict(set)
    more: defaultdict[bytes, set[fqdn.NamePattern]] = defaultdict(set)
    targets = {
        Reach.ITSELF: (itself,),
        Reach.ONE_LABEL: (one,),
        Reach.MORE_LABELS: (more,),
        Reach.EVERY: (itself, more),
    }
    for pattern in names:
        found = suffix(pattern)
        if found is None:
            message = f"no row can say what {pattern} matches"
            raise ValueError(message)
        reach, domain = found
        at = key(domain)
        for target in targets[reach]:
            target[at].add(pattern)
    built: dict[bytes, Row[Content]] = {}
    for at in sorted({*itself, *one, *more}):  # a domain sorts before what is below it
        labels = at.count(SEPARATOR)
        nearest = next((built[above] for above in _above(at) if above in built), _NO_ROW)
        deep = _union(more.get(at), nearest.more_labels)
        built[at] = Row(
            labels=labels,
            exact=_union(itself.get(at), nearest.of(labels)),
            one_label=_union(one.get(at), deep),
            more_labels=deep,
        )
    return built


def _above(at: bytes) -> Iterator[bytes]:
    """Yield the keys of the domains above one, the nearest first."""
    end = len(at) - 1
    while end >= 0:
        end = at.rfind(SEPARATOR, 0, end)
        yield at[: end + 1]


def _union(own: set[fqdn.NamePattern] | None, inherited: Content) -> Content:
    return inherited.union(own) if own else inherited


def find(table: Mapping[bytes, Row[Class]], at: bytes) -> Class | None:
    """Look a key up as the kernel does; None where no row is a prefix of it."""
    labels = at.count(SEPARATOR)
    for prefix in (at, *_above(at)):
        row = table.get(prefix)
        if row is not None:
            return row.of(labels)
    return None
