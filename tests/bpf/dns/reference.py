"""What an answer teaches, worked out in plain Python from RFC 1035 and the rules F5 to F7, F14, F19 and F20.

Shares nothing with the programs, nor with what writes the messages.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import string

READ_BYTES, READ_RECORDS = 4096, 256
HOST = frozenset((string.ascii_letters + string.digits + "-_").encode())
TTL_MAX = (1 << 31) - 1
ALIASES = frozenset({5, 39})
ADDRESSES = {1: 4, 28: 16}
"""Type -> bytes."""


class Fault(Exception):  # noqa: N818 - a fault in a message, no error of ours
    """The message cannot be read any further."""


@dataclasses.dataclass
class Reader:
    """Reads a message from some byte on."""

    message: bytes
    at: int

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        if self.at + count > len(self.message):
            raise Fault
        self.at += count
        return self.message[self.at - count : self.at]

    def number(self, count: int) -> int:
        """Return the next bytes as a number."""
        return int.from_bytes(self.take(count), "big")

    def skip_name(self) -> None:
        """Go behind an owner's name."""
        for _ in range(129):
            length = self.number(1)
            if length >= 0xC0:
                self.take(1)
                return
            if length == 0:
                return
            if length > 63:
                raise Fault
            self.take(length)
        raise Fault


def question(message: bytes) -> tuple[str, int]:
    """Return the name that is asked for, lower case, and where the records begin."""
    reader = Reader(message, 4)
    if reader.number(2) != 1:
        raise Fault
    reader.at = 12
    labels = []
    while length := reader.number(1):
        label = reader.take(length) if length <= 63 else b"."
        if not HOST.issuperset(label):
            raise Fault
        labels.append(label.decode().lower())
    if reader.at - 12 > 255:
        raise Fault
    reader.take(2)
    if reader.number(2) != 1:
        raise Fault
    return ".".join(labels), reader.at


def _read(reader: Reader, count: int) -> tuple[int, list[tuple[bytes, int]]]:
    """Return the smallest TTL of the aliases, and the addresses with theirs, up to the first fault."""
    chain, found = TTL_MAX, []
    for _ in range(count):
        try:
            type_, ttl, data = _record(reader)
        except Fault:
            break
        if type_ in ALIASES:
            chain = min(chain, ttl)
        elif type_ in ADDRESSES:
            found.append((data, ttl))
    return chain, found


def _record(reader: Reader) -> tuple[int, int, bytes]:
    """Return type, TTL and data of the next record; type 0 for those that say nothing here."""
    reader.skip_name()
    type_, class_, ttl, length = (reader.number(size) for size in (2, 2, 4, 2))
    data = reader.take(length)
    if class_ != 1:
        type_ = 0
    if length != ADDRESSES.get(type_, length):
        raise Fault
    return type_, ttl if ttl <= TTL_MAX else 0, data


def taught(message: bytes, names: frozenset[str]) -> dict[str, int]:
    """Return the addresses an answer teaches, with their TTL in seconds, where it answers a question for these."""
    message = message[:READ_BYTES]
    try:
        name, begin = question(message)
    except Fault:
        return {}
    flags, count = message[2:4], int.from_bytes(message[6:8], "big")
    if flags[0] & 0xF8 != 0x80 or flags[1] & 0x0F or name not in names:
        return {}
    chain, found = _read(Reader(message, begin), min(count, READ_RECORDS))
    learned: dict[str, int] = {}
    for data, ttl in found:
        address = str(ipaddress.ip_address(data)) if data[:12] != bytes(10) + b"\xff\xff" else _four(data)
        learned[address] = max(min(chain, ttl), learned.get(address, 0))
    return learned


def _four(data: bytes) -> str:
    return str(ipaddress.IPv4Address(data[12:]))
