"""The pinned maps of one node: created once, opened ever after, written in batches.

The problem: two loaders and an agent that restarts share one set of maps. The rule: neither loader
creates a map; this file does, by plain bpf(2), and pins each under its name before any program is
loaded. A pin of another shape is never adopted, but for counters: a build that counts more or less than
the one before it goes on from what that one counted. One writer (base.Datapath): nothing here is locked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import mmap
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from agent import errors
from agent.datapath import plan
from agent.datapath.bpf import features, fqdn_layout, layout, rows, syscalls

EVENTS_BYTES = 4 << 20
"""Ring size: a power of two of pages. 35 000 events, a third of a second at 100 000 a second."""
UDP_CLIENTS = 1 << 15
"""UDP sockets known as clients; of those forgotten under pressure only the packet layer judges what they send."""
VERDICT_RATES = 1 << 13
"""Kinds of events whose rate is known; the one silent longest is forgotten first."""
CONFIG_KEY = bytes(4)
FORBIDDEN = (
    " (a seccomp profile or a security module may forbid bpf(2), as container runtimes older than CAP_BPF do without "
    "CAP_SYS_ADMIN; before Linux 5.11 the limit of locked memory, RLIMIT_MEMLOCK, must be raised: CAP_SYS_RESOURCE)"
)
"""What is left to say where every capability is there."""
LEARNED = 1 << 19
"""Learned addresses: 128 endpoints with as many as one may have; a row takes memory when it is there."""
NEXT = "_next"
"""Behind the name of a pin that is about to take another's place."""
POSSIBLE_CPUS = pathlib.Path("/sys/devices/system/cpu/possible")


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a map must be to be ours."""

    name: str
    kind: syscalls.MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int


def shapes() -> tuple[Shape, ...]:
    """Return every map of a node."""
    kinds = {True: syscalls.MapType.LPM_TRIE, False: syscalls.MapType.HASH}
    tables = [
        Shape(
            codec.name, kinds[codec.longest_prefix], codec.key_size, codec.value_size, plan.CAPACITY[table],
            syscalls.F_NO_PREALLOC,
        )
        for table, codecs in layout.CODECS.items()
        for codec in codecs
    ]  # fmt: skip
    return (
        *tables,
        Shape("config", syscalls.MapType.ARRAY, 4, layout.CONFIG_BYTES, 1, syscalls.F_MMAPABLE),
        Shape("counters", syscalls.MapType.PERCPU_ARRAY, 4, 8, len(layout.Counter), 0),
        Shape("udp_clients", syscalls.MapType.LRU_HASH, 8, 4, UDP_CLIENTS, 0),
        Shape(
            "verdict_rates", syscalls.MapType.LRU_HASH, layout.RATE_KEY_BYTES, layout.RATE_VALUE_BYTES, VERDICT_RATES, 0
        ),
        Shape("events", syscalls.MapType.RINGBUF, 0, 0, EVENTS_BYTES, 0),
        learned_shape(),
    )


def learned_shape() -> Shape:
    """Return the map that the DNS learner writes and the programs that judge look into; all others are one side's."""
    key, value = fqdn_layout.LEARNED_KEY, fqdn_layout.LEARNED_VALUE
    return Shape("fqdn_learned", syscalls.MapType.HASH, key.size, value.size, LEARNED, syscalls.F_NO_PREALLOC)


