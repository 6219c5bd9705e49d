"""DNS messages and the frames they travel in, written by hand: a library would refuse to write the wrong ones."""

from __future__ import annotations

import dataclasses
import struct

from agent.model import net
from tests.bpf import packets

A, NS, CNAME, AAAA, DNAME, RRSIG, HTTPS = 1, 2, 5, 28, 39, 46, 65
IN, CHAOS = 1, 3
PORT = 53
QUERY_FLAGS, ANSWER_FLAGS = 0x0100, 0x8180
TRUNCATED = 0x0200
SERVFAIL, NXDOMAIN = 2, 3
QUESTION = b"\xc0\x0c"
"""A pointer to the question's name."""
HARDWARE = bytes(12)
TCP = 6
FIN, SYN, RST, PUSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A resource record; `owner` and `data` are as on the wire."""

    type: int
    ttl: int
    data: bytes
    owner: bytes = QUESTION
    class_: int = IN
    length: int | None = None
    """What it says of its data, if that is not true."""

    @property
    def packed(self) -> bytes:
        """As on the wire."""
        length = len(self.data) if self.length is None else self.length
        return self.owner + struct.pack(">HHIH", self.type, self.class_, self.ttl, length) + self.data


def address(text: net.Address, ttl: int = 60, *, owner: bytes = QUESTION) -> Record:
    """Return an A or AAAA record."""
    return Record(type=A if text.version == net.Family.IPV4.value else AAAA, ttl=ttl, data=text.packed, owner=owner)


def alias(target: str, ttl: int = 60, *, owner: bytes = QUESTION) -> Record:
    """Return a CNAME record."""
    return Record(type=CNAME, ttl=ttl, data=name(target), owner=owner)


def name(text: str) -> bytes:
    """Return a name without compression."""
    labels = [label.encode("latin-1") for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(text: str, *, number: int = 0x1234, type_: int = A, flags: int = QUERY_FLAGS) -> bytes:
    """Return a query."""
    return struct.pack(">6H", number, flags, 1, 0, 0, 0) + name(text) + struct.pack(">HH", type_, IN)


def answer(
    text: str,
    *records: Record,
    number: int = 0x1234,
    type_: int = A,
    flags: int = ANSWER_FLAGS,
    count: int | None = None,
    authority: tuple[Record, ...] = (),
    additional: tuple[Record, ...] = (),
) -> bytes:
    """Return an answer; `count` is what it says of the number of its records, if that is not true."""
    said = len(records) if count is None else count
    header = struct.pack(">6H", number, flags, 1, said, len(authority), len(additional))
    content = b"".join(record.packed for record in (*records, *authority, *additional))
    return header + name(text) + struct.pack(">HH", type_, IN) + content


def asked_by(message: bytes) -> bytes:
    """Return the query that an answer, however wrong, would be the answer to: its header's begin and its question."""
    return message[:2] + struct.pack(">5H", QUERY_FLAGS, 1, 0, 0, 0) + message[12:]


def frame(source: net.Address, destination: net.Address, ports: tuple[int, int], message: bytes) -> bytes:
    """Return an Ethernet frame with a UDP datagram."""
    content = packets.udp(source, destination, ports[1], payload=message, sport=ports[0])
    return ethernet(source, content)


def segment(
    source: net.Address,
    destination: net.Address,
    ports: tuple[int, int],
    payload: bytes,
    *,
    sequence: int = 1,
    flags: int = PUSH | ACK,
) -> bytes:
    """Return an Ethernet frame with a TCP segment."""
    header = struct.pack(">HHIIBBHHH", *ports, sequence % (1 << 32), 1, 0x50, flags, 1000, 0, 0)
    make = packets.ipv4 if source.version == net.Family.IPV4.value else packets.ipv6
    return ethernet(source, make(source, destination, TCP, header + payload))


def ethernet(source: net.Address, content: bytes) -> bytes:
    """Put an Ethernet header before a packet."""
    return HARDWARE + struct.pack(">H", packets.ethertype(source)) + content


def prefixed(message: bytes) -> bytes:
    """Return a message as it goes by TCP (RFC 1035 4.2.2)."""
    return struct.pack(">H", len(message)) + message
