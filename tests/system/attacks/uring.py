"""connect() and sendmsg() by io_uring: the call is made by the ring, with SQPOLL even by a thread of the kernel.

Raw system calls through ctypes (x86 and arm share these numbers). Offsets follow include/uapi/linux/io_uring.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import socket
import struct
import time
from collections.abc import Iterator

from tests.system.attacks import aim as aim_
from tests.system.attacks import sockets

SETUP = 425
ENTER = 426
OP_SENDMSG = 9
OP_CONNECT = 16
OP_SEND = 26
SETUP_SQPOLL = 2
ENTER_WAKEUP = 2
NEED_WAKEUP = 1
ENTRIES = 4
OFFSET_ENTRIES = 0x10000000
SQE_SIZE = 64
CQE_SIZE = 16
SQ_HEAD, SQ_TAIL, SQ_MASK, SQ_FLAGS, SQ_ARRAY = 40, 44, 48, 56, 64
CQ_HEAD, CQ_TAIL, CQ_MASK, CQ_CQES = 80, 84, 88, 100
"""Where struct io_uring_params tells the place of each word in the shared ring."""


def refusal() -> str:
    """Say why this kernel offers no io_uring; empty if it does."""
    parameters = ctypes.create_string_buffer(120)
    descriptor = _call(SETUP, ENTRIES, parameters)
    if descriptor < 0:
        return f"io_uring_setup() refuses: {os.strerror(ctypes.get_errno())}"
    os.close(descriptor)
    return ""


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    return result


class Ring:
    """One ring that runs one operation at a time."""

    def __init__(self, flags: int) -> None:
        """Set the ring up; OSError where the kernel refuses."""
        self._parameters = ctypes.create_string_buffer(120)
        struct.pack_into("=I", self._parameters, 8, flags)
        self._fd = _call(SETUP, ENTRIES, self._parameters)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        size = max(self._offset(SQ_ARRAY) + ENTRIES * 4, self._offset(CQ_CQES) + 2 * ENTRIES * CQE_SIZE)
        self._ring = mmap.mmap(self._fd, size)
        self._entries = mmap.mmap(self._fd, ENTRIES * SQE_SIZE, offset=OFFSET_ENTRIES)

    def _offset(self, field: int) -> int:
        place: int = struct.unpack_from("=I", self._parameters, field)[0]
        return place

    def _word(self, field: int) -> int:
        value: int = struct.unpack_from("=I", self._ring, self._offset(field))[0]
        return value

    def run(self, entry: bytes) -> int:
        """Run one operation and return its result; TimeoutError after the sockets' patience."""
        tail = self._word(SQ_TAIL)
        slot = tail & self._word(SQ_MASK)
        self._entries[slot * SQE_SIZE : (slot + 1) * SQE_SIZE] = entry.ljust(SQE_SIZE, b"\0")
        struct.pack_into("=I", self._ring, self._offset(SQ_ARRAY) + slot * 4, slot)
        struct.pack_into("=I", self._ring, self._offset(SQ_TAIL), tail + 1)
        wakeup = ENTER_WAKEUP if self._word(SQ_FLAGS) & NEED_WAKEUP else 0
        if _call(ENTER, self._fd, 1, 0, wakeup, None, 0) < 0:
            raise OSError(ctypes.get_errno(), "io_uring_enter")
        end = time.monotonic() + sockets.PATIENCE_S
        while self._word(CQ_HEAD) == self._word(CQ_TAIL):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "no completion")
            time.sleep(0.002)
        return self._reap()

    def _reap(self) -> int:
        head = self._word(CQ_HEAD)
        place = self._offset(CQ_CQES) + (head & self._word(CQ_MASK)) * CQE_SIZE
        result: int = struct.unpack_from("=i", self._ring, place + 8)[0]
        struct.pack_into("=I", self._ring, self._offset(CQ_HEAD), head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def close(self) -> None:
        """Cancel what runs and free the ring."""
        self._ring.close()
        self._entries.close()
        os.close(self._fd)


@contextlib.contextmanager
def _opened(flags: int) -> Iterator[Ring]:
    ring = Ring(flags)
    try:
        yield ring
    finally:
        ring.close()


def _address(aim: aim_.Aim) -> bytes:
    packed = socket.inet_pton(aim.domain, aim.victim)
    port = aim.port.to_bytes(2, "big")
    if aim.family == 4:
        return struct.pack("=H", aim.domain) + port + packed + bytes(8)
    return struct.pack("=H", aim.domain) + port + bytes(4) + packed + bytes(4)


def _entry(operation: int, sock: socket.socket, *, address: int, length: int = 0, other: int = 0) -> bytes:
    return struct.pack("=BBHiQQI", operation, 0, 0, sock.fileno(), other, address, length)


def connect(aim: aim_.Aim, flags: int) -> None:
    """Connect and send, each by the ring."""
    name = ctypes.create_string_buffer(_address(aim))
    payload = ctypes.create_string_buffer(aim.payload)
    with sockets.opened(aim, socket.SOCK_STREAM) as sock, _opened(flags) as ring:
        sock.settimeout(None)
        entry = _entry(OP_CONNECT, sock, address=ctypes.addressof(name), other=len(name) - 1)
        ring.run(entry)
        ring.run(_entry(OP_SEND, sock, address=ctypes.addressof(payload), length=len(aim.payload)))


def sendmsg(aim: aim_.Aim, flags: int) -> None:
    """Send a datagram by the ring, with the address in the message."""
    name = ctypes.create_string_buffer(_address(aim))
    payload = ctypes.create_string_buffer(aim.payload)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(payload), len(aim.payload)))
    message = struct.pack("=QQQQ", ctypes.addressof(name), len(name) - 1, ctypes.addressof(vector), 1)
    head = ctypes.create_string_buffer(message.ljust(56, b"\0"))
    with sockets.unbound(aim) as sock, _opened(flags) as ring:
        sock.settimeout(None)
        ring.run(_entry(OP_SENDMSG, sock, address=ctypes.addressof(head), length=1))


ATTACKS = (
    aim_.Attack(name="io_uring connect", run=functools.partial(connect, flags=0)),
    aim_.Attack(name="io_uring connect by the kernel's thread", run=functools.partial(connect, flags=SETUP_SQPOLL)),
    aim_.Attack(name="io_uring sendmsg", run=functools.partial(sendmsg, flags=0)),
    aim_.Attack(name="io_uring sendmsg by the kernel's thread", run=functools.partial(sendmsg, flags=SETUP_SQPOLL)),
)
