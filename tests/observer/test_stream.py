"""The stream: nobody blocks, everybody learns what was lost."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest

from agent.model import verdict
from agent.observer import enrich, history, stream, unnamed
from tests.support import agents


def numbered(count: int, first: int = 0) -> list[verdict.VerdictEvent]:
    return [agents.flow(generation=number) for number in range(first, first + count)]


async def take(subscription: stream.Subscription, count: int) -> list[verdict.Item]:
    taken: list[verdict.Item] = []
    async with asyncio.timeout(5):
        async for item in subscription.items():
            taken.append(item)
            if len(taken) == count:
                break
    return taken


def test_a_reader_begins_with_the_stored_ones_and_misses_none_after() -> None:
    async def scenario() -> None:
        verdicts = stream.Stream(clock=agents.ManualClock())
        verdicts.publish(numbered(5))
        with verdicts.subscribe(last=2) as subscription:
            assert verdicts.readers == 1
            await asyncio.to_thread(verdicts.publish, numbered(2, 5))
            assert await take(subscription, 4) == numbered(4, 3)
        assert verdicts.readers == 0

    asyncio.run(scenario())


def test_only_the_newest_are_stored() -> None:
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish(numbered(stream.STORED + 10))
    assert verdicts.stored() == tuple(numbered(stream.STORED, 10))
    assert verdicts.stored(3) == tuple(numbered(3, stream.STORED + 7))
    assert verdicts.published == stream.STORED + 10


def test_a_slow_reader_loses_the_oldest_and_is_told_once_a_second() -> None:
    async def scenario() -> None:
        clock = agents.ManualClock()
        verdicts = stream.Stream(clock=clock)
        with verdicts.subscribe() as slow:
            verdicts.publish(numbered(stream.QUEUED + 3))
            assert await take(slow, 2) == [verdict.Lost(count=3, where="client"), *numbered(1, 3)]
            verdicts.publish(numbered(stream.QUEUED))
            verdicts.tell_lost(verdict.Lost(count=4, where="ring"))
            assert await take(slow, 1) == numbered(1)
            clock.pass_s(1)
            told = await take(slow, 2)
            assert told[1] == verdict.Lost(count=4, where="ring")
            assert isinstance(told[0], verdict.Lost)
            assert told[0].where == "client"

    asyncio.run(scenario())


def test_one_slow_reader_costs_another_nothing() -> None:
    async def scenario() -> None:
        verdicts = stream.Stream(clock=agents.ManualClock())
        with verdicts.subscribe(), verdicts.subscribe() as quick:
            for first in range(0, 3 * stream.QUEUED, stream.QUEUED):
                verdicts.publish(numbered(stream.QUEUED, first))
                assert await take(quick, stream.QUEUED) == numbered(stream.QUEUED, first)

    asyncio.run(scenario())


def test_what_a_reader_does_not_want_takes_no_room_in_its_queue() -> None:
    async def scenario() -> None:
        allowed = agents.flow(verdict=verdict.Verdict.FORWARDED)
        verdicts = stream.Stream(clock=agents.ManualClock())
        verdicts.publish([allowed])
        wanted = verdict.Filter(verdict=verdict.Verdict.FORWARDED, namespace="x", pod="b")
        with verdicts.subscribe(last=9, wanted=wanted) as subscription:
            verdicts.publish(numbered(2 * stream.QUEUED))
            verdicts.publish([allowed])
            assert await take(subscription, 2) == [allowed, allowed]
        assert verdicts.stored(wanted=wanted) == (allowed, allowed)

    asyncio.run(scenario())


def test_of_the_newest_stored_only_what_is_wanted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming takes ten times as long as reading: who asks for a few denials must not pay for all that was allowed."""
    past = history.History()
    past.enforced(1, agents.enforced(), agents.cluster())
    forwarded, dropped = agents.Event(verdict=1, reason=1), agents.Event()
    verdicts = stream.Stream(clock=agents.ManualClock())
    named: list[int] = []
    enriched = enrich.enrich

    def name(event: enrich.RawEvent, context: enrich.Context) -> verdict.VerdictEvent:
        named.append(event.verdict)
        return enriched(event, context)

    monkeypatch.setattr(enrich, "enrich", name)
    for batch in ([dropped] * 9 + [forwarded] * 5, [forwarded] * (stream.STORED - 7), [dropped]):
        verdicts.publish(unnamed.Unnamed(batch, enrich.Context(node="n1", past=past.past, monotonic_to_unix_ns=0)))
    wanted = verdict.Filter(verdict=verdict.Verdict.DROPPED)
    assert len(verdicts.stored(wanted=wanted)) == 2, "of the oldest batch the last six are stored"
    assert len(verdicts.stored(1, wanted=wanted)) == 1
    assert named == [2, 2, 2]


def test_a_filter_wants_name_and_namespace_of_one_end() -> None:
    event = agents.flow(destination=dataclasses.replace(agents.flow().destination, namespace="y"))
    assert verdict.Filter(namespace="x", pod="a").admits(event)
    assert verdict.Filter(namespace="y").admits(event)
    assert not verdict.Filter(namespace="x", pod="b").admits(event)
    assert not verdict.Filter(verdict=verdict.Verdict.FORWARDED).admits(event)


class Tapped:
    """A tap that keeps what it is handed."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.taken: list[verdict.VerdictEvent] = []
        self.lost: list[verdict.Lost] = []

    def take(self, events: Sequence[verdict.VerdictEvent]) -> None:
        self.taken.extend(events)

    def tell_lost(self, lost: verdict.Lost) -> None:
        self.lost.append(lost)


def test_a_tap_is_handed_everything_stored_and_to_come_and_counts_as_no_reader() -> None:
    verdicts, tap = stream.Stream(clock=agents.ManualClock()), Tapped()
    verdicts.publish(numbered(3))
    with verdicts.tapped(tap):
        verdicts.publish(numbered(2, 3))
        verdicts.tell_lost(verdict.Lost(count=4, where="ring"))
        assert verdicts.readers == 0
    verdicts.publish(numbered(1, 5))
    assert tap.taken == numbered(5)
    assert tap.lost == [verdict.Lost(count=4, where="ring")]
