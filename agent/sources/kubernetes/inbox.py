"""The one way from the threads to the event loop: a bounded queue of deltas.

When it is full, the thread that puts waits, and with it its watch: the server then buffers for us, and if that takes
too long ends the watch, from which it is resumed. Nothing is dropped and nothing grows. Each wait is counted.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable

from agent.sources.kubernetes import deltas

LIMIT = 4096


class Closed(Exception):  # noqa: N818 - states what the inbox is; it ends a reflector and goes no further
    """Nobody takes any more."""


class Inbox:
    """Put from any thread, taken by one."""

    def __init__(self, *, wake: Callable[[], None], limit: int = LIMIT) -> None:
        """Start empty; `wake` is called from the putting thread when there is something to take again."""
        self._wake = wake
        self._limit = limit
        self._items: collections.deque[deltas.Delta] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        self.waits = 0
        """How often somebody had to wait for room."""

    def put(self, delta: deltas.Delta) -> None:
        """Append, or wait for room and append. Raises Closed."""
        with self._changed:
            if len(self._items) >= self._limit and not self._closed:
                self.waits += 1
                self._changed.wait_for(lambda: len(self._items) < self._limit or self._closed)
            if self._closed:
                raise Closed
            self._items.append(delta)
            first = len(self._items) == 1
        if first:
            self._wake()

    def take(self) -> tuple[deltas.Delta, ...]:
        """Return everything that is there, in the order it came; none if nothing is."""
        with self._changed:
            taken = tuple(self._items)
            self._items.clear()
            self._changed.notify_all()
        return taken

    def close(self) -> None:
        """Let no one wait or put any more; again is no error."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
