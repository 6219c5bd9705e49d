"""The DNS messages of the benchmark, and the least that has to be read of one."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator

from tests.bpf.dns import wire

ZONE = "example.net"
NAME = f"cdn.{ZONE}"
FIRST = ipaddress.ip_address("198.18.0.0")
RECORD = struct.Struct(">HHHIH")
"""Owner as a pointer, type, class, TTL, length of the data."""
HEADER = 12
QUESTION_BYTES = 4
TTL_S = 60


def answer(records: int) -> bytes:
    """Return an answer with so many addresses."""
    return wire.answer(NAME, *(wire.address(FIRST + number, TTL_S) for number in range(records)))


def query() -> bytes:
    """Return what it answers."""
    return wire.query(NAME)


def addresses(message: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the IPv4 addresses of an answer, as on the wire, with their TTLs; its owners are pointers."""
    at = HEADER
    while message[at]:
        at += 1 + message[at]
    at += 1 + QUESTION_BYTES
    for _ in range(int.from_bytes(message[6:8], "big")):
        _, kind, _, ttl_s, length = RECORD.unpack_from(message, at)
        at += RECORD.size
        if kind == wire.A:
            yield message[at : at + length], ttl_s
        at += length
