"""Tries to reach addresses: every try a non-blocking socket, all of them at the same time.

A try succeeds when the server's name has come back: an established connection alone does not prove that both
directions pass. It fails with the errno the kernel gave, or with ETIMEDOUT when its time is up. UDP and SCTP are sent
again every 100 ms, as they may be lost; TCP repeats its SYN by itself, after a second.

Standard library only (see `runner.py`).
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import random
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

from agent import patience
from agent.lab import sctp

RESEND_S = 0.1
IDLE_S = 3600.0
CHUNK = 65536
QUESTION = b"who?"
EPHEMERAL = (32768, 60999)


@functools.cache
def kernel_has_sctp() -> bool:
    """Tell whether this kernel opens SCTP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, sctp.PROTOCOL).close()
    except OSError:
        return False
    return True


def dual_stack(kind: int, protocol: int) -> socket.socket:
    """Open a socket for both families, or for IPv4 where there is no IPv6."""
    try:
        both = socket.socket(socket.AF_INET6, kind, protocol)
    except OSError:
        return socket.socket(socket.AF_INET, kind, protocol)
    both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return both


@dataclasses.dataclass(slots=True, kw_only=True)
class Order:
    """Tries that were asked for together and are reported together."""

    results: list[dict[str, Any]]
    missing: int
    report: Callable[[list[dict[str, Any]]], None]


@dataclasses.dataclass(slots=True, kw_only=True)
class Try:
    """One address, port and protocol under way; `index` is its place in the order."""

    order: Order
    index: int
    address: str
    port: int
    protocol: str
    connected: bool
    """UDP: connect() first, so that ICMP errors come back; else sendto()."""
    started: float
    deadline: float
    handle: socket.socket | None = None
    packet: bytes = b""
    """What is sent again; empty for TCP."""
    tag: int = 0
    source_port: int = 0
    resend_at: float = IDLE_S * 1e6


class Attempts:
    """Every try under way in this process."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        """Watch sockets with `selector`; its owner calls the callbacks, and `tick` after each round."""
        self._selector = selector
        self._running: dict[int, Try] = {}

    def start(self, order: dict[str, Any], report: Callable[[list[dict[str, Any]]], None]) -> None:
        """Start all tries of `order` ({"timeout_s", "probes": [{address, port, protocol, connected}]})."""
        probes = order["probes"]
        shared = Order(results=[{} for _ in probes], missing=len(probes), report=report)
        if not probes:
            report([])
        for index, probe in enumerate(probes):
            now = time.monotonic()
            one = Try(order=shared, index=index, started=now, deadline=now + order["timeout_s"], **probe)
            self._running[id(one)] = one
            try:
                self._begin(one)
            except OSError as error:
                self._finish(one, error=error.errno or errno.EIO)

    def patience_s(self) -> float | None:
        """Return how long the selector may sleep; None for ever."""
        if not self._running:
            return None
        due = min(min(one.deadline, one.resend_at) for one in self._running.values())
        return max(0.0, due - time.monotonic())

    def tick(self) -> None:
        """End what is out of time and repeat what is due."""
        now = time.monotonic()
        for one in list(self._running.values()):
            if now >= one.deadline:
                self._finish(one, error=errno.ETIMEDOUT)
            elif now >= one.resend_at:
                self._guarded(one, self._send)

    def _begin(self, one: Try) -> None:
        family = socket.AF_INET6 if ":" in one.address else socket.AF_INET
        match one.protocol:
            case "UDP":
                one.handle, one.packet = socket.socket(family, socket.SOCK_DGRAM), QUESTION
                one.handle.settimeout(0)
                if one.connected:
                    one.handle.connect((one.address, one.port))
            case "SCTP" if not kernel_has_sctp():
                one.handle = socket.socket(family, socket.SOCK_RAW, sctp.PROTOCOL)
                one.handle.settimeout(0)
                one.tag, one.source_port = random.getrandbits(31) + 1, random.randint(*EPHEMERAL)  # noqa: S311 - a test
                one.packet = _init(one)
            case _:
                self._connect(one, family)
                return
        self._watch(one, selectors.EVENT_READ, self._receive)
        self._send(one)

    def _connect(self, one: Try, family: int) -> None:
        protocol = sctp.PROTOCOL if one.protocol == "SCTP" else 0
        one.handle = socket.socket(family, socket.SOCK_STREAM, protocol)
        one.handle.settimeout(0)
        result = one.handle.connect_ex((one.address, one.port))
        if result not in (0, errno.EINPROGRESS):
            raise OSError(result, os.strerror(result))
        self._watch(one, selectors.EVENT_READ, self._receive)
        self._send(one)

    def _watch(self, one: Try, events: int, callback: Callable[[Try], None]) -> None:
        if one.handle is not None:
            self._selector.register(one.handle, events, lambda: self._guarded(one, callback))

    def _guarded(self, one: Try, action: Callable[[Try], None]) -> None:
        if id(one) not in self._running:
            return  # ended by another event of the same round
        try:
            action(one)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(one, error=error.errno or errno.EIO)

    def _send(self, one: Try) -> None:
        one.resend_at = time.monotonic() + patience.seconds(RESEND_S)
        if one.handle is None:
            return
        if not one.packet:
            self._look(one)
        elif one.protocol == "UDP" and one.connected:
            one.handle.send(one.packet)
        else:
            one.handle.sendto(one.packet, (one.address, one.port if one.protocol == "UDP" else 0))

    def _look(self, one: Try) -> None:
        """Raise the error a socket holds.

        An ICMP error that comes while connect() still has the socket becomes a soft error: SO_ERROR returns it, recv()
        does not, and with IPv6 not even poll() tells of it, until SYN is sent again a second later.
        """
        error = one.handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if one.handle is not None else 0
        if error:
            raise OSError(error, os.strerror(error))

    def _receive(self, one: Try) -> None:
        if one.handle is None:
            return
        self._look(one)
        received = one.handle.recv(CHUNK)
        if one.handle.type == socket.SOCK_RAW:
            self._judge_sctp(one, received)
        elif received or one.protocol == "UDP":
            self._finish(one, name=received.partition(b"\n")[0].decode(errors="replace"))
        else:
            self._finish(one, error=errno.ECONNRESET)

    def _judge_sctp(self, one: Try, datagram: bytes) -> None:
        packet = sctp.decode(sctp.payload_of(datagram, with_header=":" not in one.address))
        if packet is None or (packet.source_port, packet.destination_port, packet.tag) != (
            one.port,
            one.source_port,
            one.tag,
        ):
            return  # a raw socket sees the answers to everybody's packets
        if packet.chunk == sctp.INIT_ACK:
            self._finish(one, name=packet.cookie.decode(errors="replace"))
        elif packet.chunk == sctp.ABORT:
            self._finish(one, error=errno.ECONNREFUSED)

    def _finish(self, one: Try, *, error: int = 0, name: str = "") -> None:
        del self._running[id(one)]
        if one.handle is not None:
            if one.handle in self._selector.get_map():
                self._selector.unregister(one.handle)
            one.handle.close()
        elapsed = (time.monotonic() - one.started) * 1e3
        one.order.results[one.index] = {
            "allowed": not error,
            "errno": error,
            "milliseconds": round(elapsed, 3),
            "answered_by": name,
        }
        one.order.missing -= 1
        if not one.order.missing:
            one.order.report(one.order.results)


def _init(one: Try) -> bytes:
    packet = sctp.Packet(
        source_port=one.source_port,
        destination_port=one.port,
        tag=0,
        chunk=sctp.INIT,
        initiate_tag=one.tag,
    )
    return sctp.encode(packet)
