"""Text and bytes that somebody hostile would send."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

WORDS: Sequence[str] = (
    "",
    "*",
    "/",
    "x/",
    "x/web",
    "a=b",
    "!a",
    "a in (b)",
    "app in (web,db),tier!=front",
    "k8s:app=web",
    "reserved:world",
    "10.0.0.0/8",
    "::/0",
    "fd00::2",
    "tcp",
    "80",
    "-1",
    "18446744073709551616",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe\u2066\u2069",
    "line\u2028sep\u2029",
    "\r\n\r\nHTTP/1.1 200",
    "\x00\x7f\x85",
    "</script><img src=x>",
    '"><svg onload=x>',
    "${title}%s{}",
    "ß名\U0001f600",
    "e\u0301" * 9,
    "[bold red]markup[/]",
)
ALPHABET = (
    "".join(map(chr, (*range(0x20), *range(0x21, 0x7F, 5), 0x7F, 0x85, 0x9B, 0x202E, 0x2066, 0x2028, 0x540D)))
    + "/:,=()*!-"
)
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What must not be printed: C0 but for the line's end, DEL, C1, separators of lines, overrides of direction."""


def text(choose: random.Random) -> str:
    """Return a word, noise, or several joined; now and then a long one."""
    kind = choose.random()
    if kind < 0.6:
        return WORDS[int(kind / 0.6 * len(WORDS))]
    if kind < 0.97:
        return "".join(choose.choices(ALPHABET, k=choose.randrange(14)))
    if kind < 0.999:
        return choose.choice((",", "", "/", "*")).join(choose.choices(WORDS, k=4))
    return choose.choice((*WORDS[1:], "(" * 9, "a,")) * choose.randrange(2000)


def tampered(choose: random.Random, content: bytes) -> bytes:
    """Return bytes with some changed, cut out, doubled or added."""
    found = bytearray(content) or bytearray(b"\x00")
    for _ in range(choose.randrange(1, 5)):
        place = choose.randrange(len(found) or 1)
        match choose.randrange(4):
            case 0 if found:
                found[place] = choose.randrange(256)
            case 1:
                del found[place : place + choose.randrange(1, 9)]
            case 2:
                found[place:place] = found[: choose.randrange(9)]
            case _:
                found[place:place] = choose.randbytes(choose.randrange(1, 6))
    return bytes(found)


def unprintable(text: str) -> str:
    """Return the first forbidden character of a printed text; "" where there is none."""
    found = FORBIDDEN.search(text)
    return found[0] if found else ""
