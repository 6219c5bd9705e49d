"""A server on a socket, and who asks it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import pathlib
import socket as socket_
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from agent import reconciler
from agent.api.observer import observer_pb2 as pb
from agent.api.observer import observer_pb2_grpc as pb_grpc
from agent.hubble import agent_events, ring, server
from agent.observer import stream
from agent.rpc import sockets
from tests.support import agents

LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Node:
    """An agent that enforces what a test says."""

    def __init__(self) -> None:
        """Enforce nothing yet."""
        self.enforcement: reconciler.Enforcement | None = None


class World:
    """A server, its clock, what it is fed from, and a client's channel to it."""

    def __init__(self, socket: pathlib.Path, tcp: server.Tcp | None = None) -> None:
        """Prepare; `open` serves."""
        self.socket = socket
        self.tcp = tcp
        self.told: list[str] = []
        """What was said of certificates."""
        self.clock = agents.ManualClock()
        self.verdicts = stream.Stream(clock=self.clock)
        self.node = Node()
        self.channel: Any = None
        self.ring: ring.Ring

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[World]:
        """Serve, and connect."""
        events = agent_events.AgentEvents(self.node, name="n1", clock=self.clock)
        looking = asyncio.create_task(events.run(), name="agent events")
        async with (
            server.serving(
                self.verdicts,
                self.node,
                events=events,
                name="n1",
                version="7",
                socket=self.socket,
                clock=self.clock,
                tcp=self.tcp,
                tell=self.told.append,
            ) as self.ring,
            grpc.aio.insecure_channel(sockets.target(self.socket)) as self.channel,
        ):
            yield self
        looking.cancel()

    @property
    def observer(self) -> Any:
        return pb_grpc.ObserverStub(self.channel)

    async def flows(self, **request: Any) -> list[pb.GetFlowsResponse]:
        """Return all a request that ends gets."""
        return [answer async for answer in self.observer.GetFlows(pb.GetFlowsRequest(**request))]


def run(socket: pathlib.Path, scenario: Callable[[World], Awaitable[None]], *, tcp: server.Tcp | None = None) -> None:
    """Serve while `scenario` runs."""

    async def all_of_it() -> None:
        async with asyncio.timeout(20), World(socket, tcp).open() as world:
            await scenario(world)

    asyncio.run(all_of_it())


def free_port() -> int:
    """Return a port of TCP that nobody listens on, on 127.0.0.1."""
    with socket_.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def none_read(stored: ring.Ring) -> None:
    """Wait until nobody reads; raises TimeoutError."""
    async with asyncio.timeout(5):
        while stored.readers:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
