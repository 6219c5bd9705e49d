"""The ring buffer of verdicts, read in batches from user space.

The problem: a busy node makes 100 000 verdicts a second, and a callback for each costs more than the
verdict. The rule: map the ring (kernel documentation, bpf/ringbuf), copy what is ready at once and
unpack it in one pass; hand on tuples and let the observer decode what somebody asks for. A reader never
holds the datapath up: what does not fit is counted there (`events_lost`) and dropped.

One reader a ring: the consumer position is shared by all who map it.
"""

from __future__ import annotations

import contextlib
import mmap
import pathlib
import struct

from agent import errors
from agent.datapath.bpf import layout, syscalls

HEADER_BYTES = 8
BUSY = 1 << 31
DISCARDED = 1 << 30
RECORD = struct.Struct(f"=II{layout.EVENT.size}s")
RECORD_BYTES = HEADER_BYTES + layout.EVENT.size
"""Every record is one event, and 120 is a multiple of eight: records lie next to each other without gaps."""
BATCH_EVENTS = 8192


class EventReader:
    """Reads events since the last read; events of a time without a reader are still there, if they fitted."""

    def __init__(self, pin: pathlib.Path) -> None:
        """Map the pinned ring. Raises DatapathError."""
        with contextlib.ExitStack() as undo:
            try:
                self._descriptor = undo.enter_context(syscalls.owned(syscalls.open_pin(pin)))
                size = syscalls.map_info(self._descriptor).max_entries
                self._mask = size - 1
                self._consumer = undo.enter_context(mmap.mmap(self._descriptor, mmap.PAGESIZE))
                # The kernel offers the data pages twice in a row, for records that wrap; once costs half the memory.
                data = mmap.mmap(self._descriptor, mmap.PAGESIZE + size, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
                self._producer = undo.enter_context(data)
            except (OSError, ValueError) as error:
                raise errors.DatapathError(f"mapping the event ring {pin}: {error}") from error
            self._opened = undo.pop_all()
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._producer)[:8].cast("Q")

    @property
    def fd(self) -> int:
        """Becomes readable when events arrive."""
        return self._descriptor

    def read(self) -> list[layout.RawEvent]:
        """Return at most BATCH_EVENTS events, oldest first; empty: nothing is ready."""
        begin, end = self._consumed[0], self._produced[0]
        length = min(end - begin, BATCH_EVENTS * RECORD_BYTES)
        if not length:
            return []
        offset = mmap.PAGESIZE + (begin & self._mask)
        ready = self._producer[offset : offset + length]
        if len(ready) < length:
            ready += self._producer[mmap.PAGESIZE : mmap.PAGESIZE + length - len(ready)]
        events, used = _unpack(ready)
        self._consumed[0] = begin + used
        return events

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._consumed.release()
        self._produced.release()
        self._opened.close()


def _unpack(ready: bytes) -> tuple[list[layout.RawEvent], int]:
    """Return the events up to the first one still being written, and the bytes they take."""
    make, unpack = layout.RawEvent._make, layout.EVENT.unpack
    events: list[layout.RawEvent] = []
    used = 0
    for header, _, content in RECORD.iter_unpack(ready[: len(ready) // RECORD_BYTES * RECORD_BYTES]):
        if header & BUSY:
            break
        used += RECORD_BYTES
        if not header & DISCARDED:
            events.append(make(unpack(content)))
    return events, used
