"""What a rule tells the agent of a packet it logs: the text of `--nflog-prefix`.

The kernel carries the packet, its hook and this text, of at most 63 bytes. Who is to blame and which rule decided is
worked out in user space from the state of that generation (`verdicts`), so that no policy needs a log rule of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import re

GENERATIONS = 1 << 16
"""A prefix carries the generation modulo this."""
GROUP = 4710
"""The NFLOG group; only the agent listens to it."""
_TEXT = re.compile(r"nodewall ([0-9a-f]{1,4}) ([a-z]+)")


class Note(enum.Enum):
    """What happened to the packet."""

    ALLOWED = "allowed"
    """It opens a connection that both sides allow (or that concerns no endpoint)."""
    DENIED = "denied"
    """It goes the connection's original way, and one side denies."""
    REPLY_DENIED = "reply"
    """It goes the other way: its source is the server."""
    FORGED = "forged"
    """The source is not the sender's."""
    ERROR_FORGED = "error"
    """An ICMP error about a connection its sender is no end of."""
    UNJUDGED = "unjudged"
    """Somebody else's rule kept it from being judged, and it concerns an enforced endpoint."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prefix:
    """Note and generation (modulo GENERATIONS)."""

    generation: int
    note: Note

    def __str__(self) -> str:
        """Write it as iptables takes it."""
        return f"nodewall {self.generation % GENERATIONS:x} {self.note.value}"


def parse(text: str) -> Prefix | None:
    """Read a prefix; None: not ours."""
    found = _TEXT.fullmatch(text)
    if found is None or found[2] not in {note.value for note in Note}:
        return None
    return Prefix(int(found[1], 16), Note(found[2]))
