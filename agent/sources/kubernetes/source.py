"""The source `kubernetes`: snapshots of the cluster, from before the first packet is judged until the agent ends.

Nothing is yielded before every first list is in: half a cluster would cut off pods that are allowed. After that each
change is yielded a few milliseconds after it arrived, with what arrived meanwhile. While the API server is away nothing
is yielded, so that the last state stays in force, and `states` says since when.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from agent import clock as clock_
from agent.sources import manifests
from agent.sources.kubernetes import access, api, connection, deltas, inbox, reflector, store

BUSY_S = 0.020
"""A change so soon after another is taken for one of many; a lone one is yielded at once."""
SETTLE_S = 0.001
"""What arrives within this time of one of many changes joins its update."""
SETTLE_LIMIT_S = 0.020
"""An update is yielded after this long even while more arrives."""
WATCHDOG_S = 5.0
"""How often requests are looked at that may hang."""
JOIN_S = 1.0
"""For all threads to end; one that waits for an answer's first byte cannot be interrupted: it ends by its time-out."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """How it stands between us and one resource; times are the wall clock in nanoseconds since 1970, 0 for never."""

    resource: api.Resource
    synced: bool = False
    """The first list is in, or there is none."""
    served: bool = True
    """Whether the server serves it; custom resources come and go with their definitions."""
    connected: bool = False
    """It answered the last request: a list, or the watch that is under way."""
    since_unix_ns: int
    """Since when it is connected, or is not."""
    heard_unix_ns: int = 0
    """When the server last said something: the age of what we know. Quiet watches get a bookmark a minute, what is not
    served is asked for as often."""
    error: str = ""
    """Why the last request failed; "" while connected."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Follower:
    """One thread and what it is driven by."""

    follows: reflector.Reflector
    link: connection.Connection
    pause: reflector.Interruptible
    thread: threading.Thread


class KubernetesSource:
    """The cluster behind one API server."""

    def __init__(
        self,
        *,
        access: access.Access,
        clock: clock_.Clock,
        idle_s: float = connection.IDLE_S,
        page_limit: int = reflector.PAGE_LIMIT,
        resources: Sequence[api.Resource] = tuple(api.Resource),
        told: Callable[[WatchState], None] = lambda _: None,
    ) -> None:
        """Ask nothing yet; a watch that is silent for `idle_s` is opened anew.

        `told` is called on the event loop when a resource is connected, is lost, fails for another reason, or is found
        to be served, or not to be.
        """
        self._access = access
        self._clock = clock
        self._idle_s = idle_s
        self._page_limit = page_limit
        self._resources = tuple(resources)
        self._followers: tuple[_Follower, ...] = ()
        self._inbox: inbox.Inbox | None = None
        self._told = told
        now = clock.unix_ns()
        self._states = {one: WatchState(resource=one, since_unix_ns=now) for one in self._resources}
        self._handed_ns = 0
        """When news was last handed on, by the monotonic clock."""
        self._connects: collections.Counter[api.Resource] = collections.Counter()
        self.store = store.Store()
        """What is known now."""

    @property
    def states(self) -> tuple[WatchState, ...]:
        """Return how it stands with each resource."""
        return tuple(self._states.values())

    @property
    def lost_unix_ns(self) -> int | None:
        """Return since when the state may be out of date, the wall clock; None: it is not."""
        return min((state.since_unix_ns for state in self.states if not state.connected), default=None)

    @property
    def counters(self) -> Mapping[tuple[str, str], int]:
        """Return what happened so far, by what and resource; every number only grows.

        requests (each GET), lists, relists, pages, watches (that the server began), reconnects, events, bookmarks,
        gone (410), idle (watches that fell silent), failures, absent (lists of what is not served), whole (objects
        that were not plain), waits (resource "": for room in the inbox).
        """
        found = {("waits", ""): self._inbox.waits if self._inbox is not None else 0}
        for resource, follower in itertools.zip_longest(self._resources, self._followers):
            counted = follower.follows.counters if follower is not None else {}
            found |= {(name, resource.value): counted.get(name, 0) for name in reflector.COUNTED}
            found["relists", resource.value] = max(0, counted.get("lists", 0) - counted.get("absent", 0) - 1)
            found["reconnects", resource.value] = max(0, self._connects[resource] - 1)
        return found

    async def watch(self) -> AsyncGenerator[manifests.Update, None]:
        """Yield once all first lists are in, then after every change of an object. Only once a source.

        Close it (`contextlib.aclosing`) to end the threads. Never raises for what the server does.
        """
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        self._inbox = inbox.Inbox(wake=lambda: _wake(loop, arrived))
        self._followers = tuple(self._follower(one, self._inbox) for one in self._resources)
        try:
            for follower in self._followers:
                follower.thread.start()
            yielded = None
            while True:
                news = await self._news(self._inbox, arrived)
                self._note(news)
                self.store = store.after(self.store, news)
                if self.store.synced(self._resources) and self.store.snapshot is not yielded:
                    yielded = self.store.snapshot
                    first = min(one.unix_ns for one in news if not isinstance(one, deltas.Heard | deltas.Lost))
                    yield manifests.Update(snapshot=yielded, digest=self.store.digest, changed_unix_ns=first)
        finally:
            await self._stop()

    def _follower(self, resource: api.Resource, inbox_: inbox.Inbox) -> _Follower:
        connected = connection.HTTPConnection(resource, access_=self._access, clock=self._clock, idle_s=self._idle_s)
        pause = reflector.Interruptible()
        follows = reflector.Reflector(
            resource,
            connection_=connected,
            put=inbox_.put,
            pause=pause,
            clock=self._clock,
            chance=random.random,
            page_limit=self._page_limit,
        )
        # A daemon: the process must be able to end while a request is waiting.
        thread = threading.Thread(target=follows.run, name=f"watch-{resource.value}", daemon=True)
        return _Follower(follows, connected, pause, thread)

    async def _news(self, inbox_: inbox.Inbox, arrived: asyncio.Event) -> tuple[deltas.Delta, ...]:
        """Wait for news, and let what comes soon after other news settle."""
        while not arrived.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCHDOG_S):
                    await arrived.wait()
            self._abort_overdue()
        news: list[deltas.Delta] = []
        began_ns = self._clock.monotonic_ns()
        busy = began_ns - self._handed_ns < BUSY_S * 1e9
        while arrived.is_set() and self._clock.monotonic_ns() - began_ns < SETTLE_LIMIT_S * 1e9:
            arrived.clear()
            news.extend(inbox_.take())
            if busy:
                await asyncio.sleep(SETTLE_S)
        self._handed_ns = self._clock.monotonic_ns()
        return tuple(news)

    def _abort_overdue(self) -> None:
        now = self._clock.monotonic_ns()
        for follower in self._followers:
            if 0 < follower.link.deadline_ns <= now:
                follower.link.abort()

    def _note(self, news: Sequence[deltas.Delta]) -> None:
        """Keep how it stands with each resource, and tell of each change of it."""
        for delta in news:
            old = self._states[delta.resource]
            new = _stands(old, delta)
            self._states[delta.resource] = new
            if new.connected and not old.connected:
                self._connects[delta.resource] += 1
                # The server is back: let the others ask at once.
                for follower in self._followers:
                    follower.pause.hurry()
            if (new.connected, new.served, new.error) != (old.connected, old.served, old.error):
                self._told(new)

    async def _stop(self) -> None:
        """End the threads, waiting for those that can end now."""
        if self._inbox is not None:
            self._inbox.close()
        for follower in self._followers:
            follower.pause.stop()
            follower.link.abort()
        await asyncio.to_thread(_join, [follower.thread for follower in self._followers if follower.thread.is_alive()])


def _stands(old: WatchState, delta: deltas.Delta) -> WatchState:
    """Return how it stands with a resource after a delta."""
    match delta:
        case deltas.Lost():
            since = delta.unix_ns if old.connected else old.since_unix_ns
            return dataclasses.replace(old, connected=False, since_unix_ns=since, error=delta.reason)
        case deltas.Listed():
            return dataclasses.replace(_heard(old, delta.unix_ns), synced=True, served=True)
        case deltas.Absent():
            return dataclasses.replace(_heard(old, delta.unix_ns), synced=True, served=False)
        case deltas.Changed() | deltas.Heard():
            return _heard(old, delta.unix_ns)


def _heard(old: WatchState, unix_ns: int) -> WatchState:
    since = old.since_unix_ns if old.connected else unix_ns
    return dataclasses.replace(old, connected=True, since_unix_ns=since, heard_unix_ns=unix_ns, error="")


def _join(threads: Sequence[threading.Thread]) -> None:
    deadline = time.monotonic() + JOIN_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _wake(loop: asyncio.AbstractEventLoop, arrived: asyncio.Event) -> None:
    """Wake the event loop from a thread; after its end there is nobody to wake."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(arrived.set)
