"""`python -m tests.bench.verdicts_agent RING WAKE SOCKET`: the verdict part of an agent, and nothing else of it."""

from __future__ import annotations

import asyncio
import pathlib
import sys

from agent import clock as clock_
from agent.hubble import agent_events, server
from agent.observer import history, observer, stream
from tests.bench import verdicts_ring
from tests.hubble import serving
from tests.support import agents


async def main(ring: pathlib.Path, wake: int, socket: pathlib.Path) -> None:
    """Read events and answer collectors until killed."""
    clock = clock_.SystemClock()
    past, verdicts, node = history.History(), stream.Stream(clock=clock), serving.Node()
    past.enforced(1, agents.enforced(), agents.cluster())
    reader = verdicts_ring.SharedReader(ring, wake)
    watcher = observer.Observer(
        node="n1", reader=reader, kernel_lost=lambda: reader.lost, history=past, stream=verdicts, clock=clock
    )
    events = agent_events.AgentEvents(node, name="n1", clock=clock)
    async with server.serving(verdicts, node, events=events, name="n1", version="bench", socket=socket, clock=clock):
        await watcher.run()


asyncio.run(main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])))
