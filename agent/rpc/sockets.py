"""Names of unix sockets, as gRPC writes them; server and client agree here."""

from __future__ import annotations

import pathlib
import urllib.parse


def target(socket: pathlib.Path) -> str:
    """Return gRPC's name for a unix socket; the path is absolute and of any characters."""
    return "unix://" + urllib.parse.quote(str(socket))
