"""The rows of one map: read, written and deleted, many at a time.

The rule: batches, because a change of policy is thousands of rows and a call costs as much as writing
three; what the kernel stops early for no lasting reason goes on where it stopped. Where a kind of map has no
batches (LPM tries before Linux 5.13) it is one at a time. Deleting what is gone is no error. Bytes in, bytes
out; the caller is the map's only writer.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence

from agent.datapath.bpf import syscalls

BATCH_ROWS = 8192
"""Rows in one batch call: large enough to hide the call, small enough to be interrupted between."""
ENOTSUPP = 524
"""The kernel's own, which no user API names: this kind of map has no batches. Kernels without any answer EINVAL."""
NO_BATCHES = frozenset({ENOTSUPP, errno.EINVAL})


def lookup(descriptor: int, key: bytes, value_size: int) -> bytes | None:
    """Return one value, None where there is no such key; `value_size` times possible CPUs for per-CPU maps."""
    keys, value = syscalls.buffer_of(key), ctypes.create_string_buffer(value_size)
    attr = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(keys), ctypes.addressof(value), 0)
    try:
        syscalls.bpf(syscalls.Command.MAP_LOOKUP_ELEM, attr)
    except FileNotFoundError:
        return None
    return value.raw


def has(descriptor: int, key: bytes) -> bool:
    """Tell whether an LPM trie has just this prefix: a look-up would answer by a shorter one, too.

    The kernel goes on from a key it has, and begins anew from one it has not; nothing comes before the first.
    """
    first = _next_key(descriptor, None, len(key))
    return first is not None and _next_key(descriptor, key, len(key)) != first


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Write one row."""
    keys, values = syscalls.buffer_of(key), syscalls.buffer_of(value)
    attr = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(keys), ctypes.addressof(values), 0)
    syscalls.patiently(lambda: syscalls.bpf(syscalls.Command.MAP_UPDATE_ELEM, attr))


def delete(descriptor: int, key: bytes) -> None:
    """Delete one row; one that is gone is no error."""
    keys = syscalls.buffer_of(key)
    attr = struct.pack("=IIQQQ", descriptor, 0, ctypes.addressof(keys), 0, 0)
    with contextlib.suppress(FileNotFoundError):
        syscalls.patiently(lambda: syscalls.bpf(syscalls.Command.MAP_DELETE_ELEM, attr))


def update_batch(descriptor: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Write many rows; on an error some may be written."""
    for begin in range(0, len(keys), BATCH_ROWS):
        _update_rows(descriptor, keys[begin : begin + BATCH_ROWS], values[begin : begin + BATCH_ROWS])


def _update_rows(descriptor: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    try:
        _batch(syscalls.Command.MAP_UPDATE_BATCH, descriptor, keys, values)
    except OSError as error:
        if error.errno not in NO_BATCHES:
            raise
        for key, value in zip(keys, values, strict=True):
            update(descriptor, key, value)


def delete_batch(descriptor: int, keys: Sequence[bytes]) -> None:
    """Delete many rows; those that are gone are no error."""
    for begin in range(0, len(keys), BATCH_ROWS):
        _delete_rows(descriptor, keys[begin : begin + BATCH_ROWS])


def _delete_rows(descriptor: int, keys: Sequence[bytes]) -> None:
    try:
        _batch(syscalls.Command.MAP_DELETE_BATCH, descriptor, keys, ())
    except OSError:
        # Some row was gone, or the map kind has no batch: one at a time tells the two apart.
        for key in keys:
            delete(descriptor, key)


def _batch(command: syscalls.Command, descriptor: int, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    """Go on behind the rows the kernel has taken whenever it stops early for no lasting reason."""
    done = 0

    def rest() -> None:
        nonlocal done
        key_bytes, value_bytes = syscalls.buffer_of(b"".join(keys[done:])), syscalls.buffer_of(b"".join(values[done:]))
        addresses = (ctypes.addressof(key_bytes), ctypes.addressof(value_bytes) if values else 0)
        attr = struct.pack("=QQQQIIQQ", 0, 0, *addresses, len(keys) - done, descriptor, 0, 0)
        _, code, left = syscalls.attempt(command, attr)
        if code:
            done += min(struct.unpack_from("=I", left, 32)[0], len(keys) - done)
            raise OSError(code, f"bpf({command.name}): {os.strerror(code)}")

    if keys:
        syscalls.patiently(rest)


def dump(descriptor: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield every (key, value); the caller is the map's only writer, so nothing moves meanwhile."""
    info = syscalls.map_info(descriptor)
    try:
        yield from _dump_batches(descriptor, info)
    except OSError as error:
        if error.errno not in NO_BATCHES:
            raise
        yield from _dump_rows(descriptor, info)  # the first batch is refused, or none


def _dump_rows(descriptor: int, info: syscalls.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    key = _next_key(descriptor, None, info.key_size)
    while key is not None:
        value = lookup(descriptor, key, info.value_size)
        if value is not None:
            yield key, value
        key = _next_key(descriptor, key, info.key_size)


def _next_key(descriptor: int, key: bytes | None, key_size: int) -> bytes | None:
    """Return the key after `key`, the first one for None; None at the end."""
    given, following = syscalls.buffer_of(key or b""), ctypes.create_string_buffer(key_size)
    address = 0 if key is None else ctypes.addressof(given)
    attr = struct.pack("=IIQQQ", descriptor, 0, address, ctypes.addressof(following), 0)
    try:
        syscalls.bpf(syscalls.Command.MAP_GET_NEXT_KEY, attr)
    except FileNotFoundError:
        return None
    return following.raw


def _dump_batches(descriptor: int, info: syscalls.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    rows, token = min(info.max_entries, BATCH_ROWS), b""
    while True:
        count, token, keys, values, ended = _lookup_batch(descriptor, info, rows, token)
        if count < 0:
            rows *= 4
            continue
        for index in range(count):
            key_at, value_at = index * info.key_size, index * info.value_size
            yield keys[key_at : key_at + info.key_size], values[value_at : value_at + info.value_size]
        if ended:
            return


def _lookup_batch(
    descriptor: int, info: syscalls.MapInfo, rows: int, token: bytes
) -> tuple[int, bytes, bytes, bytes, bool]:
    """Return (rows read, next token, keys, values, whether that was all); -1 rows: a hash bucket needs more room."""
    keys, values = (
        ctypes.create_string_buffer(rows * info.key_size),
        ctypes.create_string_buffer(rows * info.value_size),
    )
    begin, following = (
        syscalls.buffer_of(token or bytes(1)),
        ctypes.create_string_buffer(max(info.key_size, 8)),
    )
    addresses = (
        ctypes.addressof(begin) if token else 0,
        *(ctypes.addressof(item) for item in (following, keys, values)),
    )
    attr = struct.pack("=QQQQIIQQ", *addresses, rows, descriptor, 0, 0)
    _, code, left = syscalls.attempt(syscalls.Command.MAP_LOOKUP_BATCH, attr)
    if code == errno.ENOSPC:
        return -1, token, b"", b"", False
    if code not in {0, errno.ENOENT}:
        raise OSError(code, f"bpf(MAP_LOOKUP_BATCH): {os.strerror(code)}")
    return struct.unpack_from("=I", left, 32)[0], following.raw, keys.raw, values.raw, code != 0
