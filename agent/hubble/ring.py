"""The flows that are stored, and those who read on: nobody waits for anybody.

Batches come from the thread that reads the kernel and are only appended here. A reader has a number, that of the next
flow it wants; when the ring has gone on past it, the difference is what it lost, and it learns so at most once a
second: telling a reader that is too slow more often made others of this API slower still. A flow gets its names and
its bytes when the first reader takes it, and every other reader gets the same bytes.
"""

from __future__ import annotations

import asyncio
import bisect
import collections
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from agent import clock as clock_
from agent.hubble import records, writer
from agent.model import verdict
from agent.observer import stream, unnamed

CAPACITY = stream.STORED
"""Flows stored at least, once so many were seen; the oldest batch goes when the others make so many. More than the
stream keeps there must not be: what is older is not named before the states that names come from are given up."""
CHUNK = 128
"""Flows that one reading returns: what the event loop does for one reader before it looks at another."""
TELL_LOST_NS = 1_000_000_000
RATE_NS = 60_000_000_000
"""What the rate of flows is an average of."""
SECOND_NS = 1_000_000_000


Write: TypeAlias = Callable[[records.Record], bytes]
"""Gives the message that tells of a record."""


class Batch:
    """Flows that were published at once; taken apart by the event loop alone."""

    def __init__(self, events: Sequence[verdict.VerdictEvent], *, first: int, run: int, write: Write) -> None:
        """Give `events` the numbers from `first`."""
        self.first = first
        self.end = first + len(events)
        self._events = events
        self._run = run
        self._write = write
        self._records: dict[int, records.Record] = {}
        self._responses: dict[int, bytes] = {}
        self._of: dict[frozenset[verdict.Verdict], frozenset[int]] = {}

    def of(self, kinds: frozenset[verdict.Verdict]) -> frozenset[int]:
        """Return the numbers of the flows with one of these verdicts; gives none of them names."""
        if (found := self._of.get(kinds)) is None:
            places = (place for kind in kinds for place in _places(self._events, kind))
            found = self._of[kinds] = frozenset(self.first + place for place in places)
        return found

    def record(self, serial: int) -> records.Record:
        """Return one of them, with names."""
        if (found := self._records.get(serial)) is None:
            found = self._records[serial] = records.Record(self._events[serial - self.first], serial, self._run)
        return found

    def response(self, serial: int) -> bytes:
        """Return the message that tells of one of them."""
        if (found := self._responses.get(serial)) is None:
            found = self._responses[serial] = self._write(self.record(serial))
        return found


Place: TypeAlias = tuple[Batch, int]
"""A batch, and the number of one flow in it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Flows that a reader lost for one reason between two moments (Unix time)."""

    lost: verdict.Lost
    first_ns: int
    last_ns: int


