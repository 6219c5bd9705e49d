"""The thread that reads the ring: batches, bounds, and the kernel's own losses."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import ipaddress
import os
import weakref
from collections.abc import Sequence

import pytest

from agent import desired, snapshot
from agent.model import net, verdict
from agent.observer import enrich, history, joining, observer, stream
from tests.support import agents


class Ring:
    """A reader over an eventfd: batches are put in by the test."""

    def __init__(self) -> None:
        """Start empty."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.batches: list[Sequence[agents.Event]] = []

    def put(self, batch: Sequence[agents.Event]) -> None:
        self.batches.append(batch)
        os.eventfd_write(self.fd, 1)

    def read(self) -> Sequence[agents.Event]:
        if not self.batches:
            return ()
        os.eventfd_read(self.fd)
        os.eventfd_write(self.fd, max(0, len(self.batches) - 1))
        return self.batches.pop(0)


class World:
    """An observer with a ring, a clock, and a kernel that counts losses."""

    def __init__(self, names: observer.Answers | None = None) -> None:
        """Start with the state of `agents.enforced` as generation 1."""
        self.ring = Ring()
        self.clock = agents.ManualClock()
        self.kernel_lost = 5
        self.stream = stream.Stream(clock=self.clock)
        self.past = past = history.History()
        past.enforced(1, agents.enforced(), agents.cluster())
        self.observer = observer.Observer(
            node="n1",
            reader=self.ring,
            kernel_lost=lambda: self.kernel_lost,
            history=past,
            stream=self.stream,
            clock=self.clock,
            names=names,
        )


def test_events_become_verdicts_on_the_wall_clock() -> None:
    world = World()
    world.ring.put([agents.Event(time_ns=world.clock.now_ns)])
    assert world.observer.read_once() == 1
    (event,) = world.stream.stored()
    assert event.destination.pod == "b"
    assert event.time_ns == world.clock.unix_ns()


class Told:
    """`observer.Answers`: an answer is known once it was waited for."""

    def __init__(self) -> None:
        """Know nothing."""
        self.waited = 0

    def wait_for_answers(self) -> None:
        self.waited += 1

    def names(self, endpoint: int, address: net.Address, monotonic_ns: int) -> tuple[str, ...]:
        assert (endpoint, address) == (2, agents.CLIENT)
        return (f"n{self.waited}-{monotonic_ns}.example.com",) if self.waited else ()


def test_a_batch_waits_once_for_what_dns_told_before_it_was_read() -> None:
    """Requirement F16."""
    told = Told()
    world = World(names=told)
    world.observer.read_once()
    assert told.waited == 0
    world.ring.put([agents.Event(time_ns=7), agents.Event(time_ns=8)])
    world.observer.read_once()
    names = [event.source.names for event in world.stream.stored()]
    assert names == [("n1-7.example.com",), ("n1-8.example.com",)]


def test_of_a_batch_that_is_too_large_the_newest_are_kept_and_the_others_counted() -> None:
    async def scenario() -> None:
        world = World()
        with world.stream.subscribe() as subscription:
            world.ring.put([agents.Event(source_port=port) for port in range(observer.BATCH + 7)])
            world.observer.read_once()
            assert world.observer.dropped == 7
            stored = world.stream.stored()
            assert stored[0].source.port == observer.BATCH + 7 - stream.STORED
            assert stored[-1].source.port == observer.BATCH + 6
            async with asyncio.timeout(5):
                told = {await anext(items) for items in [subscription.items()] for _ in range(2)}
            # The reader's own queue is shorter than a batch, so it lost some more.
            assert verdict.Lost(count=7, where="queue") in told

    asyncio.run(scenario())


def test_events_of_other_programs_are_counted_and_stop_nothing() -> None:
    world = World()
    world.ring.put([agents.Event(reason=77), agents.Event()])
    world.observer.read_once()
    assert world.observer.dropped == 1
    assert len(world.stream.stored()) == 1


def test_events_are_named_by_the_past_they_were_read_in_however_late_somebody_asks() -> None:
    world = World()
    world.ring.put([agents.Event()])
    world.observer.read_once()
    for number in range(2, 2 + 3 * history.KEPT):
        world.past.enforced(number, desired.DesiredState(), snapshot.Snapshot())
        world.observer.read_once()
    (event,) = world.stream.stored()
    assert (event.source.pod, event.isolating) == ("a", (agents.DENY.ref,))


def test_a_batch_lets_go_of_its_past_once_that_is_old() -> None:
    world = World()
    alive = weakref.ref(world.past.past.moments[1])
    world.ring.put([agents.Event()])
    world.observer.read_once()
    for number in range(2, 2 + history.KEPT):
        world.past.enforced(number, desired.DesiredState(), snapshot.Snapshot())
    gc.collect()
    assert alive() is not None
    world.observer.read_once()
    gc.collect()
    assert alive() is None


