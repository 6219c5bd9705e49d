"""A ring buffer of the kernel's as user space maps it: the positions of its two ends, and what is between them.

The problem: a callback for each record (libbpf) costs more than most records are worth. The rule: map the ring as the
kernel documentation (bpf/ringbuf) lays it out, and leave the reading to who knows the records. The page with the
consumer's position is writable and shared by all who map the ring: one reader a ring. Behind it are a page with the
producer's position, and the data pages, twice in a row so that no record which wraps has to be put together.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib

from agent import errors
from agent.datapath.bpf import syscalls

HEADER_BYTES = 8
BUSY = 1 << 31
"""In a record's first word: it is still being written, and what is behind it may not be read yet."""
DISCARDED = 1 << 30
DATA = mmap.PAGESIZE
"""Where records begin in `Ring.memory`."""


class Ring:
    """One mapped ring."""

    def __init__(self, descriptor: int, *, size: int, whole: bool) -> None:
        """Map the ring of `size` bytes that `descriptor` is of, which is the ring's from now on, whatever comes of it.

        Without `whole` the data pages are mapped once, which costs half the memory. Raises OSError, ValueError.
        """
        self.fd = descriptor
        self._mask = size - 1
        with contextlib.ExitStack() as undo:
            undo.enter_context(syscalls.owned(descriptor))
            consumer = undo.enter_context(mmap.mmap(descriptor, mmap.PAGESIZE))
            length = DATA + (2 * size if whole else size)
            memory = mmap.mmap(descriptor, length, prot=mmap.PROT_READ, offset=mmap.PAGESIZE)
            self.memory = undo.enter_context(memory)
            self._opened = undo.pop_all()
        self._consumed = memoryview(consumer).cast("Q")
        self._produced = memoryview(self.memory)[:8].cast("Q")

    @property
    def written(self) -> int:
        """How far it is written, in bytes since it was made; any thread may ask."""
        return self._produced[0]

    @property
    def consumed(self) -> int:
        """How far it is read, likewise; the kernel writes over what is before."""
        return self._consumed[0]

    @consumed.setter
    def consumed(self, until: int) -> None:
        self._consumed[0] = until

    def place(self, position: int) -> int:
        """Return where in `memory` a position is."""
        return DATA + (position & self._mask)

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._consumed.release()
        self._produced.release()
        self._opened.close()


def open_pinned(pin: pathlib.Path, *, what: str, whole: bool) -> Ring:
    """Map the pinned ring, for people a ring of `what`; see `Ring`. Raises DatapathError."""
    try:
        descriptor = syscalls.open_pin(pin)
        try:
            size = syscalls.map_info(descriptor).max_entries
        except OSError:
            os.close(descriptor)
            raise
        return Ring(descriptor, size=size, whole=whole)
    except (OSError, ValueError) as error:
        raise errors.DatapathError(f"mapping the ring of {what} {pin}: {error}") from error
