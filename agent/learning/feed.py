"""The thread that reads the kernel's ring of DNS answers.

It reads each message and puts what it tells, in batches, on a bounded queue; the event loop takes them from there. It
rests between batches as the observer does, for a busy node's pods ask some thousand questions a second. Nothing is
dropped here: where the queue is full the thread waits, and what then finds the ring full the kernel counts
(`answers_lost`): the address is learned all the same, only a policy that comes later does not find its name.

A batch says how far in the ring it reaches, so that whoever has to know everything up to now can wait for that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import NamedTuple

from agent.datapath import base
from agent.fqdn import message
from agent.model import fqdn

BATCHES = 64
"""Of a ring's quarter each at most: more than it holds."""
LOOK_MS = 1000
GATHER_MS = 40
"""Longest that an answer waits for others; whoever waits for it ends that (`wake`)."""
FULL_S = 0.05


class Batch(NamedTuple):
    """Some answers, oldest first."""

    until: int
    """Everything in the ring before this place is in here, or was in a batch before."""
    answered: tuple[fqdn.Answered, ...]
    refused: tuple[base.Answer, ...] = ()
    """Queries, and what else a filter of names did not admit."""


class Feed:
    """Ring to queue; `read_once` is the whole work, `run` repeats it in a thread."""

    def __init__(self, ring: base.Answers) -> None:
        """Read nothing yet."""
        self._ring = ring
        self._until = ring.consumed
        self._queue: queue.Queue[Batch] = queue.Queue(maxsize=BATCHES)
        self._stop = threading.Event()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._waking = threading.Lock()
        self.read = 0
        """Answers read since the start."""
        self.waited = 0
        """Times that a batch found the queue full."""

    @property
    def written(self) -> int:
        """How far the ring is written; a batch that reaches there has all of it."""
        return self._ring.written

    @property
    def consumed(self) -> int:
        """How far the ring was read when this was made, or is now."""
        return self._until

    def wake(self) -> None:
        """Have the thread look now; any thread may."""
        with self._waking:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    async def run(self, take: Callable[[Batch], object]) -> None:
        """Read until cancelled; `take` is given each batch on the event loop."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        tell = functools.partial(loop.call_soon_threadsafe, arrived.set)
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="answers") as thread:
            reading = loop.run_in_executor(thread, self._read_until_stopped, tell)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._take(arrived, take), name="taking answers")
                    await asyncio.shield(reading)
            finally:
                self._stop.set()
                self.wake()

    async def _take(self, arrived: asyncio.Event, take: Callable[[Batch], object]) -> None:
        while True:
            await arrived.wait()
            arrived.clear()
            with contextlib.suppress(queue.Empty):
                while True:
                    take(self._queue.get_nowait())

    def read_once(self) -> Batch | None:
        """Read what the ring holds; None: nothing."""
        raw = self._ring.read()
        until = self._ring.consumed
        if until == self._until:
            return None
        self._until = until
        refused = tuple(one for one in raw if one.outcome in base.REFUSALS)
        answers = [one for one in raw if one.outcome not in base.REFUSALS]
        self.read += len(answers)
        told = (message.answered(one.message, endpoint=one.endpoint, at_ns=one.time_ns) for one in answers)
        return Batch(until, tuple(one for one in told if one is not None), refused)

    def _read_until_stopped(self, tell: Callable[[], object]) -> None:
        poll, woken = select.poll(), select.poll()
        poll.register(self._ring.fd, select.POLLIN)
        for each in (poll, woken):
            each.register(self._wake_fd, select.POLLIN)
        while not self._stop.is_set():
            poll.poll(LOOK_MS)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)
            batch = self.read_once()
            if batch is not None:
                self._put(batch)
                tell()
                woken.poll(GATHER_MS)

    def _put(self, batch: Batch) -> None:
        """Put a batch on the queue as soon as there is room."""
        while not self._stop.is_set():
            try:
                self._queue.put_nowait(batch)
            except queue.Full:
                self.waited += 1
                self._stop.wait(FULL_S)
            else:
                return

    def close(self) -> None:
        """Let go of the descriptor, once nothing runs; safe to repeat."""
        with self._waking:
            if self._wake_fd >= 0:
                os.close(self._wake_fd)
            self._wake_fd = -1
