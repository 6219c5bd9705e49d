"""The gRPC server on the agent's unix socket.

The socket is the whole access control: it answers root, and nobody else gets to it (`sockets.bound`).
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator

import grpc.aio

from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.rpc import requests, sockets
from agent.rpc import service as service_

CALLS_MOST = 64
"""Calls at one time; each watcher of verdicts is one."""
GRACE_S = 0.2
"""What running calls get to end when the server stops."""


@contextlib.asynccontextmanager
async def serving(service: service_.AgentService, socket: pathlib.Path) -> AsyncIterator[grpc.aio.Server]:
    """Answer on `socket` inside the context; the caller holds the state directory's lock.

    Raises InvalidInput where the socket cannot be bound.
    """
    server = grpc.aio.server(interceptors=(requests.Checked(),), maximum_concurrent_rpcs=CALLS_MOST)
    pb_grpc.add_AgentServicer_to_server(service, server)
    with sockets.bound(server, socket, field="--state-dir"):
        await server.start()
        try:
            yield server
        finally:
            await server.stop(GRACE_S)
