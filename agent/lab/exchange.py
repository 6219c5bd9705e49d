"""Asks the processes of pods, hosts and nodes to try connections: one order each, all at the same time."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from agent import errors, patience
from agent.lab import plan, rundir
from agent.model import net

GRACE_S = 5.0
"""How much later than its time-out an answer may come, on a busy machine."""
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """One connection to try; parties are `namespace/pod`, `host/NAME` and `node/NAME`."""

    source: str
    destination: str
    """Whom the address belongs to, or a Service: `lab.Lab.probe` resolves parties, and shows it."""
    port: int
    protocol: net.Protocol = net.Protocol.TCP
    family: net.Family = net.Family.IPV4
    address: net.Address | None = None
    """None: the destination's address of `family`."""
    connected: bool = True
    """UDP: connect() and send(); False: sendto(), which other hooks see and no ICMP error reaches."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What came of it."""

    request: ProbeRequest
    address: net.Address
    allowed: bool
    """The server's answer came back."""
    errno: int
    """0 if allowed; ETIMEDOUT if nothing came."""
    milliseconds: float
    answered_by: str
    """The party that answered: behind a Service, the backend."""

    @property
    def error(self) -> str:
        """The errno's symbol, `EACCES`; "" if allowed."""
        return errno.errorcode.get(self.errno, str(self.errno)) if self.errno else ""


def probe(
    requests: Sequence[tuple[ProbeRequest, net.Address]], paths: rundir.RunDirectory, timeout_s: float
) -> list[ProbeResult]:
    """Try every request at once; LabError if a process does not answer."""
    timeout_s, grace_s = patience.seconds(timeout_s), patience.seconds(GRACE_S)
    by_source: dict[str, list[int]] = {}
    for index, (request, _address) in enumerate(requests):
        by_source.setdefault(request.source, []).append(index)
    found: list[ProbeResult | None] = [None] * len(requests)
    with contextlib.ExitStack() as stack:
        asked = {
            source: stack.enter_context(_ask(source, [requests[index] for index in indexes], paths, timeout_s, grace_s))
            for source, indexes in by_source.items()
        }
        for source, connection in asked.items():
            for index, answer in zip(by_source[source], _answer(source, connection, timeout_s + grace_s), strict=True):
                request, address = requests[index]
                found[index] = ProbeResult(request=request, address=address, **answer)
    return [result for result in found if result is not None]


def _ask(
    source: str,
    requests: Sequence[tuple[ProbeRequest, net.Address]],
    paths: rundir.RunDirectory,
    timeout_s: float,
    grace_s: float,
) -> socket.socket:
    order: Mapping[str, Any] = {
        "timeout_s": timeout_s,
        "probes": [
            {
                "address": str(address),
                "port": request.port,
                "protocol": request.protocol.name,
                "connected": request.connected,
            }
            for request, address in requests
        ],
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s + grace_s)
    try:
        connection.connect(os.fspath(paths.server_socket(plan.key(source))))
        connection.sendall(json.dumps(order).encode() + b"\n")
    except OSError as error:
        connection.close()
        raise errors.LabError(f"the process of {source} cannot be asked: {error}") from error
    return connection


def _answer(source: str, connection: socket.socket, timeout_s: float) -> list[dict[str, Any]]:
    received = bytearray()
    try:
        while not received.endswith(b"\n"):
            chunk = connection.recv(CHUNK)
            if not chunk:
                raise errors.LabError(f"the process of {source} died while it was asked")
            received += chunk
    except TimeoutError as error:
        raise errors.LabError(f"the process of {source} did not answer in {timeout_s:.1f} s") from error
    answers: list[dict[str, Any]] = json.loads(received)
    return answers
