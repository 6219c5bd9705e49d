"""The ring buffer of verdicts, read in batches from user space.

The problem: a busy node makes 100 000 verdicts a second, and a callback for each costs more than the
verdict. The rule: map what is ready at once (`ring`) and unpack it in one pass; hand on tuples and let
the observer decode what somebody asks for. A reader never holds the datapath up: what does not fit is
counted there (`events_lost`) and dropped.

One reader a ring: the consumer position is shared by all who map it.
"""

from __future__ import annotations

import pathlib
import struct

from agent.datapath.bpf import layout, ring

RECORD = struct.Struct(f"=II{layout.EVENT.size}s")
RECORD_BYTES = ring.HEADER_BYTES + layout.EVENT.size
"""Every record is one event, and 120 is a multiple of eight: records lie next to each other without gaps."""
BATCH_EVENTS = 8192


class EventReader:
    """Reads events since the last read; events of a time without a reader are still there, if they fitted."""

    def __init__(self, pin: pathlib.Path) -> None:
        """Map the pinned ring. Raises DatapathError."""
        self._ring = ring.open_pinned(pin, what="verdicts")

    @property
    def fd(self) -> int:
        """Becomes readable when events arrive."""
        return self._ring.fd

    def read(self) -> list[layout.RawEvent]:
        """Return at most BATCH_EVENTS events, oldest first; empty: nothing is ready."""
        begin = self._ring.consumed
        with self._ring.ready(BATCH_EVENTS * RECORD_BYTES) as ready:
            events, used = _unpack(ready)
        self._ring.consumed = begin + used
        return events

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._ring.close()


def _unpack(ready: bytes | memoryview) -> tuple[list[layout.RawEvent], int]:
    """Return the events up to the first one still being written, and the bytes they take."""
    make, unpack = layout.RawEvent._make, layout.EVENT.unpack
    events: list[layout.RawEvent] = []
    used = 0
    for header, _, content in RECORD.iter_unpack(ready[: len(ready) // RECORD_BYTES * RECORD_BYTES]):
        if header & ring.BUSY:
            break
        used += RECORD_BYTES
        if not header & ring.DISCARDED:
            events.append(make(unpack(content)))
    return events, used
