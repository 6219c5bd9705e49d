"""Sockets from before the policy: opened, connected and used while everything was allowed, used again later."""

from __future__ import annotations

import socket

from tests.system.attacks import aim as aim_
from tests.system.attacks import sockets


class Prepared:
    """The sockets of one attacker towards one victim."""

    def __init__(self, aim: aim_.Aim) -> None:
        """Open and use them all; OSError where something is not allowed even now."""
        self._aim = aim
        self._connected = socket.socket(aim.domain, socket.SOCK_DGRAM)
        self._connected.connect((aim.victim, aim.port))
        self._connected.send(aim.payload)
        self._unconnected = socket.socket(aim.domain, socket.SOCK_DGRAM)
        self._unconnected.sendto(aim.payload, (aim.victim, aim.port))
        self._raw = socket.socket(aim.domain, socket.SOCK_RAW, 253)
        self._raw.connect((aim.victim, 0))
        self._stream = socket.create_connection((aim.victim, aim.port), timeout=sockets.PATIENCE_S)
        self._stream.sendall(aim.payload)

    @property
    def names(self) -> tuple[str, ...]:
        """Return what can be used."""
        return tuple(self._doors())

    def _doors(self) -> dict[str, socket.socket]:
        return {
            "opened before: connected UDP": self._connected,
            "opened before: unconnected UDP": self._unconnected,
            "opened before: connected raw IP": self._raw,
            "opened before: established TCP": self._stream,
        }

    def use(self, name: str, aim: aim_.Aim) -> None:
        """Send the mark of `aim` by the socket called `name`."""
        sock = self._doors()[name]
        if sock is self._unconnected:
            sock.sendto(aim.payload, (aim.victim, aim.port))
        else:
            sock.send(aim.payload)

    def close(self) -> None:
        """Close them all."""
        for sock in self._doors().values():
            sock.close()
