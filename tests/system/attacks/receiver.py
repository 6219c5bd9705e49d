"""The victim: its applications listen, and a packet socket below them keeps every frame that comes in.

Commands are lines of JSON, answers too:
    {"do": "listen", "addresses": [...], "port"}          -> {}      TCP, UDP and UDP-Lite servers that answer
    {"do": "talk", "from": [address, port], "to": [address, port]}   -> {"outcome"}  a flow of the victim's own
    {"do": "count", "wanted": [[mark, ports...]...]}      -> {"frames": [...], "reads": [...]}   all hexadecimal
    {"do": "forget"}                                      -> {}

Arrival is proven by the packet socket: a frame counts if it is not the pod's own and carries the attempt's mark
anywhere, or its ports where ports belong.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.system.attacks import wire

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
BUFFER = 1 << 24
ETHERNET_SIZE = 14
FRAGMENT_OFFSET = 0x1FFF
FRAGMENT_OFFSET6 = 0xFFF8
WITH_PORTS = (wire.TCP, wire.UDP, wire.SCTP, wire.UDPLITE)
FRAMES_MAX = 200_000
ANSWER = b"answer"


def ports_of(frame: bytes) -> bytes:
    """Return both ports as they stand in the packet, empty where there are none to be found without doubt."""
    packet = frame[ETHERNET_SIZE:]
    if frame[12:14] == wire.ETH_IPV4.to_bytes(2, "big"):
        offset = (packet[0] & 15) * 4
        first = not int.from_bytes(packet[6:8], "big") & FRAGMENT_OFFSET
        return packet[offset : offset + 4] if first and packet[9] in WITH_PORTS else b""
    if frame[12:14] == wire.ETH_IPV6.to_bytes(2, "big"):
        if packet[6] == wire.FRAGMENT and not int.from_bytes(packet[42:44], "big") & FRAGMENT_OFFSET6:
            return packet[48:52] if packet[40] in WITH_PORTS else b""
        return packet[40:44] if packet[6] in WITH_PORTS else b""
    return b""


class Receiver:
    """One loop over standard input, the packet socket and the servers."""

    def __init__(self) -> None:
        """Start to keep frames at once."""
        self._selector = selectors.DefaultSelector()
        self._sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._sniffer.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._sniffer.settimeout(0)
        self._selector.register(self._sniffer, selectors.EVENT_READ, self._sniff)
        self._frames: list[bytes] = []
        self._reads: list[bytes] = []
        self._datagrams: dict[tuple[str, int], socket.socket] = {}

    def _sniff(self, _: socket.socket) -> None:
        try:
            while len(self._frames) < FRAMES_MAX:
                frame, origin = self._sniffer.recvfrom(65536)
                if origin[2] != PACKET_OUTGOING and origin[0] != "lo":
                    self._frames.append(frame)
        except BlockingIOError:
            return

    def _listen(self, address: str, port: int) -> None:
        family = socket.AF_INET if wire.version(address) == 4 else socket.AF_INET6
        for kind, protocol in ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 0), (socket.SOCK_DGRAM, wire.UDPLITE)):
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            sock.settimeout(0)
            if kind == socket.SOCK_STREAM:
                sock.listen(64)
                self._selector.register(sock, selectors.EVENT_READ, self._accept)
            else:
                self._selector.register(sock, selectors.EVENT_READ, self._answer)
            if kind == socket.SOCK_DGRAM and not protocol:
                self._datagrams[address, port] = sock

    def _accept(self, sock: socket.socket) -> None:
        connection, _ = sock.accept()
        connection.settimeout(0)
        self._selector.register(connection, selectors.EVENT_READ, self._read)

    def _read(self, sock: socket.socket) -> None:
        try:
            content = sock.recv(65536)
        except OSError:
            content = b""
        if content:
            self._reads.append(content)
            return
        self._selector.unregister(sock)
        sock.close()

    def _answer(self, sock: socket.socket) -> None:
        content, origin = sock.recvfrom(65536)
        self._reads.append(content)
        if content == ANSWER:
            return
        try:
            sock.sendto(ANSWER, origin)
        except OSError:
            return  # the answer may be denied: that is for the tests to see

    def _count(self, wanted: Sequence[Sequence[str]]) -> dict[str, object]:
        self._sniff(self._sniffer)
        seen = [(frame, ports_of(frame)) for frame in self._frames]
        frames, reads = [], []
        for mark, *ports in ([bytes.fromhex(trace) for trace in group] for group in wanted):
            frames.append(sum(mark in frame or found in ports for frame, found in seen))
            reads.append(sum(mark in read for read in self._reads))
        return {"frames": frames, "reads": reads, "kept": len(self._frames)}

    def _command(self, command: Mapping[str, Any]) -> dict[str, object]:
        match command["do"]:
            case "listen":
                for address in command["addresses"]:
                    self._listen(address, command["port"])
                return {}
            case "talk":
                sock = self._datagrams[tuple(command["from"])]
                sock.sendto(b"talk", tuple(command["to"]))
                return {}
            case "count":
                return self._count(command["wanted"])
            case "forget":
                self._sniff(self._sniffer)
                self._frames.clear()
                self._reads.clear()
                return {}
            case other:
                raise ValueError(f"unknown command: {other!r}")

    def serve(self) -> None:
        """Serve until standard input ends."""
        commands = sys.stdin.buffer
        os.set_blocking(commands.fileno(), False)
        self._selector.register(commands, selectors.EVENT_READ)
        pending = b""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    key.data(key.fileobj)
                    continue
                content = os.read(commands.fileno(), 65536)
                if not content:
                    return
                *lines, pending = (pending + content).split(b"\n")
                for line in lines:
                    answer = json.dumps(self._command(json.loads(line)))
                    os.write(sys.stdout.fileno(), answer.encode() + b"\n")


if __name__ == "__main__":
    Receiver().serve()
