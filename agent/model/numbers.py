"""Numbers for content: u32 digests, so that one content has one number on every node and along every path.

A u32 is what map keys and values carry, and 2**32 is few: among ten thousand contents two share a digest
once in a hundred clusters. Then the one whose bytes sort first keeps the digest and the other takes the
digest of its next attempt, so the numbers are a function of the set of contents and of nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

FIRST = 2
"""0 means "none" in every map, and endpoint 1 is the self-test's (`bpf/include/types.h`, NW_ENDPOINT_PROBE)."""
LAST = (1 << 32) - 1


def assign(contents: Iterable[bytes], *, first: int = FIRST, last: int = LAST) -> dict[bytes, int]:
    """Give each of `contents` its own u32 from `first` to `last`."""
    numbers: dict[bytes, int] = {}
    taken: set[int] = set()
    for content in sorted(set(contents)):
        attempt = 0
        number = digest(content, attempt)
        while not first <= number <= last or number in taken:
            attempt += 1
            number = digest(content, attempt)
        taken.add(number)
        numbers[content] = number
    return numbers


def digest(content: bytes, attempt: int = 0) -> int:
    """Return a u32 of `content`; another one for every attempt."""
    salt = attempt.to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(content, digest_size=4, salt=salt).digest(), "little")
