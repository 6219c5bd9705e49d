"""What is shown to machines follows from what the agent's parts know."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from agent import clock, errors, health, reconciler, telemetry
from agent.datapath import base, memory
from agent.metrics import registry
from agent.model import endpoint, net, verdict
from agent.observer import history, observer, stream
from agent.sources.kubernetes import api, source
from tests.support import agents

PODS, NODES = api.Resource.PODS, api.Resource.NODES


class Engine(memory.MemoryDatapath):
    """Lacks what it is told to, and has one map and some sets."""

    lacks: tuple[str, ...] = ()

    def missing(self) -> Sequence[str]:
        return self.lacks

    def usage(self) -> Mapping[str, base.Usage]:
        return {"policy": base.Usage(3, 4), base.SETS: base.Usage(12, 0)}


@dataclasses.dataclass
class Cluster:
    """As the source `kubernetes` has it."""

    states: tuple[source.WatchState, ...] = ()
    counters: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)


class World:
    """An agent's parts."""

    def __init__(self) -> None:
        """Start nothing."""
        self.clock = agents.ManualClock()
        self.engine = Engine()
        self.metrics = registry.Registry()
        self.cluster = Cluster()
        self.verdicts = stream.Stream(clock=self.clock)
        self.loop = reconciler.Reconciler(
            datapath=self.engine,
            node="n1",
            deny_mode=endpoint.DenyMode.REJECT,
            hold_mode=endpoint.HoldMode.AUTO,
            clock=clock.SystemClock(),
            applied=telemetry.applied(self.metrics, clock.SystemClock()),
        )
        self.told = telemetry.Telemetry(
            version="0.1.0",
            report=base.EngineReport(mode="socket+iptables", variant="nft"),
            datapath=self.engine,
            loop=self.loop,
            verdicts=self.verdicts,
            watcher=None,
            counters=lambda: {"events_lost": 5, "packet_denied": 6},
            clock=self.clock,
            heart=health.Heart(self.clock),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[reconciler.Reconciler]:
        task = asyncio.create_task(self.loop.run())
        try:
            async with asyncio.timeout(10):
                yield self.loop
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def enforced(self) -> None:
        async def scenario() -> None:
            async with self.running() as loop:
                loop.set_source(agents.update())
                loop.set_sandboxes(agents.SANDBOXES)
                await loop.reached(2)

        asyncio.run(scenario())


def test_an_agent_that_has_read_nothing_is_not_ready_and_says_what_it_waits_for() -> None:
    world = World()
    assert world.told.not_ready() == (
        "inputs: no first whole list of the source, this node's sandboxes",
        "enforced: no policy applied by this agent yet",
    )


def test_the_resources_of_the_api_server_are_named_that_are_not_in_yet() -> None:
    world = World()
    states = [source.WatchState(resource=one, since_unix_ns=1, synced=one is NODES) for one in (PODS, NODES)]
    world.told.cluster = Cluster(states=tuple(states))
    assert "list of pods, this node's sandboxes" in world.told.not_ready()[0]


def test_an_agent_that_enforces_is_ready_until_something_of_its_engine_is_gone() -> None:
    world = World()
    world.enforced()
    assert not world.told.not_ready()
    world.engine.lacks = ("the pin /x is gone",)
    assert world.told.not_ready() == ("datapath: the pin /x is gone",)
    world.engine.lacks = ()
    world.loop.repairs = reconciler.Repairs(error="the lock is held")
    assert world.told.not_ready() == ("datapath: the lock is held",)


def test_a_change_that_cannot_be_applied_leaves_the_agent_ready() -> None:
    world = World()
    world.enforced()
    world.loop.error = "map is full"
    assert not world.told.not_ready()


def test_the_pages_answer_200_or_503() -> None:
    world = World()
    pages = telemetry.health_pages(world.told)
    assert pages["/readyz"](frozenset()).status is http.HTTPStatus.SERVICE_UNAVAILABLE
    assert b"[-] inputs failed" in pages["/readyz"](frozenset()).content
    assert pages["/livez"](frozenset()).content == b"ok\n"
    world.clock.pass_s(60)
    assert pages["/livez"](frozenset()).status is http.HTTPStatus.SERVICE_UNAVAILABLE
    world.enforced()
    assert pages["/readyz"](frozenset({"verbose"})).content.startswith(b"[+] inputs ok")
    assert pages["/readyz"](frozenset()).status is http.HTTPStatus.OK


def test_a_scrape_shows_what_is_enforced() -> None:
    world = World()
    world.enforced()
    taken = world.told.take()
    assert taken.ready
    assert taken.policies == {"NetworkPolicy": 1}
    assert taken.endpoints == {"isolated": 2, "open": 0, "held": 0}
    assert (taken.revision, taken.enforced_revision) == (2, 2)
    assert (taken.usage, taken.set_members) == ({"policy": base.Usage(3, 4)}, 12)
    assert taken.lost == {"ring": 5, "queue": 0, "client": 0}
    assert taken.decisions == {("packet", "denied"): 6}
    text = telemetry.metrics_pages(world.told, world.metrics)["/metrics"](frozenset()).content.decode()
    assert "nodewall_apply_seconds_count 1.0" in text
    assert 'nodewall_engine_info{mode="socket+iptables",variant="nft"} 1.0' in text


def test_a_scrape_before_anything_is_enforced_has_no_policies() -> None:
    taken = World().told.take()
    assert (taken.ready, taken.generation, taken.policies) == (False, None, {})


def test_watches_have_an_age_even_before_the_server_has_said_anything() -> None:
    world = World()
    now = world.clock.unix_ns()
    states = (
        source.WatchState(resource=PODS, since_unix_ns=now - 9_000_000_000, heard_unix_ns=now - 2_000_000_000),
        source.WatchState(resource=NODES, since_unix_ns=now - 9_000_000_000),
    )
    counters = {("watches", "pods"): 4, ("requests", "pods"): 6, ("relists", "pods"): 1, ("failures", "pods"): 2}
    world.told.cluster = Cluster(states=states, counters=counters)
    pods, nodes = world.told.take().watches
    assert (pods.resource, pods.age_s, pods.restarts, pods.relists, pods.requests, pods.failures) == (
        *("pods", 2.0, 3, 1),
        *(6, 2),
    )
    assert (nodes.age_s, nodes.restarts) == (9.0, 0)


class Ring:
    """Two events, one of a kind nobody knows."""

    fd = 0

    def read(self) -> Sequence[agents.Event]:
        return [agents.Event(), agents.Event(), agents.Event(reason=99)]


def test_verdicts_are_counted_by_kind_whoever_reads_them() -> None:
    world = World()
    past = history.History()
    past.enforced(1, agents.enforced(), agents.cluster())
    world.told.watcher = observer.Observer(
        node="n1",
        reader=Ring(),
        kernel_lost=lambda: 0,
        history=past,
        stream=world.verdicts,
        clock=world.clock,
    )
    world.told.watcher.read_once()
    taken = world.told.take()
    kind = (verdict.Verdict.DROPPED, net.Direction.INGRESS, verdict.Reason.POLICY_DENIED, verdict.Layer.PACKET)
    assert taken.verdicts == {kind: 2}
    assert taken.lost["queue"] == 1


def test_verdicts_a_reader_was_too_slow_for_are_counted() -> None:
    async def scenario() -> None:
        world = World()
        with world.verdicts.subscribe():
            world.verdicts.publish([agents.flow()] * (stream.QUEUED + 3))
            assert world.told.take().lost["client"] == 3

    asyncio.run(scenario())


def test_the_time_of_a_change_counts_from_the_first_that_waited_and_a_failed_run_does_not_end_it() -> None:
    async def scenario() -> None:
        world = World()
        noted: list[float | None] = []
        observe = world.metrics.applied

        def note(*, seconds: float, since_change_s: float | None) -> None:
            noted.append(since_change_s)
            observe(seconds=seconds, since_change_s=since_change_s)

        world.metrics.applied = note  # type: ignore[method-assign]  # to see it
        refusals = [errors.ApplyFailed("no")]
        apply = world.engine.apply

        def refusing(desired: object) -> base.Applied:
            if refusals and noted:
                raise refusals.pop()
            return apply(desired)  # type: ignore[arg-type]  # what it was given

        world.engine.apply = refusing  # type: ignore[method-assign]  # fails once
        wall = clock.SystemClock()
        async with world.running() as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await loop.reached(2)
            first = dataclasses.replace(agents.update(), changed_unix_ns=wall.unix_ns() - 50_000_000_000)
            loop.set_source(first)
            loop.set_source(dataclasses.replace(first, changed_unix_ns=wall.unix_ns()))
            await loop.reached(4)
            loop.set_sandboxes(())
            await loop.reached(5)
            assert loop.failures == 1
            assert loop.inputs.waiting_unix_ns == 0
        assert noted[0] is None  # what there was at the start is no change
        assert noted[1] is not None
        assert 50 <= noted[1] < 60
        assert noted[2] is None  # pods are no change of the cluster

    asyncio.run(scenario())


def test_a_worker_that_does_not_return_is_seen() -> None:
    async def scenario() -> None:
        world = World()
        async with world.running() as loop:
            assert loop.busy_ns == 0
            begun = asyncio.Event()
            here = asyncio.get_running_loop()

            def attach(_sandboxes: object) -> None:
                here.call_soon_threadsafe(begun.set)
                time.sleep(0.05)

            world.engine.attach_links = attach  # type: ignore[method-assign,assignment]  # to be slow
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await begun.wait()
            assert loop.busy_ns > 0
            await loop.reached(2)

    asyncio.run(scenario())
