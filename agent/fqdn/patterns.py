r"""What a name or pattern in a policy may be, and which names it matches.

The problem: two dialects write different things alike, and both CRDs let pass what no resolver answers. The rule:

    ClusterNetworkPolicy   example.com       itself only, at least two labels
                           *.example.com     one or more labels before it, never itself
    CiliumNetworkPolicy    example.com       itself only (matchName, or matchPattern without *)
                           *                 in a label: any number of its characters, also none, never a dot
                           **.example.com    at its beginning: one or more whole labels; elsewhere ** is *
                           *                 alone: every name, and the root

Case and a trailing dot mean nothing (requirement F1). Characters are a-z, 0-9, - and _, the same that the kernel takes
in an answer: a name with any other matches no pattern at all, not even `*`. Folding is ASCII's alone; Unicode has
letters outside it whose lower case is inside.

A ClusterNetworkPolicy's CRD also lets [ \ ] ^ _ ` begin a label, by a slip in its expression: all are refused here but
`_`, which DNS uses so (requirement F4).

`matches` is slow and obvious: the evaluator judges by it and the tests measure the trie and the automaton against it.
It shares nothing with them.
"""

from __future__ import annotations

import re

from agent import errors
from agent.model import fqdn

NAME_MAX = 253
"""Characters of a name without its trailing dot: 255 bytes on the wire (RFC 1035 2.3.4)."""
LABEL_MAX = 63
STAR = "*"
SHOWN_MAX = 80
"""Characters of a refused value that an error keeps."""

_LABEL = re.compile(r"[-a-z0-9_]+")
_FOREIGN = re.compile(r"[^-A-Za-z0-9_.*]")
_STARS = re.compile(r"\*+")
_ONLY_STARS = re.compile(r"\*+")
_ANY_DEPTH = re.compile(r"\*{2,}\.")


def parse_cilium_name(text: str) -> fqdn.NamePattern:
    """Read toFQDNs' matchName; raises errors.InvalidInput whose remedy says what is wrong and what to write."""
    reading = _Reading("matchName", text, "api.example.com")
    if STAR in text:
        raise reading.refused("matchName takes no *; write it as matchPattern")
    return fqdn.NamePattern(fqdn.Dialect.CILIUM, reading.folded())


def parse_cilium_pattern(text: str) -> fqdn.NamePattern:
    """Read toFQDNs' matchPattern; raises as `parse_cilium_name` does."""
    folded = _Reading("matchPattern", text, "*.example.com").folded()
    if _ONLY_STARS.fullmatch(folded):
        return fqdn.NamePattern(fqdn.Dialect.CILIUM, STAR)
    deep = _ANY_DEPTH.match(folded)
    rest = _STARS.sub(STAR, folded[deep.end() :] if deep else folded)
    return fqdn.NamePattern(fqdn.Dialect.CILIUM, f"**.{rest}" if deep else rest)


def parse_cluster(text: str) -> fqdn.NamePattern:
    """Read one of domainNames; raises as `parse_cilium_name` does."""
    reading = _Reading("domainNames", text, "api.example.com or *.example.com")
    folded = reading.folded()
    domain = folded.removeprefix("*.")
    if STAR in domain:
        raise reading.refused("* stands only for whole labels before a domain; write it first, as in *.example.com")
    labels = domain.split(".")
    if len(labels) == 1:
        raise reading.refused(f"{domain} has one label; write a domain of two or more, as in example.com")
    for label in labels:
        if label.startswith("-") or label.endswith(("-", "_")):
            raise reading.refused(f"the label {label} has to begin and end with a letter or a digit; correct it")
    return fqdn.NamePattern(fqdn.Dialect.CLUSTER_NETWORK_POLICY, folded)


class _Reading:
    """The checks that both dialects share, of one text."""

    def __init__(self, field: str, text: str, example: str) -> None:
        self._field = field
        self._text = text
        self._example = example

    def refused(self, remedy: str) -> errors.InvalidInput:
        """Build the refusal; a hostile value is not kept whole."""
        shown = self._text if len(self._text) <= SHOWN_MAX else f"{self._text[:SHOWN_MAX]}..."
        return errors.InvalidInput(field=self._field, value=shown, remedy=remedy)

    def folded(self) -> str:
        """Return the text in lower case without trailing dot, `*` still in it."""
        bare = self._text.removesuffix(".")
        if not bare:
            raise self.refused(f"it names nothing; write a name, as in {self._example}")
        if len(bare) > NAME_MAX:
            raise self.refused(f"it has {len(bare)} characters and a DNS name at most {NAME_MAX}; write a shorter one")
        foreign = _FOREIGN.search(bare)
        if foreign is not None:
            raise self.refused(_foreign(foreign[0]))
        for label in bare.split("."):
            if not label:
                raise self.refused("a label is empty; write one dot between labels and none before the first")
            literal = len(label) - label.count(STAR)
            if literal > LABEL_MAX:
                raise self.refused(f"a label has {literal} characters and may have {LABEL_MAX}; write a shorter one")
        return bare.lower()


def _foreign(character: str) -> str:
    if not character.isascii():
        return f"{character!a} is not ASCII; write the name as it is in DNS, each such label as xn--..."
    return f"{character!r} is in no host name; write only letters, digits, -, _ and dots"


def canonical(name: str) -> str | None:
    """Return a name in lower case without trailing dot, "" for the root; None for what is no host name."""
    bare = name.removesuffix(".")
    if not bare:
        return ""
    if len(bare) > NAME_MAX or not bare.isascii():
        return None
    folded = bare.lower()
    labels = folded.split(".")
    if all(len(label) <= LABEL_MAX and _LABEL.fullmatch(label) for label in labels):
        return folded
    return None


def matches(pattern: fqdn.NamePattern, name: str) -> bool:
    """Tell whether `pattern` matches the question name `name` (requirements F1 to F3)."""
    folded = canonical(name)
    if folded is None:
        return False
    if pattern.text == STAR:
        return True
    labels = folded.split(".")
    if pattern.dialect is fqdn.Dialect.CLUSTER_NETWORK_POLICY:
        many, wanted = pattern.text.startswith("*."), pattern.text.removeprefix("*.").split(".")
    else:
        many, wanted = pattern.text.startswith("**."), pattern.text.removeprefix("**.").split(".")
    if len(labels) <= len(wanted) if many else len(labels) != len(wanted):
        return False
    return all(_matches_label(one, label) for one, label in zip(wanted, labels[-len(wanted) :], strict=True))


def _matches_label(wanted: str, label: str) -> bool:
    """Match `*` to any characters: what comes before the first and after the last, the rest as early as can be."""
    first, *rest = wanted.split(STAR)
    if not rest:
        return label == wanted
    *inner, last = rest
    if not label.startswith(first):
        return False
    at = len(first)
    for piece in inner:
        found = label.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(label) - at >= len(last) and label.endswith(last)
