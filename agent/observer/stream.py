"""The verdict stream: the last verdicts, and those to come, for any number of readers.

Nobody blocks anybody: every reader has a queue of its own; when it is full the oldest verdict in it is dropped and
counted, and the reader is told, at most once a second. Publishing happens in the observer's thread, reading in the
event loop.

Verdicts may come without names (`unnamed`), and get them here when a reader takes them: those that nobody takes cost
nothing but their place in the store. A reader that filters by name has them named at once.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

from agent import clock as clock_
from agent.model import verdict
from agent.observer import unnamed

STORED = 4096
"""Verdicts kept for readers that come later."""
QUEUED = 1024
"""Verdicts a reader may be behind."""
TELL_LOST_NS = 1_000_000_000


class Tap(Protocol):
    """Who is handed every verdict at once, and must neither wait nor raise; see `Stream.tapped`."""

    def take(self, events: Sequence[verdict.VerdictEvent]) -> None:
        """Take `events`, which never change; called from the thread that publishes."""

    def tell_lost(self, lost: verdict.Lost) -> None:
        """Learn of verdicts that came never this far; called from the thread that publishes."""


class Subscription:
    """One reader's queue; made by `Stream.subscribe`."""

    def __init__(self, *, wanted: verdict.Filter, clock: clock_.Clock, loop: asyncio.AbstractEventLoop) -> None:
        """Read by coroutines of `loop` only; what is not `wanted` takes no room."""
        self._wanted = wanted
        self._clock = clock
        self._loop = loop
        self._wake = asyncio.Event()
        self._lock = threading.Lock()
        self._queue: collections.deque[tuple[Sequence[verdict.VerdictEvent], int]] = collections.deque()
        """Verdicts by their batch and place, so that one which is dropped is never named."""
        self._lost: collections.Counter[str] = collections.Counter()
        self._told_ns = clock.monotonic_ns() - TELL_LOST_NS

    def offer(self, events: Sequence[verdict.VerdictEvent]) -> int:
        """Queue `events`, dropping the oldest where there is no room; return how many. Any thread may call."""
        if self._wanted.raw:
            events = _layers(events)
        places = _admitted(events, self._wanted)
        if not places:
            return 0
        unseen, kept = len(places[:-QUEUED]), places[-QUEUED:]
        if self._wanted != verdict.EVERY_VERDICT:
            # The store may forget their batch before this reader takes them, and then nobody would name it.
            events, kept = [events[place] for place in kept], range(len(kept))
        with self._lock:
            self._queue.extend((events, place) for place in kept)
            while len(self._queue) > QUEUED:
                self._queue.popleft()
                unseen += 1
            if unseen:
                self._lost["client"] += unseen
        self._loop.call_soon_threadsafe(self._wake.set)
        return unseen

    def tell_lost(self, lost: verdict.Lost) -> None:
        """Have the reader told that verdicts were lost before they reached its queue; any thread may call."""
        with self._lock:
            self._lost[lost.where] += lost.count
        self._loop.call_soon_threadsafe(self._wake.set)

    async def items(self) -> AsyncIterator[verdict.Item]:
        """Yield verdicts as they come, and what was lost; never ends by itself."""
        while True:
            self._wake.clear()
            for lost in self._due():
                yield lost
            with self._lock:
                found = self._queue.popleft() if self._queue else None
            if found is not None:
                events, place = found
                yield events[place]
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_LOST_NS / 1e9 if self._lost else None):
                    await self._wake.wait()

    def _due(self) -> tuple[verdict.Lost, ...]:
        now = self._clock.monotonic_ns()
        with self._lock:
            if not self._lost or now - self._told_ns < TELL_LOST_NS:
                return ()
            due = tuple(verdict.Lost(count=count, where=where) for where, count in sorted(self._lost.items()))
            self._lost.clear()
        self._told_ns = now
        return due


