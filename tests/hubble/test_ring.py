"""The ring: nobody waits, everybody learns what was lost, and one flow is serialised once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent.hubble import records, ring, writer
from agent.model import verdict
from tests.support import agents


def numbered(count: int, first: int = 0) -> list[verdict.VerdictEvent]:
    return [agents.flow(generation=number) for number in range(first, first + count)]


class World:
    """A ring and the clock it has."""

    def __init__(self) -> None:
        """Start with an empty ring."""
        self.clock = agents.ManualClock()
        self.ring = ring.Ring(node="n1", version="7", clock=self.clock)


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(10):
            await scenario(World())

    asyncio.run(all_of_it())


def everything(reader: ring.Reader, stop: int | None = None) -> list[int]:
    seen: list[int] = []
    while places := reader.read(stop=stop):
        assert len(places) <= ring.CHUNK
        for batch, serial in places:
            assert batch.record(serial).serial == serial
            seen.append(batch.record(serial).event.generation)
    return seen


def test_a_reader_gets_everything_from_where_it_begins() -> None:
    async def scenario(world: World) -> None:
        world.ring.take(numbered(5))
        with world.ring.reading(2) as reader:
            assert everything(reader) == [2, 3, 4]
            world.ring.take(numbered(300, 5))
            assert everything(reader, stop=10) == [5, 6, 7, 8, 9]
            assert everything(reader) == list(range(10, 305))
            assert reader.due() is None

    run(scenario)


def test_the_oldest_batch_goes_when_the_others_make_the_capacity() -> None:
    async def scenario(world: World) -> None:
        for first in range(0, 2 * ring.CAPACITY, 1000):
            world.ring.take(numbered(1000, first))
            assert min(world.ring.end, ring.CAPACITY) <= world.ring.end - world.ring.start < ring.CAPACITY + 1000
            assert world.ring.stored == min(world.ring.end, ring.CAPACITY)
        world.ring.take([])
        assert world.ring.end == 9000

    run(scenario)


def test_a_reader_that_was_overtaken_is_told_how_many_it_lost_and_goes_on_with_the_oldest() -> None:
    async def scenario(world: World) -> None:
        with world.ring.reading(0) as slow, world.ring.reading(0) as quick:
            total = 0
            for first in range(0, 3 * ring.CAPACITY, ring.CAPACITY):
                world.ring.take(numbered(ring.CAPACITY, first))
                total += len(everything(quick))
            assert total == 3 * ring.CAPACITY
            assert quick.due() is None
            seen = everything(slow)
            gap = slow.due()
            assert gap is not None
            assert (gap.lost.where, gap.lost.count + len(seen)) == ("client", 3 * ring.CAPACITY)
            assert seen[0] == gap.lost.count

    run(scenario)


def test_losses_are_told_once_a_second_one_at_a_time_and_none_is_forgotten() -> None:
    async def scenario(world: World) -> None:
        world.ring.tell_lost(verdict.Lost(count=99, where="ring"))
        with world.ring.reading(0) as reader:
            assert reader.read() == ()
            assert reader.due() is None, "what was lost before is not this reader's"
            told: list[tuple[str, int]] = []
            for _ in range(40):
                world.ring.tell_lost(verdict.Lost(count=1, where="ring"))
                world.ring.tell_lost(verdict.Lost(count=2, where="queue"))
                reader.read()
                if (gap := reader.due()) is not None:
                    told.append((gap.lost.where, gap.lost.count))
                    assert gap.first_ns <= gap.last_ns <= world.clock.unix_ns()
                world.clock.pass_s(0.1)
            assert len(told) == 4
            for _ in range(2):
                world.clock.pass_s(1)
                gap = reader.due()
                assert gap is not None
                told.append((gap.lost.where, gap.lost.count))
            assert reader.due() is None
            sums = {where: sum(count for one, count in told if one == where) for where in ("ring", "queue")}
            assert sums == {"ring": 40, "queue": 80}

    run(scenario)


def test_a_waiting_reader_wakes_for_what_another_thread_brings_even_between_reading_and_waiting() -> None:
    async def scenario(world: World) -> None:
        with world.ring.reading(0) as reader:
            assert reader.read() == ()
            await asyncio.to_thread(world.ring.take, numbered(1))
            await asyncio.sleep(0)
            await reader.wait()
            assert everything(reader) == [0]
            waiting = asyncio.create_task(reader.wait())
            await asyncio.sleep(0)
            await asyncio.to_thread(world.ring.tell_lost, verdict.Lost(count=1, where="ring"))
            await waiting
            assert world.ring.readers == 1
        assert world.ring.readers == 0

    run(scenario)


def test_a_flow_is_serialised_once_for_all_readers_and_never_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def response(_writer: writer.Writer, record: records.Record) -> bytes:
        made.append(record.serial)
        return b"7"

    async def scenario(world: World) -> None:
        monkeypatch.setattr(writer.Writer, "response", response)
        world.ring.take(numbered(10))
        for _ in range(3):
            with world.ring.reading(7) as reader:
                assert [batch.response(serial) for batch, serial in reader.read()] == [b"7"] * 3
        assert made == [7, 8, 9]

    run(scenario)


def test_a_reader_holds_on_to_no_batch_between_two_readings() -> None:
    async def scenario(world: World) -> None:
        with world.ring.reading(0) as reader:
            world.ring.take(numbered(ring.CHUNK + 1))
            reader.read()
            assert not any(isinstance(value, ring.Batch) for value in vars(reader).values())

    run(scenario)


def test_the_rate_is_that_of_the_last_minute() -> None:
    async def scenario(world: World) -> None:
        assert world.ring.rate == 0
        for _ in range(120):
            world.clock.pass_s(1)
            world.ring.take(numbered(5))
        assert world.ring.rate == pytest.approx(5, rel=0.1)
        world.clock.pass_s(30)
        assert world.ring.rate == pytest.approx(2.5, rel=0.1)
        world.clock.pass_s(300)
        assert world.ring.rate == 0

    run(scenario)
