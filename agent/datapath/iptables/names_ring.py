"""What pods were told, on its way from the thread that holds packets to history: `base.Answers` in user space.

The rule is that of the kernel's ring: the writer never waits; what finds no room is counted and not told, and what was
learned of it is learned all the same.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterable, Sequence

from agent.datapath import base
from agent.datapath.iptables import names_reader

ANSWERS_MAX = 8192
BATCH = 1024


class Ring:
    """One thread writes, another reads."""

    def __init__(self) -> None:
        """Begin empty."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when there are answers."""
        self._waiting: collections.deque[base.Answer] = collections.deque()
        self.written = 0
        """Answers put in so far."""
        self.consumed = 0
        """Answers taken out so far."""
        self.lost = 0
        """Answers that found no room."""

    def put(self, told: Iterable[names_reader.Told]) -> None:
        """Tell these, as far as there is room."""
        before = self.written
        for one in told:
            if len(self._waiting) >= ANSWERS_MAX:
                self.lost += 1
            else:
                self._waiting.append(one)
                self.written += 1
        if self.written != before and self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def read(self) -> Sequence[base.Answer]:
        """Return some, oldest first; empty: there are none."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        found = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        self.consumed += len(found)
        if self._waiting:
            os.eventfd_write(self.fd, 1)
        return found

    def close(self) -> None:
        """Let go of the descriptor; safe to repeat."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
