"""What the agent keeps resident, beyond what it needs.

The problem: an agent is idle for most of its life, and a third of what it then had resident had served its start alone.
The allocator gives each thread memory of its own, which lies fallow once the thread that opened the engine has ended;
and of programs and libraries most pages are read once, to load and link them. The rule: one arena for all threads, of
which the interpreter runs one at a time anyway; and once the first policy is enforced, what starting needed is given
back. Of files that is what their own program headers say nobody writes to, not their linker and not while another
thread loads one: whoever reads it later has it from the page cache.

It changes no result: what is refused, or what another C library does not have, stays resident.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

M_ARENA_MAX = -8
"""mallopt(3)."""
SMAPS, MEMORY = pathlib.Path("/proc/self/smaps"), pathlib.Path("/proc/self/mem")
MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) .(.).p ([0-9a-f]+) (\S+ [1-9]\d*) ")
"""How a private mapping of a file begins in /proc/PID/smaps: addresses, whether it can be written to, place in the
file, device and inode."""
HELD = frozenset({"Anonymous:", "Locked:"})
"""What of a mapping was written to, or shall stay."""
ELF_64 = b"\x7fELF\x02"
HEADER = struct.Struct("=32xQ14xHH")
"""Elf64_Ehdr: where program headers are, bytes of each, how many."""
PROGRAM_HEADER = struct.Struct("=IIQQQQQQ")
"""Elf64_Phdr: type, flags, place in the file, address, physical address, bytes in the file, in memory, alignment."""
PT_LOAD, PF_W = 1, 2

Read: TypeAlias = Callable[[int, int], bytes]
"""Reads so many bytes of this process's memory from an address, or raises OSError."""


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Addresses of whole pages."""

    begin: int
    end: int

    def both(self, other: Range) -> Range:
        """Return what is in both; it ends before it begins where nothing is."""
        return Range(max(self.begin, other.begin), min(self.end, other.end))


@dataclasses.dataclass(slots=True, kw_only=True)
class Mapping:
    """A part of a file, mapped privately."""

    where: Range
    offset: int
    file: str
    clean: bool
    """It cannot be written to, was not, and need not stay."""


def share_arena() -> None:
    """Have all threads that come allocate from one arena."""
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back() -> None:
    """Keep what there is out of garbage collection; give back what is free, and what can be read again."""
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # likewise
        libc.malloc_trim(0)
    with contextlib.suppress(OSError), MEMORY.open("rb", buffering=0) as memory:
        for one in unwritten(mappings(SMAPS.read_text()), lambda at, most: os.pread(memory.fileno(), most, at)):
            libc.madvise(ctypes.c_void_p(one.begin), ctypes.c_size_t(one.end - one.begin), mmap.MADV_DONTNEED)


def mappings(smaps: str) -> list[Mapping]:
    """Return the private mappings of files that /proc/PID/smaps tells of."""
    found: list[Mapping] = []
    now: Mapping | None = None
    for line in smaps.splitlines():
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):
            now = _mapping(line)
            found += [now] if now is not None else []
        elif now is not None and word in HELD and int(rest.split()[0]):
            now.clean = False
    return found


def _mapping(line: str) -> Mapping | None:
    match = MAPPING.match(line)
    if match is None:
        return None
    begin, end, writable, offset, file = match.groups()
    return Mapping(where=Range(int(begin, 16), int(end, 16)), offset=int(offset, 16), file=file, clean=writable != "w")


def unwritten(mapped: Sequence[Mapping], read: Read) -> Iterator[Range]:
    """Yield the pages of programs and libraries that are clean, and that nobody writes to who loads them."""
    clean = [one for one in mapped if one.clean]
    for first in mapped:
        if first.offset == 0:
            for segment in read_only(first.where.begin, read):
                parts = (segment.both(one.where) for one in clean if one.file == first.file)
                yield from (part for part in parts if part.begin < part.end)


def read_only(begin: int, read: Read) -> Iterator[Range]:
    """Yield the whole pages of the segments of a file mapped from `begin` on that are not writable."""
    try:
        head = read(begin, mmap.PAGESIZE)
    except OSError:  # it is gone again
        return
    if len(head) < mmap.PAGESIZE or not head.startswith(ELF_64):
        return
    at, size, count = HEADER.unpack_from(head)
    if size != PROGRAM_HEADER.size or at + count * size > len(head):
        return
    loaded = [one for one in PROGRAM_HEADER.iter_unpack(head[at : at + count * size]) if one[0] == PT_LOAD]
    base = next((begin - _down(address) for _, _, offset, address, *_ in loaded if _down(offset) == 0), None)
    for _, flags, _, address, _, _, length, _ in loaded:
        if base is not None and not flags & PF_W:
            yield Range(base - _down(-address), base + _down(address + length))


def _down(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE
