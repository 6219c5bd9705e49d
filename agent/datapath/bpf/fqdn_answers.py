"""The ring of DNS answers, read in batches: what pods were told, for the history of names.

The rule is that of events.py, but records differ in length: each has its own in its header (kernel documentation,
bpf/ringbuf) and begins at a multiple of eight. What does not fit is counted by the kernel (`answers_lost`). One reader
a ring.
"""

from __future__ import annotations

import pathlib
import struct

from agent.datapath.bpf import fqdn_layout, ring

HEADER = struct.Struct("=II")
LENGTH = (1 << 30) - 1
ALIGNMENT = 8
BATCH_BYTES = 1 << 18


class AnswerReader:
    """Reads answers since the last read; those of a time without a reader are still there, if they fitted."""

    def __init__(self, pin: pathlib.Path) -> None:
        """Map the pinned ring. Raises DatapathError."""
        self._ring = ring.open_pinned(pin, what="answers")

    @property
    def fd(self) -> int:
        """Becomes readable when answers arrive."""
        return self._ring.fd

    @property
    def written(self) -> int:
        """How far the ring is written, in bytes since it was made; any thread may ask."""
        return self._ring.written

    @property
    def consumed(self) -> int:
        """How far it is read, likewise."""
        return self._ring.consumed

    def read(self) -> list[fqdn_layout.Answer]:
        """Return some answers, oldest first; empty: nothing is ready."""
        begin = self._ring.consumed
        with self._ring.ready(BATCH_BYTES) as ready:
            answers, used = _unpack(ready)
        self._ring.consumed = begin + used
        return answers

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._ring.close()


def _unpack(ready: bytes | memoryview) -> tuple[list[fqdn_layout.Answer], int]:
    """Return the answers up to the first one still being written, or cut off by the batch, and the bytes they take."""
    answers: list[fqdn_layout.Answer] = []
    used = 0
    while used < len(ready):
        header, _ = HEADER.unpack_from(ready, used)
        begin, length = used + HEADER.size, header & LENGTH
        end = begin + (length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        if header & ring.BUSY or end > len(ready):
            break
        if not header & ring.DISCARDED:
            answers.append(fqdn_layout.decode_answer(bytes(ready[begin : begin + length])))
        used = end
    return answers, used
