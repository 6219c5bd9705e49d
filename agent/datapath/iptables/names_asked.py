"""Questions that pods have asked and nobody has answered yet.

An answer teaches what its question asked for, and only once: another number, port, resolver or name, or a second copy,
is somebody else's word (requirements F11, F13). Whoever asks is hostile, too: the table is bounded, and what was asked
first goes first, and is counted.
"""

from __future__ import annotations

from collections.abc import Hashable

from agent.fqdn import message

ASKED_MAX = 16_384
IS_ANSWER_BYTE = 2
LABEL_MAX = 63
NAME_MAX = 255


class Asked:
    """Remembers questions by who asked whom with which number; for one thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self._questions: dict[Hashable, bytes] = {}
        self.evicted = 0
        """Questions that were forgotten unanswered, for ASKED_MAX."""

    def ask(self, key: Hashable, question: bytes) -> None:
        """Remember a question; of two with one key the last."""
        self._questions.pop(key, None)
        if len(self._questions) >= ASKED_MAX:
            self.evicted += 1
            del self._questions[next(iter(self._questions))]
        self._questions[key] = question

    def answered(self, key: Hashable, question: bytes) -> bool:
        """Tell whether this was asked, and forget it; an answer to another question leaves it open."""
        if self._questions.get(key) != question:
            return False
        del self._questions[key]
        return True

    def __len__(self) -> int:
        """Count those that are open."""
        return len(self._questions)


def is_answer(content: bytes) -> bool:
    """Tell whether a message is an answer."""
    return len(content) > IS_ANSWER_BYTE and bool(content[IS_ANSWER_BYTE] & (message.IS_ANSWER >> 8))


def number_of(content: bytes) -> bytes:
    """Return the number that an answer has from its question."""
    return content[:2]


def question_of(content: bytes) -> bytes | None:
    """Return name, type and class of a message's one question, the name in lower case; None: there is no such thing."""
    if len(content) < message.HEADER.size or message.HEADER.unpack_from(content)[2] != 1:
        return None
    at = message.HEADER.size
    while at < len(content) and content[at]:
        if content[at] > LABEL_MAX:
            return None
        at += 1 + content[at]
    at += 1
    end = at + message.QUESTION.size
    if end > len(content) or at - message.HEADER.size > NAME_MAX:
        return None
    return content[message.HEADER.size : at].lower() + content[at:end]
