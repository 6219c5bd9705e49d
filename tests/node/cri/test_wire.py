"""The wire format: what protobuf's own library writes, and bytes that nobody should have sent."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from hypothesis import given
from hypothesis import strategies as st

from agent import errors
from agent.node.cri import wire


@given(st.integers(0, (1 << 64) - 1))
def test_numbers_are_written_and_read_as_protobuf_has_them(value: int) -> None:
    theirs = wrappers_pb2.UInt64Value(value=value).SerializeToString()
    assert wire.number(1, value) == (theirs or b"\x08\x00")
    assert wire.last_number(theirs, 1) == value


@given(st.text())
def test_strings_are_written_and_read_as_protobuf_has_them(value: str) -> None:
    theirs = wrappers_pb2.StringValue(value=value).SerializeToString()
    assert wire.delimited(1, value.encode()) == (theirs or b"\x0a\x00")
    assert wire.text(theirs, 1) == value


def test_fixed_numbers_are_passed_over() -> None:
    theirs = wrappers_pb2.DoubleValue(value=1.5).SerializeToString()
    assert [number for number, _ in wire.fields(theirs + b"\x15abcd" + wire.number(3, 4))] == [1, 2, 3]


def test_nested_messages_are_found() -> None:
    theirs = struct_pb2.Struct()
    theirs.update({"a": "b"})
    (entry,) = wire.every(theirs.SerializeToString(), 1)
    assert wire.text(entry, 1) == "a"
    assert wire.text(wire.last(entry, 2), 3) == "b"


def test_of_several_values_the_last_counts() -> None:
    assert wire.last_number(wire.number(1, 4) + wire.number(1, 5), 1) == 5
    assert wire.text(wire.delimited(1, b"a") + wire.delimited(1, b"b"), 1) == "b"


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x08", "does not end"),
        (b"\x08" + b"\x80" * 10, "does not end"),
        (b"\x80" * 11, "does not end"),
        (b"\x0a\x05abcd", "after the message"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "after the message"),
        (b"\x09abcdefg", "after the message"),
        (b"\x0b", "wire type 3"),
        (b"\x0c", "wire type 4"),
        (b"\x0e", "wire type 6"),
        (b"\x00\x00", "number 0"),
    ],
)
def test_bytes_that_are_no_message_are_refused(message: bytes, why: str) -> None:
    with pytest.raises(errors.InvalidAnswer, match=why):
        list(wire.fields(message))


def test_a_field_of_another_kind_than_asked_for_is_refused() -> None:
    with pytest.raises(errors.InvalidAnswer):
        wire.text(wire.number(1, 1), 1)
    with pytest.raises(errors.InvalidAnswer):
        wire.last_number(wire.delimited(1, b"a"), 1)
    with pytest.raises(errors.InvalidAnswer):
        wire.text(wire.delimited(1, b"\xff"), 1)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(message: bytes) -> None:
    try:
        found = list(wire.fields(message))
    except errors.InvalidAnswer:
        return
    assert all(number > 0 for number, _ in found)
