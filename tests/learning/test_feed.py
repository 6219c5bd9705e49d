"""From the ring to the queue: in order, complete, and never more than there is room for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from agent.learning import feed
from tests.bpf.dns import wire
from tests.learning import answering

PATIENCE_S = 10.0


@pytest.fixture
def ring() -> Iterator[answering.Ring]:
    with contextlib.closing(answering.Ring()) as found:
        yield found


def test_a_batch_has_what_can_be_remembered_and_says_how_far_it_reaches(ring: answering.Ring) -> None:
    reader = feed.Feed(ring)
    assert reader.read_once() is None
    nothing = answering.Answer(answering.ENDPOINT, 5, wire.answer(answering.NAME))
    ring.put(answering.answer(1), nothing, answering.answer(2))
    batch = reader.read_once()
    assert batch is not None
    assert [one.addresses[0][0] for one in batch.answered] == [answering.address(1), answering.address(2)]
    assert batch.until == ring.written
    assert reader.read == 3
    reader.close()


def test_of_answers_without_addresses_a_batch_says_that_they_were_read(ring: answering.Ring) -> None:
    """Whoever waits for everything up to now must not wait for ever."""
    reader = feed.Feed(ring)
    ring.put(answering.Answer(answering.ENDPOINT, 5, b"nonsense"))
    assert reader.read_once() == feed.Batch(ring.written, ())
    reader.close()


def test_every_answer_arrives_once_and_in_order(ring: answering.Ring) -> None:
    async def scenario() -> list[int]:
        reader = feed.Feed(ring)
        found: list[int] = []

        def take(batch: feed.Batch) -> None:
            found.extend(one.at_ns for one in batch.answered)

        task = asyncio.create_task(reader.run(take))
        for number in range(300):
            ring.put(answering.answer(time_ns=number))
            if number % 50 == 0:
                await asyncio.sleep(0.002)
        async with asyncio.timeout(PATIENCE_S):
            await answering.until(lambda: len(found) == 300)
        await _ended(task)
        reader.close()
        reader.close()
        reader.wake()
        return found

    assert asyncio.run(scenario()) == list(range(300))


def test_where_the_queue_is_full_the_ring_waits(ring: answering.Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BATCHES", 2)
    monkeypatch.setattr(feed, "GATHER_MS", 0)

    async def scenario() -> None:
        reader = feed.Feed(ring)
        found: list[int] = []

        def take(batch: feed.Batch) -> None:
            found.append(batch.until)

        task = asyncio.create_task(reader.run(take))
        await asyncio.sleep(0.05)
        end = time.monotonic() + PATIENCE_S
        while not reader.waited and time.monotonic() < end:  # the event loop is kept busy
            ring.put(answering.answer())
            time.sleep(0.01)  # noqa: ASYNC251 - just that
        assert reader.waited
        async with asyncio.timeout(PATIENCE_S):
            await answering.until(lambda: found[-1:] == [ring.written])
        await _ended(task)
        reader.close()

    asyncio.run(scenario())


def test_what_is_wrong_with_taking_ends_the_task(ring: answering.Ring) -> None:
    async def scenario() -> None:
        reader = feed.Feed(ring)

        def take(_batch: feed.Batch) -> None:
            raise ValueError("no")

        ring.put(answering.answer())
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ExceptionGroup):
                await reader.run(take)
        reader.close()

    asyncio.run(scenario())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
