"""The loop: level-triggered, gated, one writer, and never worse than the last policy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from agent import clock, desired, errors, reconciler, snapshot
from agent.datapath import base, memory
from agent.model import endpoint, identity, net
from tests.support import agents

UNHEARD = identity.FIRST_NAME_CLASS


class Recording(memory.MemoryDatapath):
    """Remembers what it was asked, and refuses while it is told to."""

    def __init__(self) -> None:
        """Refuse nothing yet."""
        super().__init__()
        self.applied: list[desired.DesiredState] = []
        self.refusal: errors.DatapathError | None = None
        self.attached: list[tuple[endpoint.Sandbox, ...]] = []
        self.settled: Callable[[], object] = lambda: None
        self.repaired: Callable[[], Sequence[str]] = tuple

    def settle(self) -> None:
        self.settled()

    def repair(self) -> Sequence[str]:
        return self.repaired()

    def attach_links(self, sandboxes: object) -> None:
        assert isinstance(sandboxes, tuple)
        self.attached.append(sandboxes)

    def apply(self, desired: desired.DesiredState) -> base.Applied:
        self.applied.append(desired)
        if self.refusal is not None:
            raise self.refusal
        return super().apply(desired)


class Heard:
    """A listener that writes down the order."""

    def __init__(self) -> None:
        """Start with a blank page."""
        self.words: list[str] = []

    def staged(self, state: desired.DesiredState, snapshot: snapshot.Snapshot) -> None:
        self.words.append(f"staged {state.revision} {len(snapshot.pods)}")

    def enforced(self, generation: int, state: desired.DesiredState, snapshot: snapshot.Snapshot) -> None:
        self.words.append(f"enforced {state.revision} as {generation} {len(snapshot.pods)}")


@contextlib.asynccontextmanager
async def running(
    datapath: base.Datapath, *listeners: reconciler.Listener, **more: Any
) -> AsyncIterator[reconciler.Reconciler]:
    """Run one; `more` is what else it is made with."""
    loop = reconciler.Reconciler(
        datapath=datapath,
        node="n1",
        deny_mode=endpoint.DenyMode.REJECT,
        hold_mode=endpoint.HoldMode.AUTO,
        clock=clock.SystemClock(),
        listeners=listeners,
        **more,
    )
    task = asyncio.create_task(loop.run())
    try:
        yield loop
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def reached(loop: reconciler.Reconciler, revision: int) -> None:
    async with asyncio.timeout(5):
        await loop.reached(revision)


def test_nothing_is_applied_before_every_input_has_delivered_its_first_list() -> None:
    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            await asyncio.sleep(0.05)
            assert not datapath.applied
            assert not loop.inputs.synced
            loop.set_sandboxes(())  # a node without pods is a first list, too
            await reached(loop, 2)
        assert len(datapath.applied) == 1

    asyncio.run(scenario())


def test_what_is_enforced_is_told_before_the_datapath_cleans_up() -> None:
    async def scenario() -> None:
        datapath = Recording()
        free = threading.Event()
        datapath.settled = lambda: free.wait(5)
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
            free.set()

    asyncio.run(scenario())


def test_cleaning_up_that_fails_is_told_and_all_is_applied_again() -> None:
    async def scenario() -> None:
        def fail() -> None:
            raise errors.ApplyFailed("no room")

        datapath = Recording()
        datapath.settled = fail
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
            async with asyncio.timeout(5):
                while not loop.error:  # noqa: ASYNC110 - nothing tells of an error
                    await asyncio.sleep(0.001)
                datapath.settled = lambda: None
                while loop.error:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.001)
        assert len(datapath.applied) > 1

    asyncio.run(scenario())


def test_many_kicks_are_one_run_over_the_last_inputs() -> None:
    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_sandboxes(agents.SANDBOXES)
            for number in range(50):
                loop.set_source(agents.update(digest=str(number)))
            await reached(loop, 51)
            assert loop.enforcement is not None
            assert loop.enforcement.inputs.source is not None
            assert loop.enforcement.inputs.source.digest == "49"
        assert len(datapath.applied) == 1

    asyncio.run(scenario())


def test_a_lone_change_is_enforced_at_once_and_one_of_many_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "MIN_INTERVAL_S", 60.0)
    monkeypatch.setattr(reconciler, "BUSY_S", 0.0)

    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_sandboxes(agents.SANDBOXES)
            for number in range(2):
                loop.set_source(agents.update(digest=str(number)))
                await reached(loop, 2 + number)
            monkeypatch.setattr(reconciler, "BUSY_S", 60.0)
            loop.set_source(agents.update(digest="one of many"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await loop.reached(4)
        assert len(datapath.applied) == 2

    asyncio.run(scenario())


def test_the_policy_is_enforced_on_the_pods_of_the_node() -> None:
    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
            judged = datapath.judge(
                client=agents.CLIENT, server=agents.SERVER, protocol=6, port=80, hook=memory.Hook.FORWARD
            )
            assert not judged.allowed
            assert judged.direction is net.Direction.INGRESS
            assert datapath.attached == [agents.SANDBOXES]

    asyncio.run(scenario())


def test_inputs_that_change_nothing_write_nothing_but_count_as_enforced() -> None:
    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
            tables = datapath.tables
            loop.set_source(agents.update(digest="two"))
            await reached(loop, 3)
            assert datapath.tables == tables
            assert loop.enforcement is not None
            assert loop.enforcement.generation == tables.generation

    asyncio.run(scenario())


def test_a_refused_change_keeps_the_last_policy_is_reported_and_tried_again() -> None:
    async def scenario() -> None:
        datapath = Recording()
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
            before = datapath.tables
            datapath.refusal = errors.MapFull(table="policy", rows=9, capacity=8)
            loop.set_sandboxes(agents.SANDBOXES[:1])
            async with asyncio.timeout(5):
                while len(datapath.applied) < 3:  # noqa: ASYNC110 - a retry is what is waited for
                    await asyncio.sleep(0.01)
            assert "holds 8 rows" in loop.error
            assert loop.enforcement is not None
            assert loop.enforcement.inputs.revision == 2
            assert datapath.tables == before
            datapath.refusal = None
            await reached(loop, 3)
            assert loop.error == ""

    asyncio.run(scenario())


def test_a_change_of_input_ends_the_wait_for_a_retry() -> None:
    async def scenario() -> None:
        datapath = Recording()
        datapath.refusal = errors.ApplyFailed("no")
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await asyncio.sleep(0.9)  # three retries; the next is half a second away or more
            datapath.refusal = None
            loop.set_source(agents.update(digest="two"))
            async with asyncio.timeout(0.3):
                await loop.reached(3)

    asyncio.run(scenario())


def test_listeners_hear_of_a_state_before_it_can_cause_a_verdict() -> None:
    async def scenario() -> None:
        heard = Heard()
        async with running(Recording(), heard) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await reached(loop, 2)
        assert heard.words == ["staged 2 2", "enforced 2 as 1 2"]

    asyncio.run(scenario())


def test_what_others_change_is_put_right_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(reconciler, "REPAIR_INTERVAL_S", 0.01)
        datapath = Recording()
        threads: list[str] = []
        broken = [["the jump in FORWARD", "a rule"], [], ["a set"]]

        def repair() -> Sequence[str]:
            threads.append(threading.current_thread().name)
            return broken.pop(0) if broken else ()

        datapath.repaired = repair
        async with running(datapath) as loop:
            await asyncio.sleep(0.05)
            assert not threads, "nothing is repaired before something is enforced"
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            async with asyncio.timeout(5):
                while loop.repairs.count < 3:  # noqa: ASYNC110 - nothing tells of a repair
                    await asyncio.sleep(0.005)
            assert loop.repairs.last == "a set"
            assert loop.repairs.unix_ns > 0
            assert set(threads) == {"reconciler_0"}, "the one thread that applies"

    asyncio.run(scenario())


def test_a_repair_that_fails_is_published_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        def fail() -> Sequence[str]:
            raise errors.ApplyFailed("the lock is held")

        monkeypatch.setattr(reconciler, "REPAIR_INTERVAL_S", 0.01)
        datapath = Recording()
        datapath.repaired = fail
        async with running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            async with asyncio.timeout(5):
                while not loop.repairs.error:  # noqa: ASYNC110 - nothing tells of a repair
                    await asyncio.sleep(0.005)
                assert loop.repairs.error == "the lock is held"
                assert loop.error == "", "the policy is in force"
                datapath.repaired = tuple
                while loop.repairs.error:  # noqa: ASYNC110 - likewise
                    await asyncio.sleep(0.005)
        assert loop.repairs.count == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("failures", "least", "most"), [(1, 0.075, 0.125), (4, 0.6, 1.0), (50, 22.5, 37.5)])
def test_retries_come_later_and_later_within_a_bound_and_not_in_step(failures: int, least: float, most: float) -> None:
    assert reconciler.retry_delay_s(failures, 0.0) == pytest.approx(least)
    assert reconciler.retry_delay_s(failures, 1.0) == pytest.approx(most)


@pytest.mark.parametrize(("took_s", "rest_s"), [(0.0, 1.0), (0.25, 1.0), (0.5, 2.0), (3.0, 4.0)])
def test_a_slow_look_for_repairs_is_followed_by_a_longer_rest(took_s: float, rest_s: float) -> None:
    assert reconciler.rest_s(took_s) == rest_s
