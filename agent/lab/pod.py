"""What runs in a pod of the lab: servers on every declared port, and a client that tries connections on command.

One process, one thread, one selector. Every server answers with its own name, so that a probe knows who answered; TCP
and UDP then echo. Orders come as one JSON line over a unix socket (which network namespaces do not separate) and are
answered by one JSON line; all probes of an order run at the same time, so a thousand denied ones cost one time-out.

Standard library only (see `runner.py`). It must not retry beyond its time-out, nor judge: it reports what it saw.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import selectors
import socket
from collections.abc import Callable
from typing import Any

from agent.lab import attempt, sctp

BACKLOG = 256
CHUNK = 65536
PACKET_INFO_SPACE = 64


class Server:
    """Listens on `ports` ([number, protocol] pairs) under `name` and obeys the orders that come to `path`."""

    def __init__(self, *, name: str, path: str, ports: list[tuple[int, str]]) -> None:
        """Open every socket; OSError names the port that could not be opened."""
        self._name = name
        self._banner = name.encode() + b"\n"
        self._selector = selectors.DefaultSelector()
        self._sctp_ports = {number for number, protocol in ports if protocol == "SCTP"}
        for number, protocol in ports:
            try:
                self._listen(number, protocol)
            except OSError as error:
                raise OSError(error.errno, f"cannot listen on {number}/{protocol}: {error.strerror}") from error
        if self._sctp_ports and not attempt.kernel_has_sctp():
            self._answer_sctp(socket.AF_INET)
            self._answer_sctp(socket.AF_INET6)
        pathlib.Path(path).unlink(missing_ok=True)
        control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        control.bind(path)
        control.listen(BACKLOG)
        self._watch(control, lambda: self._take_orders(control))

    def serve(self) -> None:
        """Serve until killed."""
        attempts = attempt.Attempts(self._selector)
        self._attempts = attempts
        while True:
            for key, _events in self._selector.select(attempts.patience_s()):
                key.data()
            attempts.tick()

    def _watch(self, handle: socket.socket, callback: Callable[[], None]) -> None:
        handle.settimeout(0)
        self._selector.register(handle, selectors.EVENT_READ, callback)

    def _drop(self, handle: socket.socket) -> None:
        self._selector.unregister(handle)
        handle.close()

    def _listen(self, number: int, protocol: str) -> None:
        if protocol == "UDP":
            datagrams = attempt.dual_stack(socket.SOCK_DGRAM, 0)
            if datagrams.family == socket.AF_INET6:
                # a node has several addresses: answer from the one that was asked
                datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            datagrams.bind(("", number))
            self._watch(datagrams, lambda: self._echo_datagram(datagrams))
        elif protocol == "TCP" or attempt.kernel_has_sctp():
            listener = attempt.dual_stack(socket.SOCK_STREAM, sctp.PROTOCOL if protocol == "SCTP" else 0)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", number))
            listener.listen(BACKLOG)
            self._watch(listener, lambda: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _peer = listener.accept()
            connection.send(self._banner)
        except OSError:
            return
        self._watch(connection, lambda: self._echo(connection))

    def _echo(self, connection: socket.socket) -> None:
        try:
            received = connection.recv(CHUNK)
            if received:
                connection.send(received)
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(connection)

    def _echo_datagram(self, datagrams: socket.socket) -> None:
        with contextlib.suppress(OSError):
            received, ancillary, _flags, peer = datagrams.recvmsg(CHUNK, PACKET_INFO_SPACE)
            info = [(level, kind, value[:16] + bytes(4)) for level, kind, value in ancillary]
            datagrams.sendmsg([self._banner + received], info, 0, peer)

    def _answer_sctp(self, family: int) -> None:
        with contextlib.suppress(OSError):
            raw = socket.socket(family, socket.SOCK_RAW, sctp.PROTOCOL)
            self._watch(raw, lambda: self._answer_packet(raw))

    def _answer_packet(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError):
            datagram, peer = raw.recvfrom(CHUNK)
            packet = sctp.decode(sctp.payload_of(datagram, with_header=raw.family == socket.AF_INET))
            if packet is None:
                return
            tag = int.from_bytes(os.urandom(4), "big") | 1
            listening = packet.destination_port in self._sctp_ports
            reply = sctp.answer(packet, name=self._name, listening=listening, initiate_tag=tag)
            if reply is not None:
                raw.sendto(reply, (peer[0], 0, *peer[2:]))

    def _take_orders(self, control: socket.socket) -> None:
        connection, _peer = control.accept()
        buffer = bytearray()
        self._watch(connection, lambda: self._read_order(connection, buffer))

    def _read_order(self, connection: socket.socket, buffer: bytearray) -> None:
        try:
            received = connection.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        buffer += received
        if not received:
            self._drop(connection)
        elif buffer.endswith(b"\n"):
            order = json.loads(buffer)
            self._selector.unregister(connection)
            self._attempts.start(order, lambda results: _reply(connection, results))


def _reply(connection: socket.socket, results: list[dict[str, Any]]) -> None:
    """Send the answer; the buffer of a unix socket may be smaller than it, so block for as long as that takes."""
    connection.settimeout(None)
    with contextlib.suppress(OSError), connection:
        connection.sendall(json.dumps(results).encode() + b"\n")
