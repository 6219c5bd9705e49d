"""DNS over TCP, put together from the segments that pass: streams in, whole messages out.

The problem: a message can be spread over segments, several can be in one, and segments come twice or out of order. The
rule: a stream is read from the byte behind its SYN on and without a gap, each byte once, as the end that receives it
does; so the segment that completes a message for the pod completes it here, too. A stream whose beginning was not seen
is not read at all: where a message begins could only be guessed, and what a name's owner writes into a record would
then pass for a message.

Everything is bounded: streams, the bytes one holds back, the bytes all do. What is too much makes a stream unreadable,
or the oldest stream go, and is counted. Layout: RFC 9293 3.1, RFC 1035 4.2.2.
"""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator

STREAMS_MAX = 1024
BYTES_MAX = 8 << 20
"""Of all streams together."""
EARLY_BYTES_MAX = 1 << 16
"""Of one stream, behind a gap."""
EARLY_SEGMENTS_MAX = 64
PREFIX = struct.Struct("!H")
SEQUENCES = 1 << 32


class Streams:
    """Reads many streams, each one way; for one thread."""

    def __init__(self) -> None:
        """Know of none."""
        self._streams: dict[Hashable, _Stream] = {}
        self._bytes = 0
        self.evicted = 0
        """Streams that made room for others."""
        self.unreadable = 0
        """Streams with more behind a gap than is kept."""
        self.unknown = 0
        """Segments with content of streams whose beginning was not seen."""

    def open(self, key: Hashable, sequence: int) -> bool:
        """Begin a stream at the number of its SYN; one that comes twice changes nothing. Tell whether it is new."""
        known = self._streams.get(key)
        if known is not None and known.first == sequence:
            return False
        self.close(key)
        while len(self._streams) >= STREAMS_MAX:
            self._evict()
        self._streams[key] = _Stream(sequence)
        return True

    def end(self, key: Hashable, sequence: int) -> None:
        """Forget a stream that ends at a number, if all before it has come."""
        stream = self._streams.get(key)
        if stream is not None and stream.next == sequence % SEQUENCES:
            self.close(key)

    def close(self, key: Hashable) -> None:
        """Forget a stream; one that is not known is no error."""
        stream = self._streams.pop(key, None)
        if stream is not None:
            self._bytes -= stream.size

    def read(self, key: Hashable, sequence: int, payload: bytes) -> list[bytes]:
        """Take a segment's content; return the messages that are whole now, in order."""
        stream = self._streams.get(key)
        if stream is None:
            self.unknown += 1
            return []
        before = stream.size
        readable = stream.take(sequence, payload)
        found = list(stream.messages())
        self._bytes += stream.size - before
        if not readable:
            self.unreadable += 1
            self.close(key)
        while self._bytes > BYTES_MAX:
            self._evict()
        return found

    def __len__(self) -> int:
        """Count the streams."""
        return len(self._streams)

    def _evict(self) -> None:
        """Forget the stream that began first."""
        self.evicted += 1
        self.close(next(iter(self._streams)))


class _Stream:
    __slots__ = ("_early", "_early_bytes", "_ready", "first", "next")

    def __init__(self, first: int) -> None:
        self.first = first
        self.next = (first + 1) % SEQUENCES
        self._ready = bytearray()
        """What has come without a gap and is not read yet: less than a message."""
        self._early: dict[int, bytes] = {}
        """By its number, what came behind a gap."""
        self._early_bytes = 0

    @property
    def size(self) -> int:
        return len(self._ready) + self._early_bytes

    def take(self, sequence: int, payload: bytes) -> bool:
        """Take in a segment, and what it makes readable; False: too much is behind a gap."""
        if not self._append(sequence, payload):
            known = self._early.get(sequence, b"")
            if len(payload) > len(known):
                self._early[sequence] = payload
                self._early_bytes += len(payload) - len(known)
            return self._early_bytes <= EARLY_BYTES_MAX and len(self._early) <= EARLY_SEGMENTS_MAX
        while any(self._append(at, self._early[at]) and self._drop(at) for at in list(self._early)):
            pass
        return True

    def messages(self) -> Iterator[bytes]:
        """Yield each whole message and let go of it."""
        ready = self._ready
        while len(ready) >= PREFIX.size:
            (length,) = PREFIX.unpack_from(ready)
            end = PREFIX.size + length
            if len(ready) < end:
                return
            yield bytes(ready[PREFIX.size : end])
            del ready[:end]

    def _append(self, sequence: int, payload: bytes) -> bool:
        """Append what of a segment is new; False: there is a gap before it."""
        behind = (self.next - sequence) % SEQUENCES
        if behind >= SEQUENCES // 2:
            return False
        new = payload[behind:]
        self._ready += new
        self.next = (self.next + len(new)) % SEQUENCES
        return True

    def _drop(self, sequence: int) -> bool:
        self._early_bytes -= len(self._early.pop(sequence))
        return True
