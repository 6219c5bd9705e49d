"""A resolver small enough to see through, run in a namespace: UDP and TCP, and names that say what the answer is.

`a-203-0-113-7.NAME` has that address and no other; `silent.NAME` is never answered, so that a query stays open.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from collections.abc import Callable

from tests.bpf.dns import wire

TTL_S = 60
PREFIX = 2
"""Bytes of a message's length (RFC 1035 4.2.2)."""
SILENT = "silent"


def name_of(address: ipaddress.IPv4Address, zone: str) -> str:
    """Return the name that has this address."""
    return f"a-{str(address).replace('.', '-')}.{zone}"


def serves() -> Callable[[], str]:
    """Return what answers, on every address, until it is killed; it says so once it listens."""

    def action() -> str:
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", wire.PORT))
        streams = socket.create_server(("::", wire.PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        for loop, listener in ((_datagrams, datagrams), (_streams, streams)):
            threading.Thread(target=loop, args=(listener,), daemon=True).start()
        return "listens"

    return action


def _datagrams(listener: socket.socket) -> None:
    while True:
        query, client = listener.recvfrom(4096)
        if answer := _answer(query):
            listener.sendto(answer, client)


def _streams(listener: socket.socket) -> None:
    """Answer every question that has come whole at once, in one piece."""
    while True:
        connection, _ = listener.accept()
        with connection:
            waiting = b""
            while content := connection.recv(1 << 20):
                waiting += content
                answers = bytearray()
                while len(waiting) >= PREFIX and len(waiting) >= (end := PREFIX + int.from_bytes(waiting[:PREFIX])):
                    answers += wire.prefixed(_answer(waiting[PREFIX:end]))
                    waiting = waiting[end:]
                connection.sendall(answers)


def _answer(query: bytes) -> bytes:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    if labels[0] == SILENT:
        return b""
    address = ipaddress.IPv4Address(labels[0].removeprefix("a-").replace("-", "."))
    number = struct.unpack_from(">H", query)[0]
    return wire.answer(".".join(labels), wire.address(address, TTL_S), number=number)
