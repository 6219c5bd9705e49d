"""The source over HTTP: when it yields, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from agent import clock
from agent.sources import manifests
from agent.sources.kubernetes import api, backoff, connection, source
from tests.decode import samples
from tests.sources.kubernetes import scripted, server

LIMIT_S = 20


class Cluster:
    """Lists one pod; watches hang, and say what they are told to say."""

    def __init__(self) -> None:
        """Start with everything working."""
        self.refused: set[str] = set()
        """Resources whose requests are refused."""
        self.absent: set[str] = set()
        """Resources that are not served."""
        self.watching: dict[str, server.Request] = {}
        self.opening = threading.Event()
        """Watches are answered."""
        self.opening.set()

    def answer(self, request: server.Request) -> None:
        resource = request.path.partition("?")[0].rpartition("/")[2]
        if resource in self.refused:
            request.say(b'{"reason":"Forbidden"}', status=403)
        elif resource in self.absent:
            request.say(b"404 page not found\n", status=404)
        elif "watch" in request.query:
            self.opening.wait(LIMIT_S)
            request.begin()
            self.watching[resource] = request
            request.server.released.wait()
        else:
            pods = [scripted.pod("a", 1)] if resource == "pods" else []
            request.say(scripted.page(*pods, version=5))

    def say(self, resource: api.Resource, *lines: bytes) -> None:
        self.watching[resource.value].chunk(b"".join(line + b"\n" for line in lines))


def run(
    test: Callable[[AsyncGenerator[manifests.Update, None], source.KubernetesSource, Cluster], Any],
) -> list[source.WatchState]:
    """Run a coroutine against a cluster; return what was told."""
    told: list[source.WatchState] = []

    async def main() -> None:
        cluster = Cluster()
        with server.Server(cluster.answer) as between:
            made = source.KubernetesSource(
                access=server.Plain(between.url), clock=clock.SystemClock(), told=told.append
            )
            async with asyncio.timeout(LIMIT_S), contextlib.aclosing(made.watch()) as updates:
                await test(updates, made, cluster)

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
    return told


async def eventually(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for happens in threads
        await asyncio.sleep(0.01)


def test_it_yields_once_all_lists_are_in_then_after_each_change() -> None:
    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        began = time.time_ns()
        first = await anext(updates)
        assert list(first.snapshot.pods) == [("x", "a")]
        assert first.digest == ",".join(f"{one}@5" for one in sorted(one.value for one in api.Resource))
        assert began < first.changed_unix_ns < time.time_ns()
        following = asyncio.ensure_future(anext(updates))
        await eventually(lambda: made.lost_unix_ns is None and len(cluster.watching) == len(api.Resource))
        cluster.say(api.Resource.NODES, scripted.bookmark(8))
        cluster.say(api.Resource.PODS, scripted.event("MODIFIED", scripted.pod("a", 6)))
        await asyncio.sleep(0.1)
        assert not following.done()
        burst = [scripted.event("ADDED", scripted.pod(f"b{number}", 7 + number)) for number in range(50)]
        cluster.say(api.Resource.PODS, *burst)
        second = await following
        while len(second.snapshot.pods) < 51:
            second = await anext(updates)
        assert "nodes@8" in second.digest
        assert "pods@56" in second.digest
        assert made.counters["events", "pods"] == 51
        assert made.counters["requests", "pods"] == 2

    told = run(test)
    assert {state.resource for state in told} == set(api.Resource)
    assert all(state.connected for state in told)


def test_a_lone_change_is_yielded_at_once_and_one_of_many_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        await anext(updates)
        following = asyncio.ensure_future(anext(updates))
        await eventually(lambda: made.lost_unix_ns is None and len(cluster.watching) == len(api.Resource))
        monkeypatch.setattr(source, "SETTLE_S", 60.0)
        monkeypatch.setattr(source, "BUSY_S", 0.0)
        cluster.say(api.Resource.PODS, scripted.event("MODIFIED", scripted.pod("b", 6)))
        assert ("x", "b") in (await following).snapshot.pods
        monkeypatch.setattr(source, "BUSY_S", 60.0)
        following = asyncio.ensure_future(anext(updates))
        cluster.say(api.Resource.PODS, scripted.event("MODIFIED", scripted.pod("c", 7)))
        await asyncio.sleep(0.2)
        assert not following.done()
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    run(test)


def test_a_server_that_has_sent_its_lists_is_not_lost_while_the_watches_open() -> None:
    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        cluster.opening.clear()
        try:
            await anext(updates)
            assert made.lost_unix_ns is None
        finally:
            cluster.opening.set()

    run(test)


def test_a_resource_that_is_refused_holds_everything_back_and_is_named() -> None:
    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        cluster.refused.add("nodes")
        first = asyncio.ensure_future(anext(updates))
        await eventually(lambda: made.counters["failures", "nodes"] >= 2)
        await eventually(lambda: sum(not state.synced for state in made.states) == 1)
        assert not first.done()
        (refused,) = [state for state in made.states if not state.synced]
        assert refused.resource is api.Resource.NODES
        assert refused.error.startswith("403 Forbidden")
        assert made.lost_unix_ns == refused.since_unix_ns
        cluster.refused.clear()
        await first

    told = run(test)
    assert [state.error for state in told if state.error] == ["403 Forbidden: "]


def test_a_custom_resource_that_is_not_served_holds_nothing_back_and_is_found_when_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backoff, "ABSENT_S", 0.1)
    policies = api.Resource.CLUSTER_NETWORK_POLICIES

    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        cluster.absent.add(policies.value)
        first = await anext(updates)
        assert policies.value not in first.digest
        (absent,) = [state for state in made.states if not state.served]
        assert (absent.resource, absent.synced, absent.connected, absent.error) == (policies, True, True, "")
        following = asyncio.ensure_future(anext(updates))
        await eventually(lambda: made.lost_unix_ns is None and made.counters["absent", policies.value] > 2)
        assert made.counters["relists", policies.value] == 0
        assert made.counters["failures", policies.value] == 0
        cluster.absent.clear()
        await eventually(lambda: policies.value in cluster.watching)
        await eventually(lambda: all(state.served for state in made.states))
        document = {**samples.cluster_policy(), "metadata": {"name": "w", "resourceVersion": "6"}}
        cluster.say(policies, scripted.event("ADDED", document))
        second = await following
        assert [str(ref) for ref in second.snapshot.policies] == ["ClusterNetworkPolicy w"]

    told = run(test)
    assert [state.served for state in told if state.resource is policies] == [False, True]


def test_a_watch_that_breaks_keeps_the_state_and_says_since_when() -> None:
    async def test(
        updates: AsyncGenerator[manifests.Update, None], made: source.KubernetesSource, cluster: Cluster
    ) -> None:
        first = await anext(updates)
        following = asyncio.ensure_future(anext(updates))
        await eventually(lambda: made.lost_unix_ns is None and len(cluster.watching) == len(api.Resource))
        cluster.refused.add("pods")
        before = time.time_ns()
        cluster.say(api.Resource.PODS, scripted.error(500))
        await eventually(lambda: made.lost_unix_ns is not None)
        await asyncio.sleep(backoff.FIRST_S * 3)
        lost = made.lost_unix_ns
        assert lost is not None
        assert before < lost < time.time_ns() - backoff.FIRST_S
        assert made.store.snapshot is first.snapshot
        cluster.refused.clear()
        await eventually(lambda: made.lost_unix_ns is None)
        assert made.counters["lists", "pods"] == 1
        assert made.counters["reconnects", "pods"] == 1
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following

    run(test)


def test_the_end_does_not_wait_for_a_server_that_never_answers() -> None:
    def hang(request: server.Request) -> None:
        request.server.released.wait()
        request.close_connection = True

    async def main() -> float:
        with server.Server(hang) as between:
            made = source.KubernetesSource(access=server.Plain(between.url), clock=clock.SystemClock())
            updates = made.watch()
            first = asyncio.ensure_future(anext(updates))
            await eventually(lambda: len(between.requests) == len(api.Resource))
            first.cancel()
            began = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            return time.monotonic() - began

    assert asyncio.run(main()) < source.JOIN_S * 2
    deadline = time.monotonic() + LIMIT_S
    while [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_json_of_the_tests_is_the_apis() -> None:
    assert json.loads(scripted.page(version=1))["metadata"] == {"resourceVersion": "1"}
    assert connection.IDLE_S > source.WATCHDOG_S
