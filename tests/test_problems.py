"""Telling of problems: what is enforced becomes Events, and nothing waits for the server."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator

from agent import clock, problems, reconciler
from agent.datapath import memory
from agent.model import endpoint, resources
from agent.sources.kubernetes import connection, notices
from tests.support import agents

ODD = resources.Problem(agents.DENY.ref, "spec.ingress[0]", "is odd")


class Server:
    """A sender that remembers, fails while it is told to, and may be made to hang."""

    def __init__(self) -> None:
        """Answer at once."""
        self.sent: list[notices.Notice] = []
        self.failure: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def send(self, notice: notices.Notice) -> int:
        self.free.wait(10)
        if self.failure is not None:
            raise self.failure
        self.sent.append(notice)
        return notice.count + 1


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[tuple[reconciler.Reconciler, problems.Teller]]:
    loop = reconciler.Reconciler(
        datapath=memory.MemoryDatapath(),
        node="n1",
        deny_mode=endpoint.DenyMode.REJECT,
        hold_mode=endpoint.HoldMode.AUTO,
        clock=clock.SystemClock(),
    )
    teller = problems.Teller(node="n1", loop=loop, sender=server, clock=clock.SystemClock())
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(teller.run())]
    try:
        async with asyncio.timeout(10):
            yield loop, teller
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def troubled(loop: reconciler.Reconciler, *found: resources.Problem) -> None:
    loop.set_source(agents.update(dataclasses.replace(agents.cluster(), problems=found)))
    loop.set_sandboxes(agents.SANDBOXES)


async def until(condition: object) -> None:
    assert callable(condition)
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


def test_a_problem_that_is_enforced_around_is_told_once() -> None:
    async def scenario() -> None:
        server = Server()
        async with running(server) as (loop, teller):
            troubled(loop, ODD)
            await until(lambda: server.sent)
            troubled(loop, ODD)
            await loop.reached(4)
            await asyncio.sleep(0.05)
            assert [notice.message for notice in server.sent] == ["spec.ingress[0]: is odd"]
            assert (teller.counted(), teller.waiting) == ({"created": 1, "repeated": 0, "failed": 0}, 0)

    asyncio.run(scenario())


def test_a_later_problem_is_told_too() -> None:
    async def scenario() -> None:
        server = Server()
        async with running(server) as (loop, _):
            troubled(loop)
            await loop.reached(2)
            troubled(loop, ODD)
            await until(lambda: server.sent)

    asyncio.run(scenario())


def test_a_server_that_fails_is_counted_and_ends_nothing() -> None:
    async def scenario() -> None:
        server = Server()
        server.failure = connection.Failed("no")
        async with running(server) as (loop, teller):
            troubled(loop, ODD)
            await until(lambda: teller.outcomes["failed"])
            server.failure = RuntimeError("a fault of our own")
            troubled(loop, ODD, resources.Problem(agents.DENY.ref, "spec.egress[0]", "is odd"))
            await until(lambda: teller.outcomes["failed"] == 2)
            assert teller.waiting == 2

    asyncio.run(scenario())


def test_a_server_that_hangs_keeps_neither_enforcement_nor_the_end_of_the_agent_waiting() -> None:
    server = Server()

    async def scenario() -> None:
        server.free.clear()
        async with running(server) as (loop, _):
            troubled(loop, ODD)
            await loop.reached(2)
            troubled(loop, ODD)
            await loop.reached(4)

    asyncio.run(scenario())
    assert not server.sent
    server.free.set()
