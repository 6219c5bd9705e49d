"""The cookie of a network namespace: the number the kernel's hooks know a pod by.

A file in /run/netns is created empty and becomes a namespace when the runtime binds one over it, a millisecond later
in the median and 162 in the worst case seen. ioctl NS_GET_ID (answers on Linux 6.18) needs no privilege beyond opening
the file, but its ENOTTY means "old kernel" as well as "not a namespace yet": so the file system's type is asked first.
Older kernels tell the cookie only to who is inside (agent/datapath/bpf/cookies.py): a short-lived thread enters, asks,
and ends there; setns(2) moves one thread, no other thread notices (needs CAP_SYS_ADMIN). An open file keeps a dead
pod's namespace alive: nothing here stays open.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pathlib
import struct
import sys
import threading
from collections.abc import Iterator

from agent import errors
from agent.datapath.bpf import cookies

NSFS_MAGIC = 0x6E736673
NS_GET_ID = 0x8008B70D
"""_IOR(0xb7, 13, __u64), linux/nsfs.h."""
CLONE_NEWNET = 0x40000000
STATFS_BYTES = 256
"""More than any architecture's struct statfs; f_type is its first word everywhere we run."""


def cookie(path: pathlib.Path) -> int | None:
    """Return the u64 cookie of the network namespace bound at `path`, None if none is bound there (yet, or any more).

    Raises NotSupported where the kernel tells it neither way.
    """
    try:
        with _opened(path) as file:
            if _filesystem(file) != NSFS_MAGIC:
                return None
            try:
                (number,) = struct.unpack("=Q", fcntl.ioctl(file, NS_GET_ID, bytes(8)))
            except OSError as error:
                if error.errno not in {errno.ENOTTY, errno.EINVAL}:
                    raise
                return _asked_inside(file)
            return int(number)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def _filesystem(file: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(STATFS_BYTES)
    if libc.fstatfs(file, buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int.from_bytes(buffer.raw[: struct.calcsize("l")], sys.byteorder)


def _asked_inside(file: int) -> int:
    """Return what a thread is told inside the namespace; raises NotSupported."""
    answers: list[int | errors.NotSupported] = []

    def ask() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file, CLONE_NEWNET) != 0:
            needs = f"CAP_SYS_ADMIN, to enter it ({os.strerror(ctypes.get_errno())}), or Linux 6.18"
            answers.append(errors.NotSupported(feature=cookies.FEATURE, needs=needs))
            return
        try:
            answers.append(cookies.own())
        except errors.NotSupported as error:
            answers.append(error)
        except OSError as error:
            answers.append(errors.NotSupported(feature=cookies.FEATURE, needs=f"sockets inside it ({error.strerror})"))

    thread = threading.Thread(target=ask, name="netns cookie")
    thread.start()
    thread.join()
    (answer,) = answers
    if isinstance(answer, errors.NotSupported):
        raise answer
    return answer
