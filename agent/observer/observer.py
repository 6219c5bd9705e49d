"""The thread that reads the kernel's ring.

It reads whole batches and rests after each for as long as it took, so that a flood of events costs at most half a
core and never the event loop. Of a batch larger than BATCH only the newest are named and published; the others are
counted and readers are told. What the kernel could not even write into the ring is its own counter, looked at once a
second.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from agent import clock as clock_
from agent.model import verdict
from agent.observer import enrich, history, stream

BATCH = 4096
LOOK_NS = 1_000_000_000
"""How often the kernel's lost counter is read; also the longest wait for an event."""
REST_MOST_S = 0.05


class Reader(Protocol):
    """A datapath's event ring."""

    @property
    def fd(self) -> int:
        """Readable (poll) when there are events."""

    def read(self) -> Sequence[enrich.RawEvent]:
        """Return what is there, oldest first, without waiting."""


class Observer:
    """Ring to stream; `read_once` is the whole work, `run` repeats it in a thread."""

    def __init__(
        self,
        *,
        node: str,
        reader: Reader,
        kernel_lost: Callable[[], int],
        history: history.History,
        stream: stream.Stream,
        clock: clock_.Clock,
    ) -> None:
        """`kernel_lost` counts, since the programs were loaded, events that found the ring full."""
        self._node = node
        self._reader = reader
        self._kernel_lost = kernel_lost
        self._history = history
        self._stream = stream
        self._clock = clock
        self._stop = threading.Event()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._looked_ns = 0
        self._kernel_lost_before: int | None = None
        self.dropped = 0
        """Events dropped because the agent fell behind, or unknown to it."""

    async def run(self) -> None:
        """Read until cancelled."""
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="observer") as thread:
            reading = loop.run_in_executor(thread, self._read_until_stopped)
            try:
                await asyncio.shield(reading)
            finally:
                self._stop.set()
                os.eventfd_write(self._stop_fd, 1)

    def read_once(self) -> int:
        """Move what the ring holds into the stream; return how many events that were."""
        raw = self._reader.read()
        offset = self._clock.unix_ns() - self._clock.monotonic_ns()
        events = []
        dropped = max(0, len(raw) - BATCH)
        for one in raw[dropped:]:
            try:
                events.append(enrich.enrich(one, node=self._node, history=self._history, monotonic_to_unix_ns=offset))
            except ValueError:
                dropped += 1
        if dropped:
            self.dropped += dropped
            self._stream.tell_lost(verdict.Lost(count=dropped, where="queue"))
        if events:
            self._stream.publish(events)
        self._look_at_kernel()
        return len(raw)

    def _look_at_kernel(self) -> None:
        now = self._clock.monotonic_ns()
        if now - self._looked_ns < LOOK_NS:
            return
        self._looked_ns = now
        lost = self._kernel_lost()
        before, self._kernel_lost_before = self._kernel_lost_before, lost
        if before is not None and lost > before:
            self._stream.tell_lost(verdict.Lost(count=lost - before, where="ring"))

    def _read_until_stopped(self) -> None:
        poll = select.poll()
        poll.register(self._reader.fd, select.POLLIN)
        poll.register(self._stop_fd, select.POLLIN)
        while not self._stop.is_set():
            poll.poll(LOOK_NS / 1e6)
            began = self._clock.monotonic_ns()
            if self.read_once():
                self._stop.wait(min(REST_MOST_S, (self._clock.monotonic_ns() - began) / 1e9))
        os.close(self._stop_fd)
