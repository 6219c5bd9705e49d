"""Several event readers as one: the socket layer's ring and the packet layer's log.

The observer polls one descriptor and takes at most MOST events at a time. The rule: an epoll descriptor stands for all
readers, one reading takes what each has and orders it by time, and what is over MOST is kept for the next reading, for
which an event descriptor keeps the epoll descriptor readable. Nothing is dropped here, so there is nothing to count.
"""

from __future__ import annotations

import operator
import os
import select
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

MOST = 8192
"""A batch of the observer."""


class Timed(Protocol):
    """An event."""

    @property
    def time_ns(self) -> int:
        """CLOCK_MONOTONIC."""


Event = TypeVar("Event", bound=Timed)
Event_co = TypeVar("Event_co", bound=Timed, covariant=True)


class Reader(Protocol[Event_co]):
    """What is merged; the result is one as well."""

    @property
    def fd(self) -> int:
        """Readable (poll) when there are events."""

    def read(self) -> Sequence[Event_co]:
        """Return what is there, oldest first, without waiting."""

    def close(self) -> None:
        """Let go of it."""


class Merged(Generic[Event]):
    """Owns its readers: closing it closes them."""

    def __init__(self, readers: Sequence[Reader[Event]]) -> None:
        """Watch `readers`; `close` is theirs too from now on."""
        self._readers = tuple(readers)
        self._kept: list[Event] = []
        self._more = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        for descriptor in (self._more, *(reader.fd for reader in self._readers)):
            self._epoll.register(descriptor, select.EPOLLIN)

    @property
    def fd(self) -> int:
        """Becomes readable when one of the readers' does, or when there was too much for one reading."""
        return self._epoll.fileno()

    def read(self) -> list[Event]:
        """Return at most MOST events, oldest first; empty: nothing is ready."""
        had_more = bool(self._kept)
        if len(self._kept) < MOST:
            for reader in self._readers:
                self._kept += reader.read()
            self._kept.sort(key=operator.attrgetter("time_ns"))
        events, self._kept = self._kept[:MOST], self._kept[MOST:]
        if self._kept and not had_more:
            os.eventfd_write(self._more, 1)
        elif had_more and not self._kept:
            os.eventfd_read(self._more)
        return events

    def close(self) -> None:
        """Close the readers."""
        self._epoll.close()
        os.close(self._more)
        for reader in self._readers:
            reader.close()
