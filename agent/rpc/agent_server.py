"""The gRPC server on the agent's unix socket.

The socket is the whole access control: it answers root, and nobody else gets to it (mode 0600 in a directory of mode
0700; a socket that a group could write to was CVE-2022-29178 elsewhere). gRPC binds with mode 0755, so the directory
is closed before the socket appears in it.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import AsyncIterator

import grpc.aio

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.rpc import service as service_
from agent.rpc import sockets

DIRECTORY_MODE = 0o700
SOCKET_MODE = 0o600
CALLS_MOST = 64
"""Calls at one time; each watcher of verdicts is one."""
GRACE_S = 0.2
"""What running calls get to end when the server stops."""


@contextlib.asynccontextmanager
async def serving(service: service_.AgentService, socket: pathlib.Path) -> AsyncIterator[grpc.aio.Server]:
    """Answer on `socket` inside the context; the caller holds the state directory's lock.

    Raises InvalidInput where the socket cannot be bound.
    """
    server = grpc.aio.server(maximum_concurrent_rpcs=CALLS_MOST)
    pb_grpc.add_AgentServicer_to_server(service, server)
    _bind(server, socket)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(GRACE_S)
        _remove(socket)


def _bind(server: grpc.aio.Server, socket: pathlib.Path) -> None:
    try:
        socket.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        socket.parent.chmod(DIRECTORY_MODE)
        _remove(socket)
        server.add_insecure_port(sockets.target(socket))
        socket.chmod(SOCKET_MODE)
    except (RuntimeError, OSError) as error:  # gRPC says RuntimeError where bind(2) fails
        remedy = f"the agent must be able to bind a unix socket there ({error})"
        raise errors.InvalidInput(field="--state-dir", value=str(socket.parent), remedy=remedy) from error


def _remove(socket: pathlib.Path) -> None:
    socket.unlink(missing_ok=True)
