"""The thread that reads the kernel's ring.

It gathers: after each batch it rests for GATHER_S, or for as long as the batch took if that is longer. The kernel
wakes a reader only when it had caught up, so that a busy node is woken some dozens of times a second and not at each
verdict, and a flood of events costs at most half a core and never the event loop. Of a batch larger than BATCH only
the newest are published; the others are counted and readers are told. What the kernel could not even write into the
ring is its own counter, looked at once a second.

A pod connects a moment after DNS answered it. So that verdicts know the name, what was answered before a batch was read
is waited for, a few milliseconds a batch.

What two layers say of one connection becomes one verdict (`joining`); a call that waits for its packet is told when it
has waited too long, for which the thread wakes up in time.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import itertools
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from agent import clock as clock_
from agent.model import endpoint, net, verdict
from agent.observer import enrich, history, joining, stream, unnamed

BATCH = 8192
FULL = 7900
"""A reading of so many may have left some: readers take from here to a batch at once."""
LOOK_NS = 1_000_000_000
"""How often the kernel's lost counter is read; also the longest wait for an event."""
GATHER_S = 0.04
"""A verdict is seen this much later at most; 200,000 a second make a whole batch in it and no loss."""
REST_MOST_S = 0.05
FRESH = history.KEPT // 2
"""States enforced since a batch was read, until its verdicts are named and let go of the older ones."""
KNOWN = frozenset(
    tuple(member.value for member in members)
    for members in itertools.product(verdict.Layer, net.Direction, verdict.Verdict, verdict.Reason)
)
"""What an event of these programs may say: layer, direction, verdict, reason."""


class Reader(Protocol):
    """A datapath's event ring."""

    @property
    def fd(self) -> int:
        """Readable (poll) when there are events."""

    def read(self) -> Sequence[enrich.RawEvent]:
        """Return what is there, oldest first, without waiting."""


class Answers(Protocol):
    """What DNS told this node's pods; any thread may ask."""

    def names(self, endpoint: int, address: net.Address, monotonic_ns: int) -> tuple[str, ...]:
        """Return the names by which an endpoint had been told an address at a moment, CLOCK_MONOTONIC."""

    def wait_for_answers(self) -> None:
        """Return once what was answered until now is known, or it takes too long."""


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
        names: Answers | None = None,
    ) -> None:
        """`kernel_lost` counts, since the programs were loaded, events that found the ring full."""
        self._node = node
        self._names = names
        self._reader = reader
        self._kernel_lost = kernel_lost
        self._history = history
        self._stream = stream
        self._clock = clock
        self._stop = threading.Event()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._looked_ns = 0
        self._kernel_lost_before: int | None = None
        self._joiner: joining.Joiner[enrich.RawEvent] = joining.Joiner()
        self._unnamed: collections.deque[unnamed.Unnamed] = collections.deque()
        """Batches that the stream may still have, oldest first."""
        self._unnamed_count = 0
        self.dropped = 0
        """Events dropped because the agent fell behind, or unknown to it."""
        self.seen: collections.Counter[tuple[int, int, int, int]] = collections.Counter()
        """Events read, by what KNOWN is made of; those of none of these kinds are `dropped` as well."""

    @property
    def again(self) -> int:
        """Events of connections that were told of before (`again`); any thread may ask."""
        return self._joiner.again

    async def run(self) -> None:
        """Read until cancelled."""
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="observer") as thread:
            reading = loop.run_in_executor(thread, self._read_until_stopped)
            try:
                await asyncio.shield(reading)
            finally:
                # In this order: the thread closes the descriptor once it sees the flag.
                os.eventfd_write(self._stop_fd, 1)
                self._stop.set()

    def read_once(self) -> int:
        """Move what the ring holds into the stream; return how many events that were."""
        began_ns = self._clock.monotonic_ns()
        raw = self._reader.read()
        past = self._history.past  # after reading: a generation is staged before its first event
        newest = raw[-BATCH:]
        kinds = [(one.layer, one.direction, one.verdict, one.reason) for one in newest]
        known = [one for one, kind in zip(newest, kinds, strict=True) if kind in KNOWN]
        self.seen.update(kinds)
        dropped = len(raw) - len(known)
        if dropped:
            self.dropped += dropped
            self._stream.tell_lost(verdict.Lost(count=dropped, where="queue"))
        # A whole batch may leave others in the ring: only what is older than its last event has been read for sure.
        self._tell(self._join(known, past, until_ns=raw[-1].time_ns if len(raw) >= FULL else began_ns), past)
        self._name_old(past)
        self._look_at_kernel()
        return len(raw)

    def _join(self, events: Sequence[enrich.RawEvent], past: history.Past, *, until_ns: int) -> Sequence[enrich.Told]:
        def backends(call: enrich.RawEvent) -> joining.Backends | None:
            service = past.at(call.generation).services.at(*call.towards[1:])
            return service.backends if service is not None else None

        def followed(call: enrich.RawEvent) -> bool:
            return past.at(call.generation).state.deny_mode is endpoint.DenyMode.DROP

        return self._joiner.join(events, until_ns=until_ns, backends=backends, followed=followed)

    def _tell(self, told: Sequence[enrich.Told], past: history.Past) -> None:
        if told:
            if self._names is not None:
                self._names.wait_for_answers()
            context = enrich.Context(
                node=self._node,
                past=past,
                monotonic_to_unix_ns=self._clock.unix_ns() - self._clock.monotonic_ns(),
                names=self._names.names if self._names is not None else enrich.nameless,
            )
            self._publish(unnamed.Unnamed(told, context))

    def _publish(self, batch: unnamed.Unnamed) -> None:
        self._stream.publish(batch)
        self._unnamed.append(batch)
        self._unnamed_count += len(batch)
        while self._unnamed_count - len(self._unnamed[0]) >= stream.STORED:
            self._unnamed_count -= len(self._unnamed.popleft())

    def _name_old(self, past: history.Past) -> None:
        """Name what was read too many states ago: a batch keeps the states it may need."""
        while self._unnamed and past.version - self._unnamed[0].version >= FRESH:
            oldest = self._unnamed.popleft()
            self._unnamed_count -= len(oldest)
            oldest.name()

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
            poll.poll(self._wait_ns() / 1e6)
            began = self._clock.monotonic_ns()
            if count := self.read_once():
                took_s = (self._clock.monotonic_ns() - began) / 1e9
                self._stop.wait(min(REST_MOST_S, max(took_s, GATHER_S if count < BATCH else 0)))
        self._tell(self._joiner.rest(), self._history.past)
        os.close(self._stop_fd)

    def _wait_ns(self) -> int:
        """Return how long to wait for an event at most."""
        due_ns = self._joiner.due_ns
        return LOOK_NS if due_ns is None else min(LOOK_NS, max(1_000_000, due_ns - self._clock.monotonic_ns()))