class Maps:
    """Descriptors of the pinned maps, and the generation word."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Use the pins in `directory`, on a bpffs; nothing is opened yet."""
        self._directory = directory
        self._descriptors: dict[str, int] = {}
        self._config: mmap.mmap | None = None
        self._words: memoryview | None = None

    def open(self) -> None:
        """Open every pin, creating what is missing. Raises DatapathError where a pin is no map of ours."""
        features.unlock_memory()
        for shape in shapes():
            if shape.name not in self._descriptors:
                self._descriptors[shape.name] = open_or_create(shape, self._directory)
        if self._config is None:
            self._config = mmap.mmap(self._descriptors["config"], mmap.PAGESIZE)
            self._words = memoryview(self._config).cast("I")

    def close(self) -> None:
        """Let go of every descriptor; the pins stay."""
        if self._words is not None:
            self._words.release()
            self._words = None
        if self._config is not None:
            self._config.close()
            self._config = None
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def descriptor(self, name: str) -> int:
        """Return the descriptor of an open map."""
        return self._descriptors[name]

    @property
    def generation(self) -> int:
        """The generation that counts."""
        return self._word(layout.CONFIG_GENERATION_WORD)

    @property
    def drop_silently(self) -> bool:
        """The deny mode the programs follow."""
        return bool(self._word(layout.CONFIG_FLAGS_WORD) & layout.CONFIG_DROP_SILENTLY)

    def store_generation(self, generation: int) -> None:
        """Turn to `generation`: one aligned 32-bit store, the whole node at one instant."""
        self._store(layout.CONFIG_GENERATION_WORD, generation)

    def store_drop_silently(self, *, drop_silently: bool) -> None:
        """Change the deny mode."""
        self._store(layout.CONFIG_FLAGS_WORD, layout.CONFIG_DROP_SILENTLY if drop_silently else 0)

    def store_verdict_interval(self, nanoseconds: int) -> None:
        """Tell one event of a kind in so long, once its burst is spent; 0: all of them.

        A word of its own that nothing else is read from or written with, so it is right beside any generation.
        """
        self._store(layout.CONFIG_INTERVAL_WORD, nanoseconds)

    def _word(self, index: int) -> int:
        assert self._words is not None, "open() comes first"  # noqa: S101 - a programming error
        return int(self._words[index])

    def _store(self, index: int, value: int) -> None:
        assert self._words is not None, "open() comes first"  # noqa: S101 - a programming error
        self._words[index] = value

    def upsert(self, table: plan.Table, content: Mapping[Any, Any]) -> None:
        """Write rows. Raises MapFull, or ApplyFailed after retries; rows before the failing one are written."""
        for codec, keys in self._by_map(table, content):
            encoded = [codec.encode_key(key) for key in keys]
            values = [codec.encode_value(content[key]) for key in keys]
            try:
                rows.update_batch(self.descriptor(codec.name), encoded, values)
            except OSError as error:
                if error.errno in {errno.E2BIG, errno.ENOSPC}:
                    raise errors.MapFull(table=codec.name, rows=len(keys), capacity=plan.CAPACITY[table]) from error
                message = f"writing {len(keys)} rows to the map {codec.name}: {error.strerror}"
                raise errors.ApplyFailed(message) from error

    def delete(self, table: plan.Table, keys: frozenset[Any]) -> None:
        """Delete rows; those that are gone are no error. Raises ApplyFailed."""
        for codec, own in self._by_map(table, keys):
            try:
                rows.delete_batch(self.descriptor(codec.name), [codec.encode_key(key) for key in own])
            except OSError as error:
                message = f"deleting {len(own)} rows of the map {codec.name}: {error.strerror}"
                raise errors.ApplyFailed(message) from error

    @staticmethod
    def _by_map(
        table: plan.Table, keys: Mapping[Any, Any] | frozenset[Any]
    ) -> Iterator[tuple[layout.Codec, list[Any]]]:
        for codec in layout.CODECS[table]:
            own = (
                list(keys)
                if len(layout.CODECS[table]) == 1
                else [k for k in keys if layout.codec_of(table, k) is codec]
            )
            if own:
                yield codec, own

    def tables(self) -> plan.Tables:
        """Read everything the maps hold. Raises DatapathError."""
        try:
            contents = {table.value: dict(self._rows(table)) for table in plan.Table}
        except (OSError, ValueError) as error:
            raise errors.DatapathError(f"reading the maps in {self._directory}: {error}") from error
        return plan.Tables(generation=self.generation, drop_silently=self.drop_silently, **contents)

    def read(self, table: plan.Table) -> Mapping[Any, Any]:
        """Read one table. Raises DatapathError."""
        try:
            return dict(self._rows(table))
        except (OSError, ValueError) as error:
            raise errors.DatapathError(f"reading {table.value} in {self._directory}: {error}") from error

    def _rows(self, table: plan.Table) -> Iterator[tuple[Any, Any]]:
        for codec in layout.CODECS[table]:
            for key, value in rows.dump(self.descriptor(codec.name)):
                yield codec.decode_key(key), codec.decode_value(value)

    def counters(self) -> Mapping[str, int]:
        """Return each counter of enum nw_counter, summed over the CPUs, by its lower-case name."""
        return counters(self.descriptor("counters"))

    def untold(self) -> int:
        """Return how many events were kept back and wait for the next of their kind to tell of them."""
        return sum(layout.untold(value) for _, value in rows.dump(self.descriptor("verdict_rates")))


