"""Patterns in which `*` stands for any characters, compared in time that no pattern can blow up.

A filter comes from a client. A regular expression made from it could take exponential time in Python's engine, so no
regular expression is made: the last star is retried one character further on, and earlier ones never are (they have
matched as little as they can, which leaves the most to the rest).
"""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Tell whether the whole of `text` is like `pattern`; at most their lengths' product of steps."""
    at, place = 0, 0
    star, resume = -1, 0
    while at < len(text):
        if place < len(pattern) and pattern[place] == "*":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] == text[at]:
            at, place = at + 1, place + 1
        elif star >= 0:
            resume += 1
            at, place = resume, star + 1
        else:
            return False
    return not pattern[place:].strip("*")
