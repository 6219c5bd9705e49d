"""Several readers behave as one that is never ahead of itself."""

from __future__ import annotations

import dataclasses
import os
import select
from collections.abc import Iterator

import pytest

from agent.datapath import merged


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    time_ns: int


class Ring:
    """Readable while there are events, as the kernel's rings are."""

    def __init__(self) -> None:
        """Start empty."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.events: list[Event] = []
        self.closed = False

    def put(self, *times: int) -> None:
        self.events += map(Event, times)
        os.eventfd_write(self.fd, 1)

    def read(self) -> list[Event]:
        if not self.events:
            return []
        os.eventfd_read(self.fd)
        found, self.events = self.events, []
        return found

    def close(self) -> None:
        os.close(self.fd)
        self.closed = True


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    first: Ring
    second: Ring
    both: merged.Merged[Event]

    def readable(self) -> bool:
        poll = select.poll()
        poll.register(self.both.fd, select.POLLIN)
        return bool(poll.poll(0))

    def times(self) -> list[int]:
        return [event.time_ns for event in self.both.read()]


@pytest.fixture
def pair() -> Iterator[Pair]:
    first, second = Ring(), Ring()
    both = merged.Merged((first, second))
    yield Pair(first, second, both)
    both.close()


def test_nothing_is_read_from_empty_readers(pair: Pair) -> None:
    assert not pair.readable()
    assert pair.times() == []


def test_any_reader_makes_it_readable_until_it_is_read(pair: Pair) -> None:
    for ring in (pair.first, pair.second):
        ring.put(7)
        assert pair.readable()
        assert pair.times() == [7]
        assert not pair.readable()


def test_events_come_oldest_first_whoever_had_them(pair: Pair) -> None:
    pair.first.put(1, 4, 6)
    pair.second.put(2, 3, 7)
    assert pair.times() == [1, 2, 3, 4, 6, 7]


def test_what_is_too_much_for_one_reading_waits_for_the_next_and_says_so(pair: Pair) -> None:
    count = merged.MOST * 5 // 4
    pair.first.put(*range(0, 2 * count, 2))
    pair.second.put(*range(1, 2 * count, 2))
    read: list[int] = []
    while pair.readable():
        batch = pair.times()
        assert 0 < len(batch) <= merged.MOST
        read += batch
    assert read == list(range(2 * count))


def test_closing_closes_the_readers() -> None:
    rings = Ring(), Ring()
    merged.Merged(rings).close()
    assert all(ring.closed for ring in rings)