def open_or_create(shape: Shape, directory: pathlib.Path) -> int:
    """Open the pin of a map, or make both. Raises DatapathError, also where the pin is another shape's."""
    path = directory / shape.name
    try:
        descriptor = syscalls.open_pin(path)
    except FileNotFoundError:
        return _create(shape, path)
    except OSError as error:
        raise errors.DatapathError(f"opening the pinned map {path}: {error.strerror}") from error
    found = syscalls.map_info(descriptor)
    expected = (shape.kind, shape.key_size, shape.value_size, shape.max_entries, shape.flags)
    if (found.type, found.key_size, found.value_size, found.max_entries, found.flags) == expected:
        return descriptor
    with syscalls.owned(descriptor):
        alike = (found.type, found.key_size, found.value_size, found.flags) == (*expected[:3], shape.flags)
        if shape.kind is syscalls.MapType.PERCPU_ARRAY and alike:
            return _go_on_counting(shape, path, descriptor, min(found.max_entries, shape.max_entries))
        raise errors.DatapathError(f"{path} is not the map this version uses: uninstall the other version first")


def _go_on_counting(shape: Shape, path: pathlib.Path, before: int, known: int) -> int:
    """Replace the pin of counters by one of another length that begins with the `known` first of `before`.

    What programs count until they are replaced, too, is lost. Raises DatapathError.
    """
    following = path.with_name(f"{path.name}{NEXT}")
    following.unlink(missing_ok=True)
    descriptor = _create(shape, following)
    try:
        for index in range(known):
            key = struct.pack("=I", index)
            value = rows.lookup(before, key, 8 * _possible_cpus())
            if value is not None:
                rows.update(descriptor, key, value)
        following.replace(path)
    except OSError as error:
        os.close(descriptor)
        raise errors.DatapathError(f"replacing the counters {path}: {error.strerror}") from error
    return descriptor


def _create(shape: Shape, path: pathlib.Path) -> int:
    try:
        descriptor = syscalls.map_create(
            kind=shape.kind,
            key_size=shape.key_size,
            value_size=shape.value_size,
            max_entries=shape.max_entries,
            flags=shape.flags,
            name=f"nw_{shape.name}",
        )
        syscalls.pin(descriptor, path)
    except OSError as error:
        why = f"{error.strerror}{FORBIDDEN if error.errno == errno.EPERM else ''}"
        raise errors.DatapathError(f"creating the map {path}: {why}") from error
    return descriptor


def counters(descriptor: int, kinds: type[enum.Enum] = layout.Counter) -> Mapping[str, int]:
    """Return each counter of a map such as `counters`, summed over the CPUs, by its lower-case name. Raises OSError."""
    size = 8 * _possible_cpus()
    totals: dict[str, int] = {}
    for counter in kinds:
        raw = rows.lookup(descriptor, struct.pack("=I", counter.value), size)
        totals[counter.name.lower()] = sum(struct.unpack(f"={size // 8}Q", raw)) if raw else 0
    return totals


def remove(directory: pathlib.Path) -> None:
    """Unpin every map; the kernel frees them with their last user."""
    for shape in shapes():
        with contextlib.suppress(FileNotFoundError):
            (directory / shape.name).unlink()


def _possible_cpus() -> int:
    """Count the values of a per-CPU row: possible CPUs, not online ones; a list such as `0-3,8`."""
    last = POSSIBLE_CPUS.read_text().strip().replace("-", ",").split(",")[-1]
    return int(last) + 1
