"""The agent's process, as far as a bundle wants it: its id, network namespace, the end of its log; no environment."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket as socket_
import stat
import struct
from collections.abc import Callable
from typing import TypeVar

from agent.lab import kernel

PROC = pathlib.Path("/proc")
LOG_BYTES = 512 << 10
CREDENTIALS = struct.Struct("=iII")
"""struct ucred: process, user, group."""

Result = TypeVar("Result")


def behind(socket: pathlib.Path) -> int | None:
    """Return the process that listens on a unix socket; None: nobody does, or not in our pid namespace."""
    with contextlib.suppress(OSError), socket_.socket(socket_.AF_UNIX) as client:
        client.settimeout(1.0)
        client.connect(str(socket))
        packed = client.getsockopt(socket_.SOL_SOCKET, socket_.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(packed)[0]) or None
    return None


def in_network_of(pid: int | None, collect: Callable[[], Result]) -> Callable[[], Result]:
    """Return what collects in the network namespace of a process; only for threads that end with it."""
    if pid is None:
        return collect

    def entered() -> Result:
        theirs = PROC / str(pid) / "ns/net"
        if not theirs.samefile(PROC / "thread-self/ns/net"):
            kernel.enter_network(theirs)
        return collect()

    return entered


def log_tail(pid: int | None) -> str:
    """Return the end of what the agent logged, from a whole line on. Raises OSError where that is in no file."""
    if pid is None:
        raise FileNotFoundError("the agent's process is not known")
    path = PROC / str(pid) / "fd/2"
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would give us what somebody else is to read
        raise FileNotFoundError("the agent logs to no file; its container's log has it")
    with path.open("rb") as file:
        if about.st_size > LOG_BYTES:
            file.seek(-LOG_BYTES, os.SEEK_END)
            file.readline()
        return file.read(LOG_BYTES).decode(errors="replace")
