"""What answers queries while they are measured: a resolver that knows one answer, and a proxy that learns from it.

Both are what Python can do at its quickest: one epoll loop, every socket drained before it is waited for again, and no
more of a message read than is needed. The proxy gives each query a number of its own, asks the resolver, and holds the
answer until its addresses are in a table: what a DNS proxy has to do, and nothing else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias

from tests.bench import dns_messages

DATAGRAM = 4096
NUMBER = struct.Struct(">H")
Client: TypeAlias = tuple[str, int]


def resolver(port: int, records: int) -> Callable[[], None]:
    """Return what answers every query at a port with so many addresses, until it is killed."""
    rest = dns_messages.answer(records)[2:]

    def action() -> None:
        with _bound(port) as server:
            _loop({server: lambda query, client: server.sendto(query[:2] + rest, client)})

    return action


def proxy(port: int, upstream: int) -> Callable[[], None]:
    """Return what asks the resolver at port `upstream` of this machine for whoever asks at `port`."""

    def action() -> None:
        waiting: dict[bytes, tuple[bytes, Client]] = {}
        learned: dict[tuple[Client, bytes], int] = {}
        count = 0
        with _bound(port) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("127.0.0.1", upstream))
            asking.settimeout(0)

            def asked(query: bytes, client: Client) -> None:
                nonlocal count
                count = (count + 1) % (1 << 16)
                number = NUMBER.pack(count)
                waiting[number] = query[:2], client
                asking.send(number + query[2:])

            def answered(answer: bytes, _: Client) -> None:
                number, client = waiting.pop(answer[:2])
                for address, ttl_s in dns_messages.addresses(answer):
                    learned[client, address] = ttl_s
                server.sendto(number + answer[2:], client)

            _loop({server: asked, asking: answered})

    return action


def _bound(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    server.settimeout(0)
    return server


def _loop(takers: dict[socket.socket, Callable[[bytes, Client], object]]) -> None:
    with select.epoll() as poll:
        by_number = {each.fileno(): (each, take) for each, take in takers.items()}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        while True:
            for number, _ in poll.poll():
                source, take = by_number[number]
                with contextlib.suppress(BlockingIOError):
                    while True:
                        take(*source.recvfrom(DATAGRAM))
