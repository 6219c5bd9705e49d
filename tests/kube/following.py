"""A KubernetesSource that runs while a test looks at what it yields."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

from agent import snapshot as snapshot_
from agent.sources import manifests
from agent.sources.kubernetes import api, source

PATIENCE_S = 20.0


class Following:
    """Runs a source on an event loop in a thread of its own."""

    def __init__(self, followed: source.KubernetesSource) -> None:
        """Start nothing yet."""
        self.source = followed
        self.updates: list[manifests.Update] = []
        self.arrived_ns: list[int] = []
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop()

    def stop(self) -> float:
        """End it; return the seconds that took."""
        began = time.monotonic()
        if self._loop is not None and self._task is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()
        return time.monotonic() - began

    @property
    def snapshot(self) -> snapshot_.Snapshot:
        return self.updates[-1].snapshot

    def count(self, what: str, resource: api.Resource) -> int:
        return self.source.counters[what, resource.value]

    def requests(self) -> int:
        return sum(count for (what, _), count in self.source.counters.items() if what == "requests")

    def until(self, holds: Callable[[snapshot_.Snapshot], bool], seconds: float = PATIENCE_S) -> manifests.Update:
        """Wait until the last snapshot is as wanted."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.updates and holds(self.snapshot), seconds):
                raise AssertionError(f"not within {seconds} s; states: {self.source.states}")
            return self.updates[-1]

    def eventually(self, holds: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
        """Wait until something of the source is as wanted."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds} s; states: {self.source.states}")
            time.sleep(0.02)

    def synced(self) -> None:
        """Wait until every watch runs."""
        self.until(lambda _: True)
        self.eventually(lambda: self.source.lost_unix_ns is None)
        self.eventually(lambda: all(self.count("watches", one.resource) for one in self.source.states if one.served))

    async def _run(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        with contextlib.suppress(asyncio.CancelledError):
            async with contextlib.aclosing(self.source.watch()) as updates:
                async for update in updates:
                    with self._changed:
                        self.arrived_ns.append(time.time_ns())
                        self.updates.append(update)
                        self._changed.notify_all()
