"""What the pinned maps hold at this moment, by look-ups of the kernel's own.

The problem: the agent knows what it wrote, and that is just what is in doubt. The rule: every map is opened anew by its
pin and asked with the key a program would ask with, so that the answer is the program's; an LPM trie answers without
saying by which prefix, so the prefix is then looked for. Nothing is written, not even where that could tell more.

It must not share descriptors with the datapath, whose one caller may be at work; rows read while a change is under way
belong to either generation.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath import lookups, plan, tracing, walk, words
from agent.datapath.bpf import fqdn_layout, fqdn_maps, layout, learner, maps, names_lookup, programs, rows, syscalls
from agent.model import net, verdict

MAP_TYPES = {
    syscalls.MapType.HASH: "hash",
    syscalls.MapType.ARRAY: "array",
    syscalls.MapType.PERCPU_ARRAY: "percpu_array",
    syscalls.MapType.LRU_HASH: "lru_hash",
    syscalls.MapType.LPM_TRIE: "lpm_trie",
    syscalls.MapType.RINGBUF: "ringbuf",
}
COUNTED = frozenset({"hash", "lru_hash", "lpm_trie"})
"""Types whose entries come and go; of the others all that there can be are there."""


class LoadedMaps(tracing.Loaded, walk.Place):
    """The maps below one directory of pins."""

    def __init__(
        self,
        pins: pathlib.Path,
        layers: frozenset[verdict.Layer],
        reading: lookups.Reads = lookups.every_veth,
        reads: lookups.Reads = lookups.every_veth,
    ) -> None:
        """Open every pin. Raises DatapathError naming the first that cannot be.

        `reading` tells at which veths queries are read as far as the agent knows, `reads` asks the kernel; the latter
        raises DatapathError.
        """
        self._pins = pins
        self._layers = layers
        self._reading, self._reads = reading, reads
        self._descriptors: dict[str, int] = {}
        try:
            for shape in maps.shapes():
                self._descriptors[shape.name] = syscalls.open_pin(pins / shape.name)
            for shape in fqdn_maps.shapes():  # there where names are learned
                if shape.name not in self._descriptors and (pins / shape.name).exists():
                    self._descriptors[shape.name] = syscalls.open_pin(pins / shape.name)
            self._generation = self._read_generation()
        except OSError as error:
            self.close()
            raise errors.DatapathError(f"opening the pinned maps in {pins}: {error.strerror}") from error

    @property
    def generation(self) -> int | None:
        """The generation in force when the maps were opened; every look-up is of it."""
        return self._generation

    def close(self) -> None:
        """Let go of every descriptor; the pins stay."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def trace(self, question: tracing.Question, state: desired_.DesiredState) -> tuple[tracing.Layer, ...]:
        """Judge by look-ups. Raises DatapathError."""
        with self._explained():
            veth = question.veth_ifindex
            unread = frozenset({veth} if veth and not self._reading(veth) else ())
            return tuple(tracing.by_look_ups(self, question, state, self._layers, unread))

    def inventory(self) -> tracing.Inventory:
        """List programs and maps, and count their entries."""
        with self._explained():
            shapes = {shape.name: shape for shape in (*maps.shapes(), *fqdn_maps.shapes())}
            used = tuple(self._use(shapes[name]) for name in self._descriptors)
            return tracing.Inventory(programs=tuple(programs.listed(self._pins)), tables=used)

    def rows(self, table: str, wanted: tracing.Wanted, state: desired_.DesiredState) -> Iterator[tracing.Row]:
        """Yield the rows of a map, in the kernel's order."""
        known = {codec.name: (which, codec) for which, codecs in layout.CODECS.items() for codec in codecs}
        if table in {"config", "counters"} and wanted != tracing.Wanted():
            return  # their rows are no pod's and no set's
        if table == "config":
            yield tracing.Row("generation", str(self._read_generation()))
            return
        if table == "counters":
            for name, count in self._counters().items():
                yield tracing.Row(name, str(count))
            return
        if table not in known:
            remedy = f"name one of {', '.join((*known, 'config', 'counters'))}"
            raise errors.InvalidInput(field="MAP", value=table, remedy=remedy)
        yield from self._rows(*known[table], wanted, words.Words(state))

    def look(self, table: plan.Table, key: walk.Key) -> walk.Found | None:
        """Ask the kernel for `key`, and find which entry answered."""
        codec = layout.codec_of(table, key)
        descriptor = self._descriptors[codec.name]
        first = next(walk.entries(table, key))
        raw = rows.lookup(descriptor, codec.encode_key(first), codec.value_size)
        if raw is None:
            return None
        entry = first
        if codec.longest_prefix:
            answering = (one for one in walk.entries(table, key) if rows.has(descriptor, codec.encode_key(one)))
            entry = next(answering, first)
        return walk.live(table, entry, codec.decode_value(raw), self._generation)

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return the classes that count for what begins now."""
        key = fqdn_layout.encode_learned_key(endpoint, address)
        return learner.live(key, rows.lookup(self._descriptors["fqdn_learned"], key, fqdn_layout.LEARNED_VALUE.size))

    def classes_of(self, name: str) -> Sequence[int]:
        """Ask the trie and the automaton that count in this generation."""
        return names_lookup.classes_of(self._descriptors, name, self._generation & 1)

    def reads(self, ifindex: int) -> bool:
        """Tell whether filters are looked for, and the program that reads queries is at the veth."""
        return names_lookup.filters_used(self._descriptors) and self._reads(ifindex)

    def _rows(
        self, table: plan.Table, codec: layout.Codec, wanted: tracing.Wanted, says: words.Words
    ) -> Iterator[tracing.Row]:
        for raw_key, raw_value in rows.dump(self._descriptors[codec.name]):
            key, value = codec.decode_key(raw_key), codec.decode_value(raw_value)
            if tracing.is_wanted(table, key, value, wanted):
                yield tracing.Row(says.key(table, key), says.entry(table, value))

    def _use(self, shape: maps.Shape) -> tracing.TableUse:
        kind = MAP_TYPES[shape.kind]
        descriptor = self._descriptors[shape.name]
        found = syscalls.map_info(descriptor)
        entries = sum(1 for _ in rows.dump(descriptor)) if kind in COUNTED else found.max_entries
        return tracing.TableUse(
            kind=tracing.Kind.MAP,
            name=shape.name,
            type=kind,
            family={"4": 4, "6": 6}.get(shape.name[-1], 0),
            entries=entries,
            capacity=found.max_entries,
        )

    def _counters(self) -> Mapping[str, int]:
        return maps.counters(self._descriptors["counters"])

    def _read_generation(self) -> int:
        raw = rows.lookup(self._descriptors["config"], maps.CONFIG_KEY, layout.CONFIG_BYTES)
        return int(memoryview(raw or bytes(layout.CONFIG_BYTES)).cast("I")[layout.CONFIG_GENERATION_WORD])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise errors.DatapathError(f"reading the maps in {self._pins}: {error}") from error
