"""Rings of events and of answers, laid out in a file as the kernel lays them out in memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import re
import struct
from collections.abc import Callable

import pytest

from agent.datapath.bpf import events, fqdn_answers, fqdn_layout, layout, ring

SIZE = 16 * mmap.PAGESIZE
POSITION = struct.Struct("=Q")


class Written:
    """A ring whose writer is the test; like the kernel's it has its data twice in a row."""

    def __init__(self, path: pathlib.Path, *, begin: int) -> None:
        """Start empty, with both ends at `begin`."""
        path.write_bytes(bytes(ring.POSITIONS_BYTES + 2 * SIZE))
        self.path = path
        self._memory = mmap.mmap(os.open(path, os.O_RDWR), 0)
        self._end = begin
        POSITION.pack_into(self._memory, 0, begin)
        POSITION.pack_into(self._memory, mmap.PAGESIZE, begin)

    def put(self, content: bytes, flags: int = 0) -> None:
        """Write one record."""
        record = struct.pack("=II", len(content) | flags, 0) + content
        record += bytes(-len(record) % fqdn_answers.ALIGNMENT)
        for number, byte in enumerate(record):
            place = ring.POSITIONS_BYTES + (self._end + number) % SIZE
            self._memory[place] = self._memory[place + SIZE] = byte
        self._end += len(record)
        POSITION.pack_into(self._memory, mmap.PAGESIZE, self._end)

    def opened(self, pin: pathlib.Path, *, what: str) -> ring.Ring:
        """Stand in for `ring.open_pinned`."""
        assert what
        return ring.Ring(os.open(pin, os.O_RDWR), size=SIZE)


@pytest.fixture
def written(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Written]:
    def make(begin: int) -> Written:
        made = Written(tmp_path / "ring", begin=begin)
        monkeypatch.setattr(ring, "open_pinned", made.opened)
        return made

    return make


def event(number: int) -> bytes:
    return bytes(number if at < layout.EVENT.size else 0 for at in range(layout.EVENT.size))


def answer(message: bytes) -> bytes:
    return fqdn_layout.ANSWER.pack(1, 7, len(message), 1, 17, bytes(16), 0, 0, bytes(2), bytes(2), 0) + message


@pytest.mark.parametrize("begin", [0, 8, SIZE - 8, SIZE - events.RECORD_BYTES, 3 * SIZE - 2 * events.RECORD_BYTES + 8])
def test_events_are_read_wherever_in_the_ring_they_are(written: Callable[[int], Written], begin: int) -> None:
    made = written(begin)
    with contextlib.closing(events.EventReader(made.path)) as reader:
        assert reader.read() == []
        for number in (1, 2, 3):
            made.put(event(number))
        assert [one.wire_command for one in reader.read()] == [bytes([number]) * 16 for number in (1, 2, 3)]
        assert reader.read() == []
        made.put(event(4))
        made.put(event(5), ring.BUSY)
        assert len(reader.read()) == 1
        assert reader.read() == [], "it is still being written"


@pytest.mark.parametrize("begin", [0, SIZE - 8, SIZE - 64, 5 * SIZE - 104])
def test_answers_of_any_length_are_read_wherever_they_are(written: Callable[[int], Written], begin: int) -> None:
    made = written(begin)
    messages = [b"", b"a", b"b" * 13, b"c" * 512]
    with contextlib.closing(fqdn_answers.AnswerReader(made.path)) as reader:
        for message in messages:
            made.put(answer(message))
        made.put(answer(b"never"), ring.DISCARDED)
        assert [one.message for one in reader.read()] == messages
        assert reader.consumed == reader.written


def test_an_answer_that_a_batch_cuts_off_is_the_next_batch_s(
    written: Callable[[int], Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written(0)
    with contextlib.closing(fqdn_answers.AnswerReader(made.path)) as reader:
        for message in (b"a" * 40, b"b" * 40):
            made.put(answer(message))
        monkeypatch.setattr(fqdn_answers, "BATCH_BYTES", 160)
        assert [one.message for one in reader.read()] == [b"a" * 40]
        assert [one.message for one in reader.read()] == [b"b" * 40]
        assert reader.consumed == reader.written


def test_the_largest_answer_fits_into_a_batch() -> None:
    sources = pathlib.Path("bpf/include")
    (longest,) = re.findall(
        r"#define NW_DNS_MESSAGE_MAX (\d+)", "".join(one.read_text() for one in sources.glob("*.h"))
    )
    assert ring.HEADER_BYTES + fqdn_layout.ANSWER.size + int(longest) <= fqdn_answers.BATCH_BYTES


def test_of_a_ring_the_data_is_mapped_only_while_it_is_read(written: Callable[[int], Written]) -> None:
    made = written(0)
    pages = 3
    with contextlib.closing(ring.Ring(os.open(made.path, os.O_RDWR), size=SIZE)) as opened:
        made.put(bytes((pages - 1) * mmap.PAGESIZE))
        before = mapped(made.path)
        with opened.ready(SIZE):
            assert mapped(made.path) == before + pages * mmap.PAGESIZE
        assert mapped(made.path) == before


def mapped(path: pathlib.Path) -> int:
    """Return how many bytes of a file this process maps."""
    lines = [line.split() for line in pathlib.Path("/proc/self/maps").read_text().splitlines()]
    ends = [line[0].split("-") for line in lines if line[-1] == os.fspath(path)]
    return sum(int(end, 16) - int(begin, 16) for begin, end in ends)


def test_what_cannot_be_mapped_now_is_read_later(
    written: Callable[[int], Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = written(0)
    monkeypatch.setattr(ring, "PAUSE_S", 0)
    with contextlib.closing(events.EventReader(made.path)) as reader:
        made.put(event(1))
        with monkeypatch.context() as full:
            full.setattr(mmap, "mmap", refuse)
            assert reader.read() == []
        assert len(reader.read()) == 1


def refuse(*_arguments: object, **_more: object) -> mmap.mmap:
    raise OSError(12, "Cannot allocate memory")
