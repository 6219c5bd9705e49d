"""What strangers wrote, made fit for a terminal: names, labels and process names reach it through here.

No control character (C0, DEL, C1), no line separator and no change of writing direction is printed as it is: each could
hide what stands beside it, or give the terminal orders.
"""

from __future__ import annotations

BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Overrides, embeddings and isolates: they show a line in an order other than its own."""
HOSTILE = frozenset(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *BIDI))


def escape(text: str) -> str:
    r"""Write control characters (C0, DEL, C1), line separators and bidi controls as \xNN or \uNNNN; keep the rest.

    >>> escape("web\x1b[31m")
    'web\\x1b[31m'
    """
    if HOSTILE.isdisjoint(text):
        return text
    return "".join(_escaped(character) if character in HOSTILE else character for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what two digits hold
