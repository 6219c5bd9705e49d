"""DNS as a client speaks it: a query by UDP or TCP, and what its answer says.

Own reading of answers, so that neither the agent's nor the kernel's is compared with itself. Standard library only: it
runs in pods.
"""

from __future__ import annotations

import dataclasses
import random
import socket
import struct
import time

A, AAAA, HTTPS, CNAME, OPT = 1, 28, 65, 5, 41
IN, RECURSE, TRUNCATED = 1, 0x0100, 0x0200
PORT = 53
PATIENCE_S = 2.0
LONGEST = 65535
POINTER = 0xC0
NO_ERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How to ask; what is 0 is left to chance or the system."""

    tcp: bool = False
    connected: bool = True
    """UDP: connect() first; musl does not, glibc does."""
    size: int = 0
    """UDP: how long an answer may be (EDNS0); 0: as long as ever, 512 bytes."""
    segment: int = 0
    """TCP: how long a segment may be that comes."""
    mixed_case: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said."""

    code: int
    truncated: bool
    addresses: tuple[str, ...]
    ttl_s: int
    """The least of all records."""
    records: int
    sent_ns: int
    """CLOCK_BOOTTIME, before the query."""
    received_ns: int
    """And behind the answer."""


USUAL = Asking()


def ask(resolver: str, name: str, type_: int = A, how: Asking = USUAL) -> Answer:
    """Ask a server; OSError, TimeoutError included."""
    written = "".join(random.choice((c.upper(), c)) for c in name) if how.mixed_case else name
    message = query(written, type_, number=random.getrandbits(16), size=how.size)
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    sent_ns = now_ns()
    with socket.socket(family, socket.SOCK_STREAM if how.tcp else socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        if how.segment:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, how.segment)
        if how.tcp:
            client.connect((resolver, PORT))
            client.sendall(struct.pack(">H", len(message)) + message)
            length = struct.unpack(">H", _exactly(client, 2))[0]
            raw = _exactly(client, length)
        elif how.connected:
            client.connect((resolver, PORT))
            client.send(message)
            raw = client.recv(LONGEST)
        else:
            client.sendto(message, (resolver, PORT))
            raw = client.recv(LONGEST)
    return read(raw, sent_ns=sent_ns, received_ns=now_ns())


def query(name: str, type_: int, *, number: int, size: int = 0) -> bytes:
    """Write a query."""
    header = struct.pack(">6H", number, RECURSE, 1, 0, 0, 1 if size else 0)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    extended = struct.pack(">BHHIH", 0, OPT, size, 0, 0) if size else b""
    return header + labels + b"\0" + struct.pack(">HH", type_, IN) + extended


def read(raw: bytes, *, sent_ns: int = 0, received_ns: int = 0) -> Answer:
    """Read an answer of a server that is believed to write it well."""
    _, flags, questions, records, _, _ = struct.unpack_from(">6H", raw)
    at = 12
    for _ in range(questions):
        at = _behind_name(raw, at) + 4
    addresses, ttls = [], []
    for _ in range(records):
        at = _behind_name(raw, at)
        type_, _, ttl, length = struct.unpack_from(">HHIH", raw, at)
        data = raw[at + 10 : at + 10 + length]
        at += 10 + length
        ttls.append(ttl)
        if type_ in (A, AAAA):
            addresses.append(socket.inet_ntop(socket.AF_INET if type_ == A else socket.AF_INET6, data))
    return Answer(
        code=flags & 15,
        truncated=bool(flags & TRUNCATED),
        addresses=tuple(addresses),
        ttl_s=min(ttls, default=0),
        records=records,
        sent_ns=sent_ns,
        received_ns=received_ns,
    )


def now_ns() -> int:
    """Return the time by which the kernel expires what it learned."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _behind_name(raw: bytes, at: int) -> int:
    while raw[at]:
        if raw[at] >= POINTER:
            return at + 2
        at += 1 + raw[at]
    return at + 1


def _exactly(client: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = client.recv(count - len(found))
        if not more:
            raise ConnectionResetError("the server hung up")
        found += more
    return found
