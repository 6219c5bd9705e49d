"""nfnetlink as far as sets and generations need it: requests, acknowledgements, dumps.

The problem: sets of a hundred thousand members are filled through this socket, so a library that builds an object an
attribute is too slow. The rule: callers hand over finished messages, many at a time; the kernel works through them
before send(2) returns, and what it says of them is read after it. A socket belongs to the network namespace it was
made in. This module must not know what the messages mean.

Structures follow include/uapi/linux/netlink.h and nfnetlink.h, in native byte order.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence

NETLINK_NETFILTER = 12
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_F_NET_BYTEORDER = 0x8000, 0x4000
NLA_TYPE_MASK = 0x3FFF
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
FAMILY = struct.Struct("=BBH")
"""struct nfgenmsg: family, version, resource."""
ATTRIBUTE = struct.Struct("=HH")
"""struct nlattr: length, type."""
CODE = struct.Struct("=i")
RECEIVE_BYTES = 1 << 18
SEQUENCES = 1 << 32
ANSWER_SECONDS = 10.0
"""Longer than any request takes: the kernel answers before send(2) returns."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """The first request of several that the kernel refused."""

    index: int
    code: int
    """A positive errno, or one of a subsystem's own from 4096 on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One message: what follows its struct nfgenmsg, and how to wrap it."""

    kind: int
    """Subsystem in the upper byte, command in the lower."""
    family: int
    body: bytes
    flags: int = 0


class Nfnetlink:
    """A socket of the caller's network namespace. Not for two threads at once."""

    def __init__(self) -> None:
        """Open it. Raises OSError, EPROTONOSUPPORT where the kernel has no nfnetlink."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(ANSWER_SECONDS)
        self._sequence = 0

    def close(self) -> None:
        """Let go; safe to repeat."""
        self._socket.close()

    def send(self, requests: Sequence[Request]) -> Failure | None:
        """Send all in one call and wait for the last one's answer; what follows a refused one is still carried out."""
        if not requests:
            return None
        first = self._sequence + 1
        flags = [request.flags for request in requests]
        flags[-1] |= NLM_F_ACK
        self._socket.send(b"".join(map(self._wrap, requests, flags)))
        failure: Failure | None = None
        for sequence, code in self._answers():
            index = (sequence - first) % SEQUENCES
            if index >= len(requests):
                continue  # of a conversation that was given up
            if code and failure is None:
                failure = Failure(index, code)
            if index == len(requests) - 1:
                return failure
        return failure

    def ask(self, request: Request) -> bytes:
        """Return what follows struct nfgenmsg in the only answer. Raises OSError with the kernel's errno."""
        self._socket.send(self._wrap(request, request.flags))
        for kind, sequence, payload in self._messages():
            if sequence != self._sequence:
                continue
            if kind == NLMSG_ERROR:
                _raise(payload)
            return payload[FAMILY.size :]
        raise OSError(errno.ENODATA, "no answer")

    def dump(self, request: Request) -> Iterator[bytes]:
        """Yield what follows struct nfgenmsg in each answer. Raises OSError with the kernel's errno."""
        self._socket.send(self._wrap(request, request.flags | NLM_F_DUMP))
        for kind, sequence, payload in self._messages():
            if sequence != self._sequence:
                continue
            if kind == NLMSG_ERROR:
                _raise(payload)
            if kind == NLMSG_DONE:
                return
            yield payload[FAMILY.size :]

    def _wrap(self, request: Request, flags: int) -> bytes:
        self._sequence = (self._sequence + 1) % SEQUENCES
        size = HEADER.size + FAMILY.size + len(request.body)
        header = HEADER.pack(size, request.kind, flags | NLM_F_REQUEST, self._sequence, 0)
        return header + FAMILY.pack(request.family, 0, 0) + request.body

    def _answers(self) -> Iterator[tuple[int, int]]:
        for kind, sequence, payload in self._messages():
            if kind == NLMSG_ERROR:
                yield sequence, -CODE.unpack_from(payload)[0]

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        while True:
            received, place = self._socket.recv(RECEIVE_BYTES), 0
            while place + HEADER.size <= len(received):
                size, kind, _, sequence, _ = HEADER.unpack_from(received, place)
                yield kind, sequence, received[place + HEADER.size : place + size]
                place += aligned(size)


def aligned(size: int) -> int:
    """Round up to the four bytes that messages and attributes are aligned to."""
    return (size + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute with its padding."""
    size = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(size, kind) + value + bytes(aligned(size) - size)


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return attributes by type, flags of the type taken off; of two with one type the last."""
    return dict(_parts(payload))


def each(payload: bytes) -> Iterator[bytes]:
    """Yield the value of each attribute of a list, in order."""
    return (value for _, value in _parts(payload))


def _parts(payload: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + ATTRIBUTE.size <= len(payload):
        size, kind = ATTRIBUTE.unpack_from(payload, place)
        if size < ATTRIBUTE.size:
            break
        yield kind & NLA_TYPE_MASK, payload[place + ATTRIBUTE.size : place + size]
        place += aligned(size)


def _raise(payload: bytes) -> None:
    code = -CODE.unpack_from(payload)[0]
    raise OSError(code, os.strerror(code))
