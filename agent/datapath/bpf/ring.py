"""A ring buffer of the kernel's as user space maps it: the positions of its two ends, and what is between them.

The problem: a callback for each record (libbpf) costs more than most records are worth; and of a ring that is mapped
every page is resident, whether or not it is ever read: 6 MiB in every agent. The rule: map the ring as the kernel
documentation (bpf/ringbuf) lays it out, the positions for good, and of the data what is to be read, for as long as that
takes: some microseconds a batch. Reading is left to who knows the records. The page with the consumer's position is
writable and shared by all who map the ring: one reader a ring. Behind it are a page with the producer's position, and
the data pages, twice in a row so that no record which wraps has to be put together.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import time
from collections.abc import Iterator

from agent import errors
from agent.datapath.bpf import syscalls

HEADER_BYTES = 8
BUSY = 1 << 31
"""In a record's first word: it is still being written, and what is behind it may not be read yet."""
DISCARDED = 1 << 30
POSITIONS_BYTES = 2 * mmap.PAGESIZE
"""The consumer's page and the producer's; the data is behind them."""
PAUSE_S = 0.05
"""Before what could not be mapped is tried again: what is to be read stays readable, and its reader would spin."""


class Ring:
    """One mapped ring."""

    def __init__(self, descriptor: int, *, size: int) -> None:
        """Map the positions of the ring of `size` bytes that `descriptor` is of.

        The descriptor is the ring's from now on, whatever comes of it. Raises OSError, ValueError.
        """
        self.fd = descriptor
        self._mask = size - 1
        with contextlib.ExitStack() as undo:
            undo.enter_context(syscalls.owned(descriptor))
            consumer = undo.enter_context(mmap.mmap(descriptor, mmap.PAGESIZE))
            producer = undo.enter_context(self._map(mmap.PAGESIZE, mmap.PAGESIZE))
            self._opened = undo.pop_all()
        self._consumed = memoryview(consumer).cast("Q")
        self._produced = memoryview(producer).cast("Q")

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

    @contextlib.contextmanager
    def ready(self, most: int) -> Iterator[memoryview]:
        """Map what is written and not consumed, its first `most` bytes, for as long as the block takes.

        A record's header is to be read there before what is behind it. Nothing is ready where it cannot be mapped now:
        it waits, and what finds the ring full is counted in the kernel.
        """
        begin = self._consumed[0]
        length = min(self._produced[0] - begin, most)
        place = begin & self._mask
        within = place % mmap.PAGESIZE
        with contextlib.ExitStack() as opened:
            found = memoryview(b"")
            if length:
                try:
                    window = self._map(POSITIONS_BYTES + place - within, within + length)
                except OSError:
                    time.sleep(PAUSE_S)
                else:
                    found = memoryview(opened.enter_context(window))[within:]
            yield opened.enter_context(found)

    def _map(self, offset: int, length: int) -> mmap.mmap:
        return mmap.mmap(self.fd, length, prot=mmap.PROT_READ, offset=offset)

    def close(self) -> None:
        """Unmap; the ring goes on."""
        self._consumed.release()
        self._produced.release()
        self._opened.close()


def open_pinned(pin: pathlib.Path, *, what: str) -> Ring:
    """Map the pinned ring, for people a ring of `what`. Raises DatapathError."""
    try:
        descriptor = syscalls.open_pin(pin)
        try:
            size = syscalls.map_info(descriptor).max_entries
        except OSError:
            os.close(descriptor)
            raise
        return Ring(descriptor, size=size)
    except (OSError, ValueError) as error:
        raise errors.DatapathError(f"mapping the ring of {what} {pin}: {error}") from error
