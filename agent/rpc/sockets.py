"""Unix sockets and their names, as gRPC writes them; server and client agree here.

gRPC binds with mode 0755, so the directory is closed before the socket appears in it. A socket that a group could
write to was CVE-2022-29178 elsewhere.
"""

from __future__ import annotations

import contextlib
import pathlib
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agent import errors

if TYPE_CHECKING:
    import grpc.aio

DIRECTORY_MODE = 0o700
SOCKET_MODE = 0o600


def target(socket: pathlib.Path) -> str:
    """Return gRPC's name for a unix socket; the path is absolute and of any characters."""
    return "unix://" + urllib.parse.quote(str(socket))


@contextlib.contextmanager
def bound(server: grpc.aio.Server, socket: pathlib.Path, *, field: str) -> Iterator[None]:
    """Bind a server that is not started yet to `socket`, which only root gets to, and remove it afterwards.

    Raises InvalidInput, which names `field`, where that cannot be done. Whoever calls sees to it that no other server
    is there: one that was left behind is replaced.
    """
    try:
        socket.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        socket.parent.chmod(DIRECTORY_MODE)
        socket.unlink(missing_ok=True)
        server.add_insecure_port(target(socket))
        socket.chmod(SOCKET_MODE)
    except (RuntimeError, OSError) as error:  # gRPC says RuntimeError where bind(2) fails
        remedy = f"the agent must be able to bind a unix socket there ({error})"
        raise errors.InvalidInput(field=field, value=str(socket.parent), remedy=remedy) from error
    try:
        yield
    finally:
        socket.unlink(missing_ok=True)
