"""Takes out of a bundle what must not leave the machine.

The problem: bundles are mailed around, and one elsewhere held keys (CVE-2024-37307). The rule has two halves. Nothing
is collected that is made to hold a secret (environment, kubeconfig, token, certificate): `items` is an allow-list. And
whatever text is collected loses all that looks like a secret: a library's error message may quote one.

On request (`labels`) values of labels become hashes, the same for the same value within one bundle and in no other, so
that what belongs together is still seen; texts that quote labels are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

GONE = "<redacted>"
PATTERNS = (
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{4,}\.[\w-]+\.?[\w-]*", re.ASCII),
    re.compile(r"(?<=//)[^/@\s]+(?=@)"),
    re.compile(
        r"""(?ix) (?<= \b )
        (?: authorization | bearer | [\w-]*token | password | passwd | [\w-]*secret | [\w-]*key-data | api-?key
          | certificate(-authority)?-data | client-certificate-data )
        \\?["']? \s* [:=\s] \s* \\?["']? (?: (?:bearer|basic) \s+ )?
        (?P<value> [^\s"',;}\\]{4,} )"""
    ),
)
"""PEM blocks, JSON web tokens, users in URLs, and values that are called secret."""
LABELS = frozenset({"labels", "namespace_labels", "annotations"})
TEXTS = frozenset({"subject", "text", "peer", "meaning", "because", "last_error", "repair_error"})
"""Keys of texts that may quote labels."""
PROBLEM = frozenset({"path", "reason"})
"""A problem has both, and its reason may quote what is wrong."""


class Redactor:
    """Redacts all of one bundle."""

    def __init__(self, *, key: bytes, labels: bool) -> None:
        """`key` is random and kept nowhere; `labels` asks for hashes in place of the values of labels."""
        self._key = key
        self.labels = labels

    def document(self, value: object) -> object:
        """Return what JSON can say, without secrets."""
        match value:
            case str():
                return scrub(value)
            case Mapping():
                return self._members(value)
            case list() | tuple():
                return [self.document(item) for item in value]
            case _:
                return value

    def _members(self, value: Mapping[object, object]) -> dict[str, object]:
        found: dict[str, object] = {}
        is_problem = value.keys() >= PROBLEM
        for key, item in value.items():
            if self.labels and key in LABELS and isinstance(item, Mapping):
                found[str(key)] = {scrub(str(name)): self.hashed(str(one)) for name, one in item.items()}
            elif self.labels and item and (key in TEXTS or (is_problem and key == "reason")):
                found[str(key)] = GONE
            else:
                found[scrub(str(key))] = self.document(item)
        return found

    def hashed(self, text: str) -> str:
        """Return what stands for `text` in this bundle."""
        digest = hashlib.blake2b(text.encode(errors="surrogateescape"), key=self._key, digest_size=6)
        return f"hash-{digest.hexdigest()}"


def scrub(text: str) -> str:
    """Return `text` without what looks like a secret."""
    for pattern in PATTERNS:
        text = pattern.sub(_without, text)
    return text


def _without(found: re.Match[str]) -> str:
    value = found.groupdict().get("value")
    return found[0].replace(value, GONE) if value is not None else GONE
