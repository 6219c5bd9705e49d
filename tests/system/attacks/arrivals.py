"""Counts the TCP packets that come into a pod, by the port they are for.

Commands are lines of JSON:

{"do": "count"} -> {"packets": {port: n}}
"""

from __future__ import annotations

import collections
import json
import os
import selectors
import socket
import sys

from tests.system.attacks import receiver, wire


class Arrivals:
    """A packet socket below everything else in the pod."""

    def __init__(self) -> None:
        """Start to count at once."""
        self._sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(receiver.ETH_P_ALL))
        self._sniffer.setsockopt(socket.SOL_SOCKET, receiver.SO_RCVBUFFORCE, receiver.BUFFER)
        self._sniffer.settimeout(0)
        self._packets: collections.Counter[int] = collections.Counter()

    def _sniff(self) -> None:
        try:
            while True:
                frame, origin = self._sniffer.recvfrom(128)
                ports = receiver.ports_of(frame)
                if origin[2] != receiver.PACKET_OUTGOING and ports and _protocol(frame) == wire.TCP:
                    self._packets[int.from_bytes(ports[2:4])] += 1
        except BlockingIOError:
            return

    def serve(self) -> None:
        """Serve until standard input ends."""
        selector = selectors.DefaultSelector()
        selector.register(self._sniffer, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            self._sniff()
            if sys.stdin in ready:
                if not sys.stdin.readline():
                    return
                os.write(sys.stdout.fileno(), json.dumps({"packets": self._packets}).encode() + b"\n")


def _protocol(frame: bytes) -> int:
    """Return the protocol of a packet in which `ports_of` has found ports, extension headers aside."""
    return frame[23] if frame[12:14] == wire.ETH_IPV4.to_bytes(2, "big") else frame[20]


if __name__ == "__main__":
    Arrivals().serve()
