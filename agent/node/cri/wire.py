"""The protobuf wire format, as much of it as three questions to a container runtime need: pure.

Two messages with a dozen fields between them are no reason for a copy of CRI's definition and code generated from it.
A field nobody asks for is passed over, whatever is in it; bytes that are no message at all raise InvalidAnswer and
nothing else. Groups (wire types 3 and 4) are not read: CRI has none. protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent import errors

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
VARINT_BYTES = 10
"""Most bytes of a 64-bit number, seven bits each."""
VARINT_MASK = (1 << 64) - 1


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of each field in order: bytes of those with a length and of fixed ones, else a u64."""
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise errors.InvalidAnswer(what="protobuf message", why="a field has number 0")
        if kind == VARINT:
            value, offset = _varint(message, offset)
            yield number, value
            continue
        size = FIXED_SIZES.get(kind, 0)
        if kind == BYTES:
            size, offset = _varint(message, offset)
        elif not size:
            raise errors.InvalidAnswer(what="protobuf message", why=f"field {number} has wire type {kind}")
        if size > len(message) - offset:
            raise errors.InvalidAnswer(what="protobuf message", why=f"field {number} ends after the message")
        yield number, message[offset : offset + size]
        offset += size


def last_number(message: bytes, field: int) -> int:
    """Return a number's last value, 0 where it is absent; of several the last counts, as protobuf has it."""
    found = 0
    for number, value in fields(message):
        if number == field:
            if isinstance(value, bytes):
                raise errors.InvalidAnswer(what="protobuf message", why=f"field {field} is no number")
            found = value
    return found


def every(message: bytes, field: int) -> tuple[bytes, ...]:
    """Return each value of a repeated message, string or bytes."""
    found = []
    for number, value in fields(message):
        if number == field:
            if isinstance(value, int):
                raise errors.InvalidAnswer(what="protobuf message", why=f"field {field} is a number")
            found.append(value)
    return tuple(found)


def last(message: bytes, field: int) -> bytes:
    """Return the last value of a message, string or bytes; b"" where it is absent."""
    found = every(message, field)
    return found[-1] if found else b""


def text(message: bytes, field: int) -> str:
    """Return a string, "" where it is absent."""
    try:
        return last(message, field).decode()
    except UnicodeDecodeError as error:
        raise errors.InvalidAnswer(what="protobuf message", why=f"field {field} is not UTF-8") from error


def delimited(field: int, value: bytes) -> bytes:
    """Encode a message, string or bytes."""
    return _encoded(field << 3 | BYTES) + _encoded(len(value)) + value


def number(field: int, value: int) -> bytes:
    """Encode a number of 0 to 2**64 - 1, or a boolean."""
    return _encoded(field << 3 | VARINT) + _encoded(value)


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    """Return the number at `offset` and the offset after it."""
    value = 0
    for place, byte in enumerate(message[offset : offset + VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value & VARINT_MASK, offset + place + 1
    raise errors.InvalidAnswer(what="protobuf message", why="a number does not end")


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))
