"""The shape of Hubble's API as its own command line has it compiled in."""

from __future__ import annotations

import pathlib

from google.protobuf import descriptor_pb2, message

FIELDS = frozenset(field.number for field in descriptor_pb2.FileDescriptorProto.DESCRIPTOR.fields)
LENGTH_DELIMITED, VARINT = 2, 0


def embedded(program: pathlib.Path, name: str) -> descriptor_pb2.FileDescriptorProto:
    """Return the serialised descriptor of file `name` that a Go program carries; raises LookupError without one."""
    content = program.read_bytes()
    header = b"\n" + bytes([len(name)]) + name.encode()
    begin = content.find(header)
    while begin >= 0:
        found = descriptor_pb2.FileDescriptorProto()
        try:
            found.ParseFromString(content[begin : _end(content, begin)])
        except message.DecodeError:
            pass
        else:
            if found.package and (found.message_type or found.enum_type):
                return found
        begin = content.find(header, begin + 1)
    raise LookupError(name)


def _end(content: bytes, begin: int) -> int:
    """Return where what could be fields of a FileDescriptorProto ends; the name comes once."""
    at = begin
    while True:
        tag, value = _varint(content, at)
        number, kind = tag >> 3, tag & 7
        if number not in FIELDS or kind not in (LENGTH_DELIMITED, VARINT) or (number == 1 and at != begin):
            return at
        size, after = _varint(content, value)
        at = after + size if kind == LENGTH_DELIMITED else after


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
