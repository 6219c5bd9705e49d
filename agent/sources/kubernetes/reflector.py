"""Follows one resource: list, then watch, resume, list again where the server has forgotten; for ever.

    no version --list--> version --watch--> version' --watch--> ...
        ^                    |                  |
        +-- 410, or an answer that is not the API's ---+

A custom resource that the server does not serve has no objects; it is asked for again at least once a minute. Where it
was served, that has to be so for GONE_S: a server that is put back from a backup, or whose definitions are replaced,
must not open for a moment what policies of this kind deny.

A watch that ends, for whatever reason, is resumed from the last version that was told, bookmarks included, so that
nothing is listed twice. Each request that failed, and each watch that ended before it was steady, makes the pause
before the next one longer (`backoff`): this is the one loop of the agent that a broken server could drive. A fault of
our own is treated as the server's: what is known stays, the list is read again, later and later.

Runs in a thread of its own, blocks only in `connection`, `pause` and a full inbox, and hands on immutable values only.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from agent import clock as clock_
from agent.sources.kubernetes import api, backoff, connection, deltas, inbox, objects, wire

PAGE_LIMIT = 500
"""Objects a page; the agent's memory for a list is one page and what was decoded."""

GONE_S = 30.0
"""So long a resource that was served must be missing before its objects count as gone."""
COUNTED = (
    "requests",
    "lists",
    "pages",
    "watches",
    "events",
    "bookmarks",
    "gone",
    "idle",
    "failures",
    "absent",
    "whole",
)
"""What a reflector counts; `KubernetesSource.counters` says what each is."""


class Pause(Protocol):
    """How a reflector waits, and learns that it shall end."""

    def wait(self, seconds: float, *, firm: bool) -> None:
        """Return after that time, or, unless it is firm, when there is a reason to go on at once."""

    @property
    def stopped(self) -> bool:
        """Tell whether to end."""


class Interruptible:
    """A pause that other threads end."""

    def __init__(self) -> None:
        """Start neither waiting nor stopped."""
        self._woken = threading.Event()
        self._stopped = False
        self._yields = False
        """Whether a pause is under way that may be cut short."""

    @property
    def stopped(self) -> bool:
        """Tell whether `stop` was called."""
        return self._stopped

    def wait(self, seconds: float, *, firm: bool) -> None:
        """Wait; see Pause. A stop ends firm pauses, too."""
        self._yields = not firm
        self._woken.wait(seconds)
        self._yields = False
        if not self._stopped:
            self._woken.clear()

    def hurry(self) -> None:
        """End the pause under way, if there is one and it is not firm."""
        if self._yields:
            self._woken.set()

    def stop(self) -> None:
        """End this and all pauses to come."""
        self._stopped = True
        self._woken.set()


