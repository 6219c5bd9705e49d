"""Sends SYN after SYN under a source address that is not the pod's, until standard input ends.

`python -m tests.system.attacks.forger SOURCE DESTINATION PORT`: what arrives is for others to count.
"""

from __future__ import annotations

import selectors
import socket
import sys

from tests.system.attacks import wire

PERIOD_S = 0.02
SOURCE_PORT = 20000


def main(source: str, destination: str, port: int) -> None:
    """Forge until nobody wants it any more."""
    ends = selectors.DefaultSelector()
    ends.register(sys.stdin, selectors.EVENT_READ)
    segment = wire.tcp(source, destination, (SOURCE_PORT, port), wire.SYN)
    packet = wire.ip((source, destination), wire.TCP, segment)
    domain = socket.AF_INET if wire.version(destination) == 4 else socket.AF_INET6
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        while not ends.select(PERIOD_S):
            sock.sendto(packet, (destination, 0))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
