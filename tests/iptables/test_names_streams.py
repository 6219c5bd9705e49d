"""Messages put together from segments, as the receiving end does (requirement F28)."""

from __future__ import annotations

import itertools
import random

import pytest

from agent.datapath.iptables import names_streams
from tests.bpf.dns import wire

KEY, FIRST = "a stream", (1 << 32) - 3
MESSAGES = [b"first message", b"", b"x" * 3000, b"last"]
WHOLE = b"".join(map(wire.prefixed, MESSAGES))


def opened(first: int = FIRST) -> names_streams.Streams:
    streams = names_streams.Streams()
    streams.open(KEY, first)
    return streams


def at(offset: int, first: int = FIRST) -> int:
    """Return the number of a byte of the stream."""
    return (first + 1 + offset) % names_streams.SEQUENCES


@pytest.mark.parametrize("size", [1, 2, 7, 1400, 5000])
def test_messages_are_whole_however_they_are_split_or_joined(size: int) -> None:
    """Numbers wrap in the middle."""
    streams = opened()
    found = [
        message
        for begin in range(0, len(WHOLE), size)
        for message in streams.read(KEY, at(begin), WHOLE[begin : begin + size])
    ]
    assert found == MESSAGES


@pytest.mark.parametrize("seed", range(20))
def test_segments_in_any_order_overlapping_and_repeated_give_each_message_once(seed: int) -> None:
    chance = random.Random(seed)
    cuts = sorted({0, len(WHOLE), *(chance.randrange(len(WHOLE)) for _ in range(12))})
    parts = [(begin, end + chance.randrange(40)) for begin, end in itertools.pairwise(cuts)]
    parts += chance.sample(parts, 3)
    chance.shuffle(parts)
    streams = opened()
    found = [message for begin, end in parts for message in streams.read(KEY, at(begin), WHOLE[begin:end])]
    assert found == MESSAGES


def test_a_stream_whose_beginning_was_not_seen_is_not_read() -> None:
    streams = names_streams.Streams()
    assert streams.read(KEY, at(0), WHOLE) == []
    assert streams.unknown == 1


def test_a_second_syn_begins_anew_and_the_same_one_again_does_not() -> None:
    streams = opened()
    streams.read(KEY, at(0), WHOLE[:5])
    assert not streams.open(KEY, FIRST)
    assert streams.read(KEY, at(5), WHOLE[5:]) == MESSAGES
    assert streams.open(KEY, 77)
    assert streams.read(KEY, at(0, 77), WHOLE) == MESSAGES


def test_what_is_behind_a_gap_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_streams, "EARLY_BYTES_MAX", 100)
    streams = opened()
    assert streams.read(KEY, at(10), bytes(101)) == []
    assert (streams.unreadable, len(streams)) == (1, 0)


def test_streams_and_their_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_streams, "STREAMS_MAX", 3)
    monkeypatch.setattr(names_streams, "BYTES_MAX", 250)
    streams = names_streams.Streams()
    for key in range(5):
        streams.open(key, 0)
    assert (streams.evicted, len(streams)) == (2, 3)
    for key in range(2, 5):
        streams.read(key, 1, b"\xff\xff" + bytes(98))
    assert (streams.evicted, len(streams)) == (3, 2)


def test_a_stream_that_has_ended_is_forgotten_once_all_has_come() -> None:
    streams = opened()
    streams.read(KEY, at(0), WHOLE[:4])
    streams.end(KEY, at(len(WHOLE)))
    assert len(streams) == 1
    streams.read(KEY, at(4), WHOLE[4:])
    streams.end(KEY, at(len(WHOLE)))
    assert len(streams) == 0
