"""inotify(7) as far as watching a directory of manifests needs it, on the event loop.

The Python standard library has no inotify, and a package for it would be larger than this. The answer is
always "something changed": readers read everything again and compare, so no event can be misread into a
wrong state, and a queue that overflowed (IN_Q_OVERFLOW) is one more reason to read.

A file that is written in place is empty or half full for a while, and half a policy file is fewer policies.
`unsettled` therefore names the files that somebody has modified and not closed yet.
"""

from __future__ import annotations

import asyncio
import ctypes
import enum
import os
import pathlib
import struct
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from agent import errors

_HEADER = struct.Struct("=iIII")
"""struct inotify_event without its name: wd, mask, cookie, len; host byte order."""
_READ_BYTES = 64 * 1024
WRITING_LIMIT_S = 1.0
"""A file that is modified and kept open for longer counts as settled: its writer may never close it."""
WHOLE_QUIET_S = 0.002
"""Enough quiet where files came and went whole, by rename or deletion: it only gathers what is done in one go."""


class Mask(enum.IntFlag):
    """Events, from <linux/inotify.h>."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    IGNORED = 0x8000
    ONLYDIR = 0x1000000
    ISDIR = 0x40000000


_WATCHED = (
    Mask.MODIFY | Mask.ATTRIB | Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.CREATE | Mask.DELETE
) | (Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR)
_WRITTEN = Mask.CLOSE_WRITE | Mask.MOVED_FROM | Mask.MOVED_TO | Mask.DELETE


class Inotify:
    """Watches of directories; close it, or use it as a context manager."""

    def __init__(self, *, concerns: Callable[[str], bool]) -> None:
        """Open an instance; `concerns` tells by a file's name whether its content matters.

        Raises NotSupported where the kernel gives no instance (fs.inotify.max_user_instances).
        """
        self._concerns = concerns
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise errors.NotSupported(
                feature="watching manifests", needs=f"inotify ({os.strerror(ctypes.get_errno())})"
            )
        self._watches: dict[pathlib.Path, int] = {}
        self._being_written: dict[tuple[int, str], float] = {}
        """Watch and name -> when it was first modified since it was last closed, seconds of the monotonic clock."""
        self._modified: set[tuple[int, str]] = set()
        self._renamed: set[tuple[int, str]] = set()
        """Watch and name of files that came whole and were not modified since."""
        self._in_place = False
        """Whether a file was made or written in place, and not renamed, since the last `settled`."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Give the instance and its watches back; again is no error."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def watch(self, directory: pathlib.Path) -> None:
        """Watch a directory; again is no error. Raises OSError."""
        watch = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), int(_WATCHED))
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
        self._watches[directory] = watch

    def keep(self, directories: Collection[pathlib.Path]) -> None:
        """Drop the watches of all other directories."""
        kept = {self._watches[path] for path in directories if path in self._watches}
        for path in [path for path in self._watches if path not in directories]:
            watch = self._watches.pop(path)
            if watch not in kept:
                # EINVAL where the kernel dropped it with its directory.
                self._libc.inotify_rm_watch(self._fd, watch)
        self._renamed = {(watch, name) for watch, name in self._renamed if watch in kept}

    def drain(self) -> bool:
        """Read what is queued without waiting; tell whether something changed."""
        changed = False
        while True:
            try:
                read = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return changed
            changed |= self._note(read)

    def _note(self, read: bytes) -> bool:
        """Follow who writes what; tell whether one event is more than a dropped watch."""
        changed, offset = False, 0
        while offset < len(read):
            watch, mask, _, length = _HEADER.unpack_from(read, offset)
            name = os.fsdecode(read[offset + _HEADER.size : offset + _HEADER.size + length].rstrip(b"\0"))
            offset += _HEADER.size + length
            if mask & Mask.MOVED_TO and self._concerns(name):
                self._renamed.add((watch, name))
            elif mask & (_WRITTEN | Mask.MODIFY | Mask.CREATE):
                self._renamed.discard((watch, name))
            if mask & (Mask.MODIFY | Mask.CREATE) and not mask & Mask.ISDIR and self._concerns(name):
                self._in_place = True
            if mask & Mask.MODIFY and self._concerns(name):
                self._being_written.setdefault((watch, name), time.monotonic())
                self._modified.add((watch, name))
            if mask & _WRITTEN:
                self._being_written.pop((watch, name), None)
            other = mask & (Mask.MODIFY | Mask.CLOSE_WRITE) and not self._concerns(name)
            changed |= not (mask & Mask.IGNORED or other)
        return changed

    def begin(self) -> bool:
        """Begin a reading: forget which files were modified so far; tell as `drain` does."""
        changed = self.drain()
        self._modified.clear()
        return changed

    def unsettled(self) -> frozenset[pathlib.Path]:
        """Return the files that were modified since `begin`, or are being written, as of the last `drain`."""
        since = time.monotonic() - WRITING_LIMIT_S
        writing = {key for key, first in self._being_written.items() if first > since}
        return self._paths(self._modified | writing)

    def renamed(self) -> frozenset[pathlib.Path]:
        """Return the files that came whole, by rename, and were not modified since, as of the last `drain`."""
        return self._paths(self._renamed)

    def _paths(self, keys: Collection[tuple[int, str]]) -> frozenset[pathlib.Path]:
        directories: dict[int, list[pathlib.Path]] = {}
        for path, watch in self._watches.items():
            directories.setdefault(watch, []).append(path)
        return frozenset(path / name for watch, name in keys for path in directories.get(watch, ()))

    async def changed(self, timeout_s: float | None = None) -> bool:
        """Wait for a change; False if `timeout_s` passed without one."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not self.drain():
            readable = asyncio.Event()
            loop.add_reader(self._fd, readable.set)
            try:
                async with asyncio.timeout_at(deadline):
                    await readable.wait()
            except TimeoutError:
                return False
            finally:
                loop.remove_reader(self._fd)
        return True

    async def settled(self, *, quiet_s: float, limit_s: float) -> None:
        """Wait until nothing changed for `quiet_s`, at most `limit_s`; for less where nothing is written in place."""
        deadline = time.monotonic() + limit_s
        while (left := deadline - time.monotonic()) > 0:
            enough_s = quiet_s if self._in_place or self._being_written else min(quiet_s, WHOLE_QUIET_S)
            if not await self.changed(min(enough_s, left)):
                break
        self._in_place = False