def test_nothing_is_named_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        named: list[object] = []
        world = World()

        def name(event: object, _: object) -> verdict.VerdictEvent:
            named.append(event)
            return agents.flow()

        monkeypatch.setattr(enrich, "enrich", name)
        with world.stream.subscribe(wanted=verdict.Filter(verdict=verdict.Verdict.DROPPED)):
            world.ring.put([agents.Event(verdict=1, reason=1)] * 100)
            world.observer.read_once()
            assert named == []
            world.ring.put([agents.Event(verdict=1, reason=1), agents.Event()])
            world.observer.read_once()
            assert named == [agents.Event()]
        world.stream.stored(3)
        assert len(named) == 4

    asyncio.run(scenario())


def test_readers_are_told_of_what_the_kernels_ring_lost_since_the_start() -> None:
    async def scenario() -> None:
        world = World()
        with world.stream.subscribe() as subscription:
            world.observer.read_once()
            world.clock.pass_s(1)
            world.kernel_lost += 3
            world.observer.read_once()
            async with asyncio.timeout(5):
                assert await anext(subscription.items()) == verdict.Lost(count=3, where="ring")

    asyncio.run(scenario())


def test_the_thread_wakes_for_events_and_ends_when_it_is_cancelled() -> None:
    async def scenario() -> None:
        world = World()
        with world.stream.subscribe() as subscription:
            task = asyncio.create_task(world.observer.run())
            await asyncio.sleep(0)
            world.ring.put([agents.Event()])
            async with asyncio.timeout(5):
                event = await anext(subscription.items())
            assert isinstance(event, verdict.VerdictEvent)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.timeout(5):
                    await task

    asyncio.run(scenario())


CALL = agents.Event(
    endpoint=1,
    direction=2,
    layer=1,
    verdict=1,
    reason=1,
    pid=77,
    command="curl",
    source=ipaddress.ip_address("::"),
    source_port=0,
    source_identity=0,
)
PACKET = dataclasses.replace(CALL, layer=2, pid=0, command="", source=agents.CLIENT, source_port=40000)


def test_a_call_and_its_packet_are_one_verdict_also_in_two_readings_and_two_to_who_wants_it_raw() -> None:
    world = World()
    now = world.clock.now_ns
    for event in (dataclasses.replace(CALL, time_ns=now), dataclasses.replace(PACKET, time_ns=now + 1)):
        world.ring.put([event])
        world.observer.read_once()
    (joined,) = world.stream.stored()
    assert (joined.layer, joined.joined) == (verdict.Layer.PACKET, True)
    assert joined.process == verdict.Process(pid=77, command="curl")
    layers = world.stream.stored(wanted=verdict.Filter(raw=True))
    assert [(one.layer, one.joined) for one in layers] == [(verdict.Layer.SOCKET, False), (verdict.Layer.PACKET, False)]
    for number in range(2, 2 + history.KEPT):
        world.past.enforced(number, desired.DesiredState(), snapshot.Snapshot())
    world.observer.read_once()
    assert world.stream.stored() == (joined,)
    assert world.stream.stored(wanted=verdict.Filter(raw=True)) == layers, "also once it has its names"


def test_a_follower_that_wants_it_raw_gets_each_layers_verdict() -> None:
    async def scenario() -> None:
        world = World()
        with world.stream.subscribe(wanted=verdict.Filter(raw=True, pod="a", namespace="x")) as subscription:
            now = world.clock.now_ns
            world.ring.put([dataclasses.replace(CALL, time_ns=now), dataclasses.replace(PACKET, time_ns=now + 1)])
            world.observer.read_once()
            items = subscription.items()
            async with asyncio.timeout(5):
                told = [await anext(items) for _ in range(2)]
        assert [one.layer for one in told if isinstance(one, verdict.VerdictEvent)] == list(verdict.Layer)

    asyncio.run(scenario())


def test_a_call_without_a_packet_is_told_when_it_has_waited() -> None:
    world = World()
    world.ring.put([dataclasses.replace(CALL, time_ns=world.clock.now_ns)])
    world.observer.read_once()
    assert world.stream.stored() == ()
    assert world.observer._wait_ns() == joining.WAIT_NS
    world.clock.pass_s(0.3)
    assert world.observer.read_once() == 0
    (event,) = world.stream.stored()
    assert (event.layer, event.joined) == (verdict.Layer.SOCKET, False)
    assert world.observer._wait_ns() == observer.LOOK_NS


def test_while_the_ring_holds_more_a_call_waits_for_its_packet_however_late_it_is() -> None:
    world = World()
    now = world.clock.now_ns
    others = [agents.Event(time_ns=now)] * observer.FULL
    world.clock.pass_s(5)
    world.ring.put([dataclasses.replace(CALL, time_ns=now), *others])
    world.observer.read_once()
    world.ring.put([dataclasses.replace(PACKET, time_ns=now + 1)])
    world.observer.read_once()
    assert world.stream.stored(1)[0].joined


def test_what_waits_is_told_when_the_observer_ends() -> None:
    async def scenario() -> None:
        world = World()
        world.ring.put([dataclasses.replace(CALL, time_ns=world.clock.now_ns)])
        task = asyncio.create_task(world.observer.run())
        with world.stream.subscribe() as subscription:
            await asyncio.sleep(0.2)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                event = await anext(subscription.items())
        assert isinstance(event, verdict.VerdictEvent)
        assert event.layer is verdict.Layer.SOCKET

    asyncio.run(scenario())
