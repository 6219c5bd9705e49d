"""rtnetlink, in the caller's network namespace; the one place here that names pyroute2.

`import pyroute2` loads every protocol that package knows, a database and SQLite: 10 MiB in every agent, which asks for
interfaces and little else. What speaks rtnetlink is half of it, and is imported beneath a parent that stays empty.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import socket
import struct
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def _rtnetlink() -> Any:
    """Import the module of IPRoute; `pyroute2` stays what it was, or is imported whole by whoever wants it."""
    spec = importlib.util.find_spec("pyroute2")
    if "pyroute2" in sys.modules or spec is None:
        return importlib.import_module("pyroute2.iproute.linux")
    parent = ModuleType("pyroute2")
    parent.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["pyroute2"] = parent
    try:
        return importlib.import_module("pyroute2.iproute.linux")
    finally:
        del sys.modules["pyroute2"]


_linux = _rtnetlink()


TRAFFIC_CONTROL = 1 << 3
"""RTMGRP_TC: qdiscs, filters and chains that come, change or go."""
_HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, sender."""
_PLACE = struct.Struct("=BBHi")
"""How struct tcmsg begins: family, padding, interface."""
_ROOM = 1 << 16


class Changes:
    """What the kernel tells of changes to interfaces; in the caller's network namespace, and for one thread."""

    def __init__(self, groups: int) -> None:
        """Hear of these from now on. Raises OSError."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            self._socket.bind((0, groups))
        except OSError:
            self._socket.close()
            raise

    def interfaces(self) -> frozenset[int] | None:
        """Return the interfaces that changes were told of since the last call; None: there were too many to tell."""
        found: set[int] = set()
        overflown = False
        while True:
            try:
                content = self._socket.recv(_ROOM)
            except BlockingIOError:
                return None if overflown else frozenset(found)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overflown = True
            else:
                found.update(_interfaces(content))

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


def _interfaces(content: bytes) -> Iterator[int]:
    at = 0
    while at + _HEADER.size + _PLACE.size <= len(content):
        length = _HEADER.unpack_from(content, at)[0]
        yield _PLACE.unpack_from(content, at + _HEADER.size)[3]
        at += max((length + 3) & ~3, _HEADER.size)


def connection() -> Any:
    """Return a connection, a context manager; what the kernel refuses it raises as an error of pyroute2's."""
    return _linux.IPRoute()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise what the kernel refuses inside the block as OSError, with its errno."""
    try:
        yield
    except _linux.NetlinkError as error:
        raise OSError(error.code, str(error.args[-1])) from error
