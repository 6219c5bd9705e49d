"""What pods were told: waited for before a policy counts, kept while it may be needed, and over a restart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from agent import errors
from agent.datapath import base
from agent.fqdn import classes, history, patterns
from agent.learning import feed, memory
from agent.model import fqdn
from tests.learning import answering
from tests.support import agents

SECOND = 1_000_000_000
PATIENCE_S = 10.0
ADDRESS, PLACE = answering.address(), (answering.ENDPOINT, answering.address())


class World:
    """A memory with a ring, a clock, and a kernel that says what it knows."""

    def __init__(self, file: pathlib.Path) -> None:
        """Start with what the file has."""
        self.ring = answering.Ring()
        self.clock = agents.ManualClock()
        self.known = fqdn.Known()
        self.broken = False
        self.refused: list[base.Answer] = []
        self.memory = memory.Memory(
            feed=feed.Feed(self.ring),
            known=self._known,
            lifetimes=history.Lifetimes(grace_s=0),
            file=file,
            clock=self.clock,
            refused=self.refused.extend,
        )

    def _known(self) -> fqdn.Known:
        if self.broken:
            raise errors.DatapathError("gone")
        return self.known

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[memory.Memory]:
        task = asyncio.create_task(self.memory.run())
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield self.memory
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / memory.FILE


@pytest.fixture
def world(file: pathlib.Path) -> Iterator[World]:
    found = World(file)
    yield found
    found.ring.close()


def build(*texts: str) -> classes.Classes:
    return classes.build([map(patterns.parse_cilium_pattern, texts)])


def test_a_policy_waits_for_every_answer_that_has_been_given(world: World) -> None:
    """F26: what is in the ring at that moment is in what is learned."""
    names = build("*.example.com")

    async def scenario() -> fqdn.LearnedAddresses:
        async with world.running() as remembering:
            await asyncio.sleep(0.02)
            world.ring.put(*(answering.answer(number) for number in range(1, 50)))
            return await remembering.replayed(names, frozenset(names.contents))

    found = asyncio.run(scenario())
    (number,) = names.of(answering.NAME)
    assert found == {
        (answering.ENDPOINT, answering.address(index)): (fqdn.Learned(number, 61 * SECOND),) for index in range(1, 50)
    }
    assert world.memory.counted().replayed == 49
    assert world.memory.counted().late == 0


def test_a_policy_does_not_wait_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CATCH_UP_S", 0.05)
    world.ring.written += 1

    async def scenario() -> None:
        async with world.running() as remembering:
            assert await remembering.replayed(build("*"), frozenset()) == {}

    asyncio.run(scenario())
    assert world.memory.counted().late == 1


def test_only_classes_that_are_new_are_asked_for(world: World) -> None:
    """What the kernel has learned for all along needs no history."""
    names = build("*.example.com", "api.example.com")

    async def scenario() -> fqdn.LearnedAddresses:
        async with world.running() as remembering:
            world.ring.put(answering.answer())
            return await remembering.replayed(names, frozenset())

    assert asyncio.run(scenario()) == {}


def test_a_connection_s_name_is_learned_even_if_it_has_expired(world: World) -> None:
    """F17: a class that is new to an address in use gets it, with the time that has passed."""
    names = build("*.example.com")
    world.known = fqdn.Known(used=frozenset({PLACE}))

    async def scenario(*, broken: bool) -> fqdn.LearnedAddresses:
        world.broken = broken
        return await world.memory.replayed(names, frozenset(names.contents))

    world.memory.take(feed.Batch(world.ring.written, _told(answering.answer(1, ttl_s=1), answering.answer(2, ttl_s=1))))
    world.clock.pass_s(100)
    assert asyncio.run(scenario(broken=False)) == {PLACE: (fqdn.Learned(names.of(answering.NAME)[0], 2 * SECOND),)}
    assert asyncio.run(scenario(broken=True)) == {}, "and a policy still counts where that cannot be known"


def _told(*answers: answering.Answer) -> tuple[fqdn.Answered, ...]:
    ring = answering.Ring()
    reader = feed.Feed(ring)
    ring.put(*answers)
    batch = reader.read_once()
    assert batch is not None
    reader.close()
    ring.close()
    return batch.answered


def test_it_is_written_down_and_found_by_the_next_agent(world: World, file: pathlib.Path) -> None:
    """F25, and what an agent is asked for: the names that an address has."""

    async def scenario() -> None:
        async with world.running() as remembering:
            world.ring.put(answering.answer())
            await answering.until(remembering.remembered)

    asyncio.run(scenario())
    assert world.memory.names(*PLACE, SECOND) == (answering.NAME,)
    following = World(file)
    assert following.memory.remembered() == world.memory.remembered() != ()
    following.memory.keep_only(set())
    assert following.memory.remembered() == ()
    following.ring.close()


def test_verdicts_wait_for_answers_that_came_before_them(world: World) -> None:
    """F16: a pod connects as soon as it was answered, and both are read by different threads."""

    async def scenario() -> tuple[str, ...]:
        async with world.running() as remembering:
            await asyncio.sleep(0.02)
            for number in range(50):
                world.ring.put(answering.answer(number))
                await asyncio.to_thread(remembering.wait_for_answers)
                assert remembering.names(answering.ENDPOINT, answering.address(number), SECOND) == (answering.NAME,)
            return remembering.names(answering.ENDPOINT, answering.address(7), SECOND - 1)

    assert asyncio.run(scenario()) == ()


def test_verdicts_do_not_wait_for_long(world: World) -> None:
    """Nobody reads the ring here."""
    world.ring.put(answering.answer())
    world.memory.wait_for_answers()
    assert world.memory.names(*PLACE, SECOND) == ()


def test_what_was_refused_is_handed_on_and_not_remembered(world: World) -> None:
    """Rule E17: the kernel tells of it on the same ring."""

    async def scenario() -> None:
        async with world.running() as remembering:
            refused = dataclasses.replace(answering.answer(2), outcome=base.Outcome.REFUSED)
            world.ring.put(answering.answer(1), refused, answering.answer(3))
            await answering.until(lambda: len(remembering.remembered()) == 2)
            assert [one.outcome for one in world.refused] == [base.Outcome.REFUSED]
            assert remembering.counted().read == 2

    asyncio.run(scenario())


def test_an_agent_that_is_killed_loses_a_second(
    world: World, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "SAVE_S", 0.01)

    async def scenario() -> None:
        async with world.running():
            world.ring.put(answering.answer())
            await answering.until(file.exists)
            following = World(file)
            assert len(following.memory.remembered()) == 1
            following.ring.close()

    asyncio.run(scenario())


def test_a_file_that_cannot_be_read_is_told_of_and_forgotten(file: pathlib.Path) -> None:
    file.write_text("{")
    found = World(file)
    assert found.memory.remembered() == ()
    found.ring.close()


def test_sweeping_counts_and_forgets_what_nobody_needs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SWEEP_S", 0.01)
    learned = (fqdn.Learned(1 << 31, 5 * SECOND),)
    world.known = fqdn.Known(addresses={PLACE: learned, (9, ADDRESS): (fqdn.Learned(1 << 31, 1),)}, used={PLACE})  # type: ignore[arg-type]  # a set will do
    world.memory.take(feed.Batch(world.ring.written, _told(answering.answer(1), answering.answer(2))))

    async def scenario() -> None:
        async with world.running() as remembering:
            await answering.until(lambda: remembering.counted().learned)
            assert remembering.counted().expired == 1
            assert remembering.counted().addresses == 2
            world.clock.pass_s(60 + history.EXPIRED_KEPT_NS / SECOND + 1)
            await answering.until(lambda: remembering.counted().addresses < 2)
            assert [one.address for one in remembering.remembered()] == [ADDRESS], "a connection needs it"
            world.broken = True
            await asyncio.sleep(0.05)
            assert remembering.counted().expired == 2

    asyncio.run(scenario())