class Reflector:
    """Follows one resource until its pause says to stop or its inbox is closed."""

    def __init__(
        self,
        resource: api.Resource,
        *,
        connection_: connection.Connection,
        put: Callable[[deltas.Delta], None],
        pause: Pause,
        clock: clock_.Clock,
        chance: Callable[[], float],
        page_limit: int = PAGE_LIMIT,
    ) -> None:
        """Take the collaborators; `chance` gives numbers in 0..1 that spread pauses."""
        self._resource = resource
        self._connection = connection_
        self._put = put
        self._pause = pause
        self._clock = clock
        self._chance = chance
        self._page_limit = page_limit
        self._reader = objects.Reader(resource)
        self._version: str | None = None
        self._began_ns: int | None = None
        """When the watch of this attempt began, nanoseconds of the monotonic clock; None: it did not."""
        self._served = False
        """Whether objects of it may be known."""
        self._missing_ns: int | None = None
        """Since when the server has been saying that it does not serve it, likewise; None: it has not."""
        self._counters: collections.Counter[str] = collections.Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        """Return what happened so far; only this reflector's thread writes it."""
        return self._counters | {"whole": self._reader.whole}

    def run(self) -> None:
        """Follow."""
        try:
            self._follow()
        finally:
            self._connection.close()

    def _follow(self) -> None:
        failures = 0
        while not self._pause.stopped:
            failure, held_s = self._attempt()
            if self._pause.stopped:
                return
            if isinstance(failure, connection.NotServed) and self._resource.custom and not self._served:
                failures = 0
                self._pause.wait(backoff.absent_s(chance=self._chance()), firm=True)
                continue
            steady = held_s >= backoff.STEADY_S
            if steady and (failure is None or isinstance(failure, connection.Idle)):
                failures = 0
                continue
            failures = 1 if steady else failures + 1
            asked_s = failure.asked_s if failure is not None else 0.0
            delay_s = backoff.delay_s(failures, chance=self._chance(), asked_s=asked_s)
            self._pause.wait(delay_s, firm=asked_s > 0)

    def _attempt(self) -> tuple[connection.Failed | None, float]:
        """List if need be, and watch until the watch ends; tell why, and how many seconds it held (0: none began)."""
        failure: connection.Failed | None = None
        self._began_ns = None
        try:
            if self._version is None:
                self._version = self._list()
            self._watch(self._version)
        except inbox.Closed:
            pass
        except connection.Idle as error:
            self._counters["idle"] += 1
            failure = error
        except connection.Gone as error:
            self._counters["gone"] += 1
            failure, self._version = error, None
        except connection.Failed as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a thread must not end in silence, with its last state for ever
            failure, self._version = connection.Failed(f"{type(error).__name__}: {error}"), None
        if failure is not None and not self._pause.stopped:
            self._note(failure)
        return failure, (self._clock.monotonic_ns() - self._began_ns) / 1e9 if self._began_ns is not None else 0.0

    def _note(self, failure: connection.Failed) -> None:
        """Count and tell a failure; that a custom resource is not served is none."""
        if isinstance(failure, connection.NotServed):
            self._version = None
            if self._believes_missing():
                return
        else:
            self._missing_ns = None
        self._counters["failures"] += 1
        self._tell_lost(failure)

    def _believes_missing(self) -> bool:
        """Tell that there are no objects, if that is what it means that the resource is not served."""
        now_ns = self._clock.monotonic_ns()
        self._missing_ns = now_ns if self._missing_ns is None else self._missing_ns
        if not self._resource.custom or (self._served and now_ns - self._missing_ns < GONE_S * 1e9):
            return False
        self._counters["absent"] += 1
        self._served = False
        with contextlib.suppress(inbox.Closed):
            self._put(deltas.Absent(resource=self._resource, unix_ns=self._clock.unix_ns()))
        return True

    def _tell_lost(self, failure: connection.Failed) -> None:
        try:
            self._put(deltas.Lost(resource=self._resource, reason=str(failure), unix_ns=self._clock.unix_ns()))
        except inbox.Closed:
            return

    def _list(self) -> str:
        """Read every page, tell the list, return its version."""
        self._counters["lists"] += 1
        entries: dict[deltas.Key, deltas.Entry] = {}
        version, continue_ = "", ""
        while True:
            self._counters["requests"] += 1
            page = wire.read(self._connection.page(limit=self._page_limit, continue_=continue_), wire.Page)
            self._counters["pages"] += 1
            entries.update(map(self._reader.read, page.items or ()))
            # All pages show the state of the first; were one older, a watch from it would only repeat.
            version = version or page.metadata.resource_version
            continue_ = page.metadata.continue_
            if not version:
                raise wire.NotTheAPI(f"a list of {self._resource.value} has no resourceVersion")
            if not continue_:
                break
            if self._pause.stopped:
                raise inbox.Closed
        self._served, self._missing_ns = True, None
        self._put(
            deltas.Listed(resource=self._resource, version=version, entries=entries, unix_ns=self._clock.unix_ns())
        )
        return version

    def _watch(self, version: str) -> None:
        """Tell each change until the watch ends."""
        self._counters["requests"] += 1
        with self._connection.watch(version=version) as lines:
            self._counters["watches"] += 1
            self._began_ns = self._clock.monotonic_ns()
            self._put(deltas.Heard(resource=self._resource, version=version, unix_ns=self._clock.unix_ns()))
            for delta in self._changes(lines):
                self._put(delta)
                self._version = delta.version
                if self._pause.stopped:
                    return

    def _changes(self, lines: Iterator[bytes]) -> Iterator[deltas.Changed | deltas.Heard]:
        """Read the lines of a watch. Raises Failed and NotTheAPI."""
        for line in lines:
            event = wire.read(line, wire.Event)
            unix_ns = self._clock.unix_ns()
            if event.type == "BOOKMARK":
                self._counters["bookmarks"] += 1
                version = wire.read(event.object, wire.Head).metadata.resource_version
                if not version:
                    raise wire.NotTheAPI(f"a bookmark of {self._resource.value} has no resourceVersion")
                yield deltas.Heard(resource=self._resource, version=version, unix_ns=unix_ns)
            elif event.type == "ERROR":
                status = wire.status(bytes(event.object))
                raise connection.gone_or_failed(status.code, f"{status.code} {status.reason}: {status.message}")
            elif event.type in ("ADDED", "MODIFIED", "DELETED"):
                self._counters["events"] += 1
                key, entry = self._reader.read(event.object)
                yield deltas.Changed(
                    resource=self._resource,
                    version=entry.version,
                    key=key,
                    entry=entry if event.type != "DELETED" else None,
                    unix_ns=unix_ns,
                )
            else:
                raise wire.NotTheAPI(f"a watch of {self._resource.value} has an event of type {event.type[:40]!r}")
