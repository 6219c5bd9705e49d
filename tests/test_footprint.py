"""What of an agent's memory is given back, and that what is given back is still there."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import pathlib
import struct
import subprocess
import sys

import pytest

from agent import footprint

PAGE = mmap.PAGESIZE
BASE = 0x7F00_0000_0000
LIBRARY = """\
{a:x}-{b:x} r--p 00000000 fe:00 77  /lib/libx.so
Rss:                  16 kB
Anonymous:             0 kB
Locked:                0 kB
VmFlags: rd mr mw me
{b:x}-{c:x} r-xp 00004000 fe:00 77  /lib/libx.so
Anonymous:             {written} kB
Locked:                {locked} kB
{c:x}-{d:x} r--p 00008000 fe:00 77  /lib/libx.so
Anonymous:             0 kB
{d:x}-{e:x} rw-p 0000a000 fe:00 77  /lib/libx.so
Anonymous:             8 kB
{e:x}-{f:x} rw-p 00000000 00:00 0
Anonymous:             4 kB
{f:x}-{g:x} rw-s 00001000 00:0e 12  anon_inode:bpf-map
Anonymous:             0 kB
"""
PAGES = dict(zip("abcdefg", (0, 4, 8, 10, 12, 14, 16), strict=True))
"""Read, execute, read-only data that the linker wrote to first, data, memory, a BPF map."""
LOAD = footprint.PT_LOAD


def smaps(*, written: int = 0, locked: int = 0) -> str:
    places = {name: BASE + page * PAGE for name, page in PAGES.items()}
    return LIBRARY.format(**places, written=written, locked=locked)


def image(*headers: tuple[int, int, int, int], magic: bytes = footprint.ELF_64, address: int = 0) -> bytes:
    """Return the first page of a file with program headers: type, flags, begin and end in pages."""
    head = bytearray(PAGE)
    head[: len(magic)] = magic
    footprint.HEADER.pack_into(head, 0, 64, footprint.PROGRAM_HEADER.size, len(headers))
    head[: len(magic)] = magic
    for number, (kind, flags, begin, end) in enumerate(headers):
        place, length = begin * PAGE, (end - begin) * PAGE
        fields = (kind, flags, place, address + place, 0, length, length, PAGE)
        footprint.PROGRAM_HEADER.pack_into(head, 64 + number * footprint.PROGRAM_HEADER.size, *fields)
    return bytes(head)


LINKED = image((LOAD, 4, 0, 4), (LOAD, 5, 4, 8), (LOAD, 6, 8, 12), (2, 6, 9, 10))


def given_back(text: str, head: bytes = LINKED) -> list[tuple[int, int]]:
    """Return the pages that are given back, counted from the library's first."""
    found = footprint.unwritten(footprint.mappings(text), lambda at, most: head[at - BASE :][:most])
    return [((one.begin - BASE) // PAGE, (one.end - BASE) // PAGE) for one in found]


def test_what_the_linker_never_writes_to_is_given_back() -> None:
    """Not what is read-only by now, nor anything that is no file's."""
    assert given_back(smaps()) == [(0, 4), (4, 8)]


@pytest.mark.parametrize("text", [smaps(written=4), smaps(locked=4)])
def test_what_was_written_to_or_is_locked_stays(text: str) -> None:
    assert given_back(text) == [(0, 4)]


def test_of_a_library_that_is_being_loaded_only_its_own_segments_are_given_back() -> None:
    """First all of it is mapped as its first segment is, then the others over it."""
    text = f"{BASE:x}-{BASE + 12 * PAGE:x} r-xp 00000000 fe:00 77  /lib/libx.so\nAnonymous:             0 kB\n"
    assert given_back(text) == [(0, 4), (4, 8)]


def test_a_program_is_where_it_was_linked_for() -> None:
    linked = image((LOAD, 4, 0, 4), (LOAD, 5, 4, 8), address=BASE)
    assert given_back(smaps(), linked) == [(0, 4), (4, 8)]


def test_pages_that_two_segments_share_stay() -> None:
    head = bytearray(image((LOAD, 5, 0, 4)))
    struct.pack_into("=Q", head, 64 + 40, 3 * PAGE + 1)
    assert given_back(smaps(), bytes(head)) == [(0, 3)]


@pytest.mark.parametrize(
    "head",
    [
        image((LOAD, 5, 0, 4), magic=b"\x7fELF\x01"),
        image((LOAD, 5, 0, 4), magic=b"locale"),
        image((LOAD, 5, 4, 8)),
        LINKED[:100],
        b"",
        footprint.ELF_64 + b"\xff" * (PAGE - 5),
    ],
)
def test_what_is_no_library_stays(head: bytes) -> None:
    assert given_back(smaps(), head) == []


def test_what_is_gone_again_is_left_out() -> None:
    def gone(_at: int, _most: int) -> bytes:
        raise OSError(5, "Input/output error")

    assert list(footprint.unwritten(footprint.mappings(smaps()), gone)) == []


PROGRAM = """
import ctypes, pathlib, re, ssl
from agent import footprint
footprint.share_arena()
def resident():
    text = pathlib.Path("/proc/self/status").read_text()
    return [int(re.search(field + r":\\s+(\\d+)", text)[1]) for field in ("RssFile", "RssAnon")]
before = resident()
footprint.give_back()
after = resident()
print(*before, *after)
import decimal, hashlib, json, socket, sqlite3
assert json.loads(json.dumps({"a": [1.5]})) == {"a": [1.5]}
print(hashlib.sha256(b"x").hexdigest(), decimal.Decimal(2).sqrt(), ssl.create_default_context().protocol)
footprint.give_back()
print(hashlib.sha256(b"x").hexdigest())
"""


def test_a_process_goes_on_with_less() -> None:
    environment = {**os.environ, "PYTHONPATH": os.fspath(pathlib.Path(footprint.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    sizes, first, second = ended.stdout.splitlines()
    file, anonymous, file_after, anonymous_after = map(int, sizes.split())
    assert file_after < file * 2 // 3
    assert anonymous_after <= anonymous + 512
    assert first.startswith(hashlib.sha256(b"x").hexdigest())
    assert second == hashlib.sha256(b"x").hexdigest()


THREADS = """
import pathlib, re, threading
from agent import footprint
{}
kept, meeting = [], threading.Barrier(5)
def work():
    kept.append([bytes(1000 + number) for number in range(500)])
    meeting.wait()
    meeting.wait()
for _ in range(4):
    threading.Thread(target=work).start()
meeting.wait()
reserved = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) ---p .* 0 *$", pathlib.Path("/proc/self/maps").read_text(), re.M)
print(sum(int(end, 16) - int(begin, 16) > 40 << 20 for begin, end in reserved))
meeting.wait()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's allocator")
def test_threads_share_an_arena() -> None:
    """Without that each has its own, for which 64 MiB of addresses are reserved."""
    assert arenas("footprint.share_arena()") == 0
    assert arenas("") > 0


def arenas(first: str) -> int:
    """Return how many arenas there are besides the first, with four threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONPATH"] = os.fspath(pathlib.Path(footprint.__file__).parents[1])
    command = [sys.executable, "-c", THREADS.format(first)]
    return int(subprocess.run(command, capture_output=True, env=environment, check=True).stdout)
