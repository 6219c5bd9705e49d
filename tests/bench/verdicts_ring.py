"""A ring of raw events in a file, laid out as the kernel's: a writer in one process, the agent's own reader in another.

Page 0 has the consumer's position and, behind it, what found the ring full; page 1 the producer's; then twice the data.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import struct

from agent.datapath.bpf import events, layout, ring
from tests.support import agents

BYTES = 16 * 1024 * 1024
FLOWS = 4096
"""Different flows, told over and over."""
CONSUMED, LOST, OFFERED = 0, 1, 2
"""Words of page 0."""


class SharedReader(events.EventReader):
    """The agent's reader, of a file instead of a pinned map; `wake` is readable when there is something."""

    def __init__(self, path: pathlib.Path, wake: int) -> None:
        """Map the file."""
        self._path = path
        self._wake = wake
        self._ring = ring.Ring(os.open(path, os.O_RDWR), size=BYTES)

    @property
    def fd(self) -> int:
        """Readable when there is something."""
        return self._wake

    def read(self) -> list[layout.RawEvent]:
        """Return what is ready, and let `wake` sleep if that is all."""
        found = super().read()
        if self._ring.consumed == self._ring.written:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        return found

    @property
    def lost(self) -> int:
        """What found the ring full."""
        return offered(self._path)[1]


class SharedWriter:
    """Puts events into the file's ring, as many as fit."""

    def __init__(self, path: pathlib.Path, wake: int) -> None:
        """Map the file and make the events."""
        file = os.open(path, os.O_RDWR)
        self._all = mmap.mmap(file, 2 * mmap.PAGESIZE + 2 * BYTES)
        os.close(file)
        self._words = memoryview(self._all)[: mmap.PAGESIZE].cast("Q")
        self._produced = memoryview(self._all)[mmap.PAGESIZE : mmap.PAGESIZE + 8].cast("Q")
        self._data = memoryview(self._all)[2 * mmap.PAGESIZE :]
        self._wake = wake
        self._events = _records() * 5
        """More than one slice takes, wherever in it that begins."""
        self._next = 0

    def put(self, count: int) -> None:
        """Offer `count` events, at most four times FLOWS."""
        end, free = self._produced[0], BYTES - (self._produced[0] - self._words[CONSUMED])
        fitting = min(count, free // events.RECORD_BYTES)
        begin = self._next * events.RECORD_BYTES
        chunk = self._events[begin : begin + fitting * events.RECORD_BYTES]
        self._next = (self._next + fitting) % FLOWS
        at = end & (BYTES - 1)
        first = min(len(chunk), BYTES - at)
        for copy in (0, BYTES):
            self._data[copy + at : copy + at + first] = chunk[:first]
            self._data[copy : copy + len(chunk) - first] = chunk[first:]
        self._produced[0] = end + len(chunk)
        self._words[LOST] += count - fitting
        self._words[OFFERED] += count
        os.eventfd_write(self._wake, 1)


def make(path: pathlib.Path) -> None:
    """Make an empty ring."""
    with path.open("wb") as file:
        file.truncate(2 * mmap.PAGESIZE + 2 * BYTES)


def offered(path: pathlib.Path) -> tuple[int, int]:
    """Return how many events were offered, and how many of them found the ring full."""
    with path.open("rb") as file:
        words = struct.unpack("3Q", file.read(24))
    return words[OFFERED], words[LOST]


def _records() -> bytes:
    """Return one flow after the other, from x/a to x/b, one in eight denied."""
    made: list[bytes] = []
    for number in range(FLOWS):
        denied = number % 8 == 0
        values = {
            "netns_cookie": 0,
            "endpoint": 2,
            "generation": 1,
            "policy_set": 5,
            "rule": 0 if denied else 9,
            "source_identity": 300,
            "destination_identity": 301,
            "wire_source": layout.encode_address(agents.CLIENT),
            "wire_destination": layout.encode_address(agents.SERVER),
            "wire_source_port": (20000 + number).to_bytes(2, "big"),
            "wire_destination_port": (80).to_bytes(2, "big"),
            "protocol": 6,
            "family": 4,
            "layer": 2,
            "direction": 1,
            "verdict": 2 if denied else 1,
            "reason": 3 if denied else 1,
            "wire_command": bytes(16),
        }
        content = layout.EVENT.pack(*(values.get(name, 0) for name in layout.RawEvent._fields))
        made.append(struct.pack("=II", len(content), 0) + content)
    return b"".join(made)
