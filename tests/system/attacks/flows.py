"""One end of a TCP connection and of a UDP flow that both ends feed without pause, and a count of what comes in.

Commands are lines of JSON, answers too:
    {"do": "serve", "addresses": [...], "port"}      -> {}
    {"do": "call", "address", "port"}                -> {"port": {protocol: own port}}
    {"do": "arrivals", "since": ns, "ports": {protocol: client's port}}  -> {"count": {protocol: packets}, "last": ns}
    {"do": "progress"}                               -> {protocol: {"bytes", "gaps", "connections", "errors"}}
    {"do": "hang up"}                                -> {}

Packets are counted by a packet socket, with the kernel's time of arrival (nanoseconds since 1970): a process that was
not scheduled in time counts none late. Messages are numbered, so that a gap in the TCP stream would show.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.system.attacks import receiver, wire

TICK_S = 0.005
MESSAGE = struct.Struct("!4sI")
TAG = b"flow"
SO_TIMESTAMPNS = 35
TIME = struct.Struct("=qq")
NS = 10**9
STREAM, DATAGRAM = "tcp", "udp"


class Progress:
    """What one protocol has brought."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.connections = 0
        self.bytes = 0
        self.gaps = 0
        self.errors: list[str] = []
        self._expected = 0
        self._rest = b""

    def take(self, content: bytes) -> None:
        """Count content of a stream, and every number that is not the one after the last."""
        self.bytes += len(content)
        self._rest += content
        while len(self._rest) >= MESSAGE.size:
            tag, number = MESSAGE.unpack_from(self._rest)
            self._rest = self._rest[MESSAGE.size :]
            self.gaps += (tag, number) != (TAG, self._expected)
            self._expected = number + 1

    def shown(self) -> dict[str, object]:
        """Return what JSON can hold."""
        return {"bytes": self.bytes, "gaps": self.gaps, "connections": self.connections, "errors": self.errors}


class End:
    """One loop: commands, arrivals, and a message on every flow at every tick."""

    def __init__(self) -> None:
        """Start to count at once."""
        self._selector = selectors.DefaultSelector()
        self._sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(receiver.ETH_P_ALL))
        self._sniffer.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sniffer.settimeout(0)
        self._selector.register(self._sniffer, selectors.EVENT_READ, self._sniff)
        self._arrived: list[tuple[int, bytes]] = []
        self._forget()

    def _forget(self) -> None:
        self._progress = {STREAM: Progress(), DATAGRAM: Progress()}
        self._peers: dict[socket.socket, tuple[Any, ...] | None] = {}
        self._streams: dict[socket.socket, tuple[int, bytes]] = {}
        self._number = 0

    def _sniff(self, _: socket.socket) -> None:
        try:
            while True:
                frame, ancillary, _flags, origin = self._sniffer.recvmsg(2048, 64)
                if origin[2] != receiver.PACKET_OUTGOING:
                    seconds, nanoseconds = TIME.unpack(ancillary[0][2])
                    self._arrived.append((seconds * NS + nanoseconds, receiver.ports_of(frame)))
        except BlockingIOError:
            return

    def _watch(self, sock: socket.socket, action: Any) -> None:
        sock.settimeout(0)
        self._selector.register(sock, selectors.EVENT_READ, action)

    def _serve(self, address: str, port: int) -> None:
        family = socket.AF_INET if wire.version(address) == 4 else socket.AF_INET6
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(8)
            self._watch(sock, self._accept if kind == socket.SOCK_STREAM else self._read_datagram)

    def _accept(self, sock: socket.socket) -> None:
        stream, _ = sock.accept()
        self._add_stream(stream)

    def _add_stream(self, stream: socket.socket) -> None:
        self._progress[STREAM].connections += 1
        self._streams[stream] = (0, b"")
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch(stream, self._read_stream)

    def _call(self, address: str, port: int) -> dict[str, int]:
        stream = socket.create_connection((address, port), timeout=2)
        datagrams = socket.socket(stream.family, socket.SOCK_DGRAM)
        datagrams.connect((address, port))
        self._peers[datagrams] = None
        self._add_stream(stream)
        self._watch(datagrams, self._read_datagram)
        return {STREAM: stream.getsockname()[1], DATAGRAM: datagrams.getsockname()[1]}

    def _read_stream(self, sock: socket.socket) -> None:
        try:
            content = sock.recv(1 << 16)
        except OSError as error:
            self._progress[STREAM].errors.append(str(error))
            content = b""
        if content:
            self._progress[STREAM].take(content)
            return
        self._selector.unregister(sock)
        self._streams.pop(sock, None)
        sock.close()

    def _read_datagram(self, sock: socket.socket) -> None:
        content, peer = sock.recvfrom(2048)
        self._progress[DATAGRAM].bytes += len(content)
        if self._peers.get(sock, peer) is not None:
            self._peers[sock] = peer

    def _tick(self) -> None:
        for stream, (number, rest) in list(self._streams.items()):
            content = rest or MESSAGE.pack(TAG, number)
            try:
                sent = stream.send(content)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._progress[STREAM].errors.append(str(error))
                continue
            self._streams[stream] = (number + (sent == len(content)), content[sent:])
        for sock, peer in self._peers.items():
            self._number += 1
            try:
                content = MESSAGE.pack(TAG, self._number)
                if peer is None:
                    sock.send(content)
                else:
                    sock.sendto(content, peer)
            except OSError as error:
                self._progress[DATAGRAM].errors.append(str(error))

    def _hang_up(self) -> None:
        for sock in (*self._streams, *(sock for sock, peer in self._peers.items() if peer is None)):
            self._selector.unregister(sock)
            sock.close()
        self._forget()

    def _arrivals(self, since: int, ports: Mapping[str, int], port: int) -> dict[str, Any]:
        self._sniff(self._sniffer)
        counts, last = {}, 0
        for protocol, own in ports.items():
            wanted = (struct.pack("!HH", own, port), struct.pack("!HH", port, own))
            times = [when for when, found in self._arrived if found in wanted]
            counts[protocol] = sum(when > since for when in times)
            last = max([last, *times])
        return {"count": counts, "last": last}

    def _command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        match command["do"]:
            case "serve":
                for address in command["addresses"]:
                    self._serve(address, command["port"])
            case "call":
                return {"port": self._call(command["address"], command["port"])}
            case "arrivals":
                return self._arrivals(command["since"], command["ports"], command["port"])
            case "progress":
                return {protocol: progress.shown() for protocol, progress in self._progress.items()}
            case "hang up":
                self._hang_up()
            case other:
                raise ValueError(f"unknown command: {other!r}")
        return {}

    def live(self) -> None:
        """Live until standard input ends."""
        commands = sys.stdin.fileno()
        self._selector.register(commands, selectors.EVENT_READ)
        pending = b""
        due = time.monotonic()
        while True:
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                if isinstance(key.fileobj, socket.socket):
                    if key.fileobj.fileno() >= 0:  # a command just before may have closed it
                        key.data(key.fileobj)
                    continue
                content = os.read(commands, 65536)
                if not content:
                    return
                *lines, pending = (pending + content).split(b"\n")
                for line in lines:
                    os.write(sys.stdout.fileno(), json.dumps(self._command(json.loads(line))).encode() + b"\n")
            if time.monotonic() >= due:
                due = time.monotonic() + TICK_S
                self._tick()


if __name__ == "__main__":
    End().live()