class Stream:
    """The last STORED verdicts and everybody who reads on."""

    def __init__(self, *, clock: clock_.Clock) -> None:
        """Start empty."""
        self._clock = clock
        self._lock = threading.Lock()
        self._stored: collections.deque[Sequence[verdict.VerdictEvent]] = collections.deque()
        """Batches, of which all but the first are needed to make STORED."""
        self._stored_count = 0
        self._subscriptions: set[Subscription] = set()
        self._taps: list[Tap] = []
        self.published = 0
        """Verdicts seen since the start."""
        self.lost = 0
        """Verdicts that found a reader's queue full, since the start, each reader's counted."""

    def publish(self, events: Sequence[verdict.VerdictEvent]) -> None:
        """Store `events`, which must not change, and hand them to every reader; any thread may call."""
        with self._lock:
            self.published += len(events)
            self._stored.append(events)
            self._stored_count += len(events)
            while self._stored_count - len(self._stored[0]) >= STORED:
                self._stored_count -= len(self._stored.popleft())
            for subscription in self._subscriptions:
                self.lost += subscription.offer(events)
            for tap in self._taps:
                tap.take(events)

    def tell_lost(self, lost: verdict.Lost) -> None:
        """Tell every reader of verdicts that came never this far; any thread may call."""
        with self._lock:
            for subscription in self._subscriptions:
                subscription.tell_lost(lost)
            for tap in self._taps:
                tap.tell_lost(lost)

    def stored(
        self, last: int | None = None, *, wanted: verdict.Filter = verdict.EVERY_VERDICT
    ) -> tuple[verdict.VerdictEvent, ...]:
        """Return the last `last` verdicts that are wanted, all of them if None, oldest first."""
        with self._lock:
            batches = tuple(self._stored)
        return _last(batches, last, wanted)

    @contextlib.contextmanager
    def subscribe(self, *, last: int = 0, wanted: verdict.Filter = verdict.EVERY_VERDICT) -> Iterator[Subscription]:
        """Make a reader that begins with the `last` wanted verdicts stored (at most QUEUED) and misses none after."""
        subscription = Subscription(wanted=wanted, clock=self._clock, loop=asyncio.get_running_loop())
        with self._lock:
            subscription.offer(_last(tuple(self._stored), min(last, QUEUED), wanted))
            self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            with self._lock:
                self._subscriptions.discard(subscription)

    @contextlib.contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Hand `tap` what is stored, then every batch as it is published, whole and without names made for it."""
        with self._lock:
            for events in self._stored:
                tap.take(events)
            self._taps.append(tap)
        try:
            yield
        finally:
            with self._lock:
                self._taps.remove(tap)

    @property
    def readers(self) -> int:
        """How many read now."""
        return len(self._subscriptions)


def _last(
    batches: Sequence[Sequence[verdict.VerdictEvent]], last: int | None, wanted: verdict.Filter
) -> tuple[verdict.VerdictEvent, ...]:
    """Return the last ones wanted among the newest STORED of `batches`, oldest first."""
    return tuple(itertools.islice(_newest(batches, wanted), last))[::-1]


def _newest(
    batches: Sequence[Sequence[verdict.VerdictEvent]], wanted: verdict.Filter
) -> Iterator[verdict.VerdictEvent]:
    """Yield those wanted among the newest STORED, newest first; a filter that needs no names has no others made."""
    left = STORED
    for batch in reversed(batches):
        if not left:
            return
        events = _layers(batch) if wanted.raw else batch
        oldest = max(0, len(events) - left)
        yield from (events[place] for place in reversed(_admitted(events, wanted)) if place >= oldest)
        left -= len(events) - oldest


def _layers(events: Sequence[verdict.VerdictEvent]) -> Sequence[verdict.VerdictEvent]:
    """Return what each layer said, with names."""
    if not isinstance(events, unnamed.Unnamed):
        return events
    return [one for place in range(len(events)) for one in events.layers(place)]


def _admitted(events: Sequence[verdict.VerdictEvent], wanted: verdict.Filter) -> Sequence[int]:
    """Return the places of what is wanted; only a filter that needs names makes them."""
    if wanted == verdict.EVERY_VERDICT:
        return range(len(events))
    places: Sequence[int] = range(len(events))
    if wanted.verdict is not None and isinstance(events, unnamed.Unnamed):
        places = events.of(wanted.verdict)
        if wanted == verdict.Filter(verdict=wanted.verdict):
            return places
    return [place for place in places if wanted.admits(events[place])]
