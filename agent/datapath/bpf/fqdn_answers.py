"""The ring of DNS answers, read in batches: what pods were told, for the history of names.

The rule is that of events.py, but records differ in length: each has its own in its header (kernel documentation,
bpf/ringbuf) and begins at a multiple of eight. What does not fit is counted by the kernel (`answers_lost`). One reader
a ring.
"""

from __future__ import annotations

import contextlib
import mmap
import pathlib
import struct

from agent import errors
from agent.datapath.bpf import events, fqdn_layout, syscalls

HEADER = struct.Struct("=II")
LENGTH = (1 << 30) - 1
ALIGNMENT = 8
BATCH_BYTES = 1 << 18


class AnswerReader:
    """Reads answers since the last read; those of a time without a reader are still there, if they fitted."""

    def __init__(self, pin: pathlib.Path) -> None:
        """Map the pinned ring. Raises DatapathError."""
        with contextlib.ExitStack() as undo:
            try:
                self._descriptor = undo.enter_context(syscalls.owned(syscalls.open_pin(pin)))
                size = syscalls.map_info(self._descriptor).max_entries
                self._mask = size - 1
                self._consumer = undo.enter_context(mmap.mmap(self._descriptor, mmap.PAGESIZE))
                # The data pages come twice in a row: no record has to be put together.
                length = mmap.PAGESIZE + 2 * size
                data = mmap.mmap(self._descriptor, length, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
                self._producer = undo.enter_context(data)
            except (OSError, ValueError) as error:
                raise errors.DatapathError(f"mapping the ring of answers {pin}: {error}") from error
            self._opened = undo.pop_all()
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._producer)[:8].cast("Q")

    @property
    def fd(self) -> int:
        """Becomes readable when answers arrive."""
        return self._descriptor

    @property
    def written(self) -> int:
        """How far the ring is written, in bytes since it was made; any thread may ask."""
        return self._produced[0]

    @property
    def consumed(self) -> int:
        """How far it is read, likewise."""
        return self._consumed[0]

    def read(self) -> list[fqdn_layout.Answer]:
        """Return some answers, oldest first; empty: nothing is ready."""
        begin, end = self._consumed[0], self._produced[0]
        at, end = begin, min(end, begin + BATCH_BYTES)
        answers: list[fqdn_layout.Answer] = []
        while at < end:
            place = mmap.PAGESIZE + (at & self._mask)
            header, _ = HEADER.unpack_from(self._producer, place)
            if header & events.BUSY:
                break
            length = header & LENGTH
            if not header & events.DISCARDED:
                content = self._producer[place + HEADER.size : place + HEADER.size + length]
                answers.append(fqdn_layout.decode_answer(content))
            at += (HEADER.size + length + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self._consumed[0] = at
        return answers

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._consumed.release()
        self._produced.release()
        self._opened.close()