class Ring:
    """A `stream.Tap`; made, read and closed in one event loop, filled by any thread."""

    def __init__(self, *, node: str, version: str, clock: clock_.Clock) -> None:
        """Start empty; call it inside the event loop that reads."""
        self.node = node
        self.version = version
        self.clock = clock
        self._run = records.run_number(node, clock.unix_ns())
        self._writer = writer.Writer(version=version)
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._batches: collections.deque[Batch] = collections.deque()
        self._seconds: collections.deque[tuple[int, int]] = collections.deque([(clock.monotonic_ns(), 0)])
        """Moments a second or more apart, and how many flows had been seen."""
        self._waiting: set[asyncio.Event] = set()
        self.end = 0
        """The number of the next flow; so many were seen."""
        self.lost: collections.Counter[str] = collections.Counter()
        """Verdicts that never came here, by where they were lost."""

    def take(self, events: Sequence[verdict.VerdictEvent]) -> None:
        """Store `events`; any thread may call."""
        if not events:
            return
        with self._lock:
            batch = Batch(events, first=self.end, run=self._run, write=self._writer.response)
            self._batches.append(batch)
            while batch.end - self._batches[0].end >= CAPACITY:
                self._batches.popleft()
            self.end = batch.end
            self._count(self.clock.monotonic_ns())
        self._wake()

    def tell_lost(self, lost: verdict.Lost) -> None:
        """Count what was lost before it came here; any thread may call."""
        with self._lock:
            self.lost[lost.where] += lost.count
        self._wake()

    def holding(self, serial: int) -> Batch | None:
        """Return the batch with flow `serial`, or the first of later ones; None where there is none yet."""
        with self._lock:
            place = bisect.bisect_right(self._batches, serial, key=lambda batch: batch.end)
            return self._batches[place] if place < len(self._batches) else None

    @property
    def start(self) -> int:
        """The number of the oldest flow stored."""
        with self._lock:
            return self._batches[0].first if self._batches else self.end

    @property
    def stored(self) -> int:
        """How many flows can be had now, up to CAPACITY."""
        with self._lock:
            return min(CAPACITY, self.end - self._batches[0].first) if self._batches else 0

    @property
    def rate(self) -> float:
        """Flows a second, over the last minute or since the start."""
        with self._lock:
            now = self.clock.monotonic_ns()
            began, seen = next(((at, seen) for at, seen in self._seconds if now - at <= RATE_NS), (now, self.end))
        return (self.end - seen) * SECOND_NS / max(now - began, SECOND_NS)

    @contextlib.contextmanager
    def reading(self, start: int) -> Iterator[Reader]:
        """Give a reader that begins with flow `start`; it is told of nothing that was lost before."""
        reader = Reader(self, start=start)
        self._waiting.add(reader.news)
        try:
            yield reader
        finally:
            self._waiting.discard(reader.news)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._waiting)

    def _count(self, now: int) -> None:
        if now - self._seconds[-1][0] >= SECOND_NS:
            self._seconds.append((now, self.end))
        while len(self._seconds) > 1 and now - self._seconds[0][0] > RATE_NS:
            self._seconds.popleft()

    def _wake(self) -> None:
        if self._waiting:
            self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for event in self._waiting:
            event.set()


class Reader:
    """One who reads on from a flow; holds on to nothing between two readings."""

    def __init__(self, ring: Ring, *, start: int) -> None:
        """Made by `Ring.reading`."""
        self._ring = ring
        self._next = start
        self._known = collections.Counter(ring.lost)
        self._gaps: dict[str, Gap] = {}
        self._told_ns = ring.clock.monotonic_ns() - TELL_LOST_NS
        self.news = asyncio.Event()
        """Set whenever there may be something to read."""

    def read(self, *, stop: int | None = None) -> Sequence[Place]:
        """Return the next flows, at most CHUNK and all before flow `stop`; none where there are none yet."""
        self.news.clear()
        self._note_elsewhere()
        batch = self._ring.holding(self._next)
        if batch is None:
            return ()
        first = batch.first if stop is None else min(batch.first, stop)
        self._note("client", first - self._next)
        self._next = max(self._next, first)
        end = min(batch.end, self._next + CHUNK, batch.end if stop is None else stop)
        places = [(batch, serial) for serial in range(self._next, end)]
        self._next = max(self._next, end)
        return places

    async def wait(self) -> None:
        """Wait until there is something to read or to tell."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_LOST_NS / SECOND_NS if self._gaps else None):
                await self.news.wait()

    def due(self) -> Gap | None:
        """Return what is to be told now: a gap a second at most, the longest waiting first."""
        if not self._gaps or (now := self._ring.clock.monotonic_ns()) - self._told_ns < TELL_LOST_NS:
            return None
        self._told_ns = now
        return self._gaps.pop(min(self._gaps, key=lambda where: self._gaps[where].first_ns))

    def _note_elsewhere(self) -> None:
        if self._ring.lost != self._known:
            lost = collections.Counter(self._ring.lost)
            for where, count in (lost - self._known).items():
                self._note(where, count)
            self._known = lost

    def _note(self, where: str, count: int) -> None:
        if count <= 0:
            return
        now, before = self._ring.clock.unix_ns(), self._gaps.get(where)
        total = count + (before.lost.count if before is not None else 0)
        first = before.first_ns if before is not None else now
        self._gaps[where] = Gap(lost=verdict.Lost(count=total, where=where), first_ns=first, last_ns=now)


def _places(events: Sequence[verdict.VerdictEvent], kind: verdict.Verdict) -> Sequence[int]:
    if isinstance(events, unnamed.Unnamed):
        return events.of(kind)
    return [place for place, event in enumerate(events) if event.verdict is kind]
