"""The gRPC servers that collectors ask: on a unix socket, and on TCP where that is asked for, with mutual TLS alone.

The socket's mode is its whole access control, as with the agent's own: 0600 in a directory of mode 0700. What a client
may take is bounded: calls at one time, the size of a request, the time of a handshake, and how long a connection may
do nothing. Only the socket tells the shape of its services.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from agent import clock as clock_
from agent import errors
from agent.hubble import agent_events, peers, service, tls
from agent.hubble import ring as ring_
from agent.model import net
from agent.observer import stream as stream_
from agent.rpc import sockets

CALLS_MOST = 128
"""Calls at one time on each server; each follower is one."""
REQUEST_BYTES_MOST = 256 * 1024
IDLE_MS = 10 * 60 * 1000
"""A connection without a call is closed after this."""
HANDSHAKE_MS = 10 * 1000
KEEPALIVE_MS = 60 * 1000
"""How long a connection may be silent before it is asked for a sign of life: a follower's machine may have died."""
OPTIONS = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MOST),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.so_reuseport", 0),
)
GRACE_S = 0.2
"""What running calls get to end when the server stops."""
HEALTHY = ("", "hubble.server.Observer", service.NAME)
"""Under each of these names somebody asks whether this server is healthy."""
REFLECTED = (service.NAME, peers.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
"""What a client on the socket may ask the shape of."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tcp:
    """Where to answer other machines, and with which certificates."""

    address: net.Address
    port: int
    files: tls.Files

    @property
    def target(self) -> str:
        """ADDRESS:PORT, or [ADDRESS]:PORT."""
        return peers.target(self.address, self.port)


@contextlib.asynccontextmanager
async def serving(
    verdicts: stream_.Stream,
    node: agent_events.Node,
    *,
    events: agent_events.AgentEvents,
    name: str,
    version: str,
    socket: pathlib.Path,
    clock: clock_.Clock,
    tcp: Tcp | None = None,
    tell: Callable[[str], None] = lambda _what: None,
) -> AsyncIterator[ring_.Ring]:
    """Answer on `socket` and, if asked to, on TCP inside the context, for the node called `name`.

    Gives the flows that are stored; whoever calls runs `events`. `tell` gets what is wrong with certificates that came
    later. Raises InvalidInput where a place cannot be bound or certificates cannot be used.
    """
    ring = ring_.Ring(node=name, version=version, clock=clock)
    local_target = sockets.target(socket)
    port = tcp.port if tcp is not None and not tcp.address.is_loopback else None
    peer = peers.PeerService(node, name=name, local=local_target, port=port)
    observer = service.ObserverService(ring=ring, events=events, peer=peer)
    handlers = (observer.handlers(), peer.handlers())
    local = await _server(handlers)
    reflection.enable_server_reflection(REFLECTED, local)
    servers = [local]
    if tcp is not None:
        servers.append(await _server(handlers))
        _secure(servers[-1], tcp, tell)
    with verdicts.tapped(ring), sockets.bound(local, socket, field="--state-dir"):
        try:
            for server in servers:
                await server.start()
            yield ring
        finally:
            await asyncio.gather(*(server.stop(GRACE_S) for server in servers))


async def _server(handlers: tuple[grpc.GenericRpcHandler[Any, Any], ...]) -> grpc.aio.Server:
    server = grpc.aio.server(maximum_concurrent_rpcs=CALLS_MOST, options=OPTIONS)
    server.add_generic_rpc_handlers(handlers)
    answers = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs have no aio
    for name in HEALTHY:
        await answers.set(name, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(answers, server)
    return server


def _secure(server: grpc.aio.Server, tcp: Tcp, tell: Callable[[str], None]) -> None:
    credentials = tls.Certificates(tcp.files, tell=tell).credentials()
    try:
        server.add_secure_port(tcp.target, credentials)
    except RuntimeError as error:  # what gRPC says where bind(2) fails
        remedy = f"it cannot be listened on ({error})"
        raise errors.InvalidInput(field="--hubble-address", value=tcp.target, remedy=remedy) from error
