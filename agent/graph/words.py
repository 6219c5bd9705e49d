"""Text of strangers made fit for a terminal, a picture or a page.

Labels, names and DNS answers are chosen by whoever runs a pod. What is not printable (control characters, marks that
turn the direction of writing, line separators, characters no font has) is written as its code. Escaping for a
language (XML, JSON, DOT) comes on top of it and is each writer's own.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable

from agent.model import net

ELLIPSIS = "…"
PROTOCOLS = {member.value: member.name for member in net.Protocol}


def plain(text: str) -> str:
    r"""Write what is not printable as its code, and keep the rest.

    >>> plain("web\x1b[31m")
    'web\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _code(one) for one in text)


def _code(character: str) -> str:
    """Unlike Python's escapes none has a name: a reader who sees one knows it is a code point."""
    code = ord(character)
    if code < 0x100:  # noqa: PLR2004 - what two digits hold
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - likewise four


def columns(text: str) -> int:
    """Return how many columns of a terminal printable text takes: East Asian letters two, marks above others none."""
    if text.isascii():
        return len(text)
    return sum(_columns(one) for one in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def fitted(text: str, most: int) -> str:
    """Return `text`, plain, in at most `most` columns: a middle that is cut keeps both ends to tell names apart."""
    text = plain(text)
    if columns(text) <= most:
        return text
    if most <= 1:
        return ELLIPSIS[: max(0, most)]
    head = (most - 1) * 2 // 3
    tail = most - 1 - head
    return _first(text, head) + ELLIPSIS + _first(text[::-1], tail)[::-1]


def _first(text: str, most: int) -> str:
    """Return as many characters of `text` as take `most` columns."""
    taken = itertools.accumulate(map(_columns, text))
    return text[: sum(1 for width in itertools.takewhile(lambda width: width <= most, taken))]


def padded(text: str, width: int) -> str:
    """Fill up to `width` columns."""
    return text + " " * max(0, width - columns(text))


def port(number: int | None, protocol: int | None) -> str:
    """Return `443/TCP`, `ICMP`, `any/TCP`, or `any port`."""
    if protocol is None:
        return "any port"
    name = PROTOCOLS.get(protocol, f"protocol {protocol}")
    if number is None:
        return f"any/{name}"
    return f"{number}/{name}" if number else name


def counted(number: int, one: str, several: str = "") -> str:
    """Return `1 pod` or `2 pods`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}".replace(",", " ")


def listed(texts: Iterable[str], most: int) -> str:
    """Join at most `most` of them, and say how many more there are."""
    every = list(texts)
    more = f" +{len(every) - most}" if len(every) > most else ""
    return ", ".join(every[:most]) + more
