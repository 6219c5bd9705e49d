"""BPF instructions by hand, for programs of a dozen of them that ask the kernel something.

The problem: what a kernel can do, and what only a program may read, has to be known before and without a compiler.
The rule: one function an instruction, in the words of the kernel's own disassembly; no labels and no jumps. Whatever
judges traffic is written in C. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

BYTES = 8
"""Of one instruction; `load_map` is two."""
FRAME = 10
"""The register that points behind the stack."""
_PSEUDO_MAP_FD = 1
_CALL, _EXIT = 0x85, 0x95
_LOAD_64, _SET_64, _COPY_64, _ADD_64 = 0x18, 0xB7, 0xBF, 0x07
_READ_32, _WRITE_32, _WRITE_64 = 0x61, 0x63, 0x7B


def _instruction(code: int, *, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Encode struct bpf_insn; its two registers share a byte, the first in the half that comes first."""
    return struct.pack("=BBhi", code, to | source << 4, offset, value)


def put(register: int, value: int) -> bytes:
    """Return `register = value`, signed and of 32 bits."""
    return _instruction(_SET_64, to=register, value=value)


def copy(register: int, source: int) -> bytes:
    """Return `register = source`."""
    return _instruction(_COPY_64, to=register, source=source)


def stack(register: int, offset: int) -> bytes:
    """Return `register = fp + offset`; two instructions."""
    return copy(register, FRAME) + _instruction(_ADD_64, to=register, value=offset)


def read32(register: int, source: int, offset: int) -> bytes:
    """Return `register = *(u32 *)(source + offset)`."""
    return _instruction(_READ_32, to=register, source=source, offset=offset)


def keep32(offset: int, register: int) -> bytes:
    """Return `*(u32 *)(fp + offset) = register`."""
    return _instruction(_WRITE_32, to=FRAME, source=register, offset=offset)


def keep64(offset: int, register: int) -> bytes:
    """Return `*(u64 *)(fp + offset) = register`."""
    return _instruction(_WRITE_64, to=FRAME, source=register, offset=offset)


def load_map(register: int, descriptor: int) -> bytes:
    """Return `register = map`; two instructions."""
    return _instruction(_LOAD_64, to=register, source=_PSEUDO_MAP_FD, value=descriptor) + bytes(BYTES)


def with_maps(code: bytes, numbers: Mapping[int, int]) -> bytes:
    """Return `code` with every map it loads called by another number. Raises KeyError for a map that has none."""
    changed = bytearray(code)
    for at in range(0, len(code), BYTES):
        operation, registers, _, value = struct.unpack_from("=BBhi", code, at)
        if operation == _LOAD_64 and registers >> 4 == _PSEUDO_MAP_FD:
            struct.pack_into("=i", changed, at + BYTES - 4, numbers[value])
    return bytes(changed)


def call(function: int) -> bytes:
    """Return `r0 = function(r1, ...)`, a number of enum bpf_func_id."""
    return _instruction(_CALL, value=function)


RETURN_1 = (put(0, 1), _instruction(_EXIT))
"""Every hook's "go on"."""
