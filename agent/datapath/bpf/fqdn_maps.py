"""The DNS learner's pinned maps: created once, beside those that enforce, and written by one agent.

The problem: what is learned must outlive the agent, and the kernel goes on learning while user space writes. The
rules: created and pinned by plain bpf(2), as in maps.py; user space adds to what is learned only through the kernel's
own program (`replay`), so that nothing is lost between two writers, and deletes only what belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence

from agent import errors
from agent.datapath.bpf import features, fqdn_layout, fqdn_plan, layout, maps, rows, syscalls
from agent.model import fqdn, net

RESOLVERS = 256
NAMES = 1 << 17
"""Rows of the trie: 65,536 names with one for each and one for what is below it."""
DFA_STATES = 1 << 12
"""Two automata of 2,048 states: one that counts, and one that is being written."""
PENDING = 1 << 15
"""Queries under way on the whole node; the oldest is forgotten first, and its answer then teaches nothing."""
ENDPOINTS = 1 << 14
COUNTING = 1 << 15
"""Classes that are known to count; any others are taken for those of policies that are gone, and make room first."""
ANSWERS_BYTES = 1 << 20
REPLAY_ROWS = 100
"""In one run: the kernel takes packets of up to a page."""
PADDING = bytes(14)
"""An Ethernet header's place."""


def shapes() -> tuple[maps.Shape, ...]:
    """Return the learner's maps."""
    kinds, sparse = syscalls.MapType, syscalls.F_NO_PREALLOC
    pending_key, pending_value = fqdn_layout.PENDING_KEY.size, fqdn_layout.PENDING_VALUE.size
    return (
        maps.Shape("fqdn_resolvers", kinds.HASH, 16, 4, RESOLVERS, sparse),
        maps.Shape("fqdn_names", kinds.LPM_TRIE, fqdn_layout.NAME_KEY.size, fqdn_layout.NAME_VALUE.size, NAMES, sparse),
        maps.Shape("fqdn_dfa", kinds.ARRAY, 4, fqdn_layout.DFA_STATE.size, DFA_STATES, 0),
        maps.Shape("fqdn_pending", kinds.LRU_HASH, pending_key, pending_value, PENDING, 0),
        maps.learned_shape(),
        maps.Shape("fqdn_places", kinds.HASH, fqdn_layout.PLACE_KEY.size, 16, maps.LEARNED, sparse),
        maps.Shape("fqdn_hands", kinds.HASH, 4, 4, ENDPOINTS, sparse),
        maps.Shape("fqdn_counting", kinds.HASH, 4, 4, COUNTING, sparse),
        maps.Shape("fqdn_config", kinds.ARRAY, 4, fqdn_layout.CONFIG.size, 1, syscalls.F_MMAPABLE),
        maps.Shape("fqdn_counters", kinds.PERCPU_ARRAY, 4, 8, len(fqdn_layout.Counter), 0),
        maps.Shape("fqdn_answers", kinds.RINGBUF, 0, 0, ANSWERS_BYTES, 0),
    )


class FqdnMaps:
    """Descriptors of the learner's pinned maps."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Use the pins in `directory`, on a bpffs; nothing is opened yet."""
        self._directory = directory
        self._descriptors: dict[str, int] = {}

    def open(self) -> None:
        """Open every pin, creating what is missing. Raises DatapathError where a pin is no map of ours."""
        features.unlock_memory()
        for shape in shapes():
            if shape.name not in self._descriptors:
                self._descriptors[shape.name] = maps.open_or_create(shape, self._directory)

    def close(self) -> None:
        """Let go of every descriptor; the pins stay."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def descriptor(self, name: str) -> int:
        """Return the descriptor of an open map."""
        return self._descriptors[name]

    def trust(self, resolvers: Collection[net.Address]) -> None:
        """Believe these resolvers and no other; those that stay are believed throughout. Raises ApplyFailed."""
        with _explained("writing the trusted resolvers"):
            descriptor = self.descriptor("fqdn_resolvers")
            wanted = {layout.encode_address(resolver) for resolver in resolvers}
            for key in wanted:
                rows.update(descriptor, key, fqdn_layout.RESOLVER_TRUSTED)
            rows.delete_batch(descriptor, [key for key, _ in rows.dump(descriptor) if key not in wanted])

    def write_names(self, content: Mapping[bytes, bytes]) -> None:
        """Write rows of the trie, as `fqdn_layout` encodes them. Raises ApplyFailed."""
        with _explained(f"writing {len(content)} names"):
            rows.update_batch(self.descriptor("fqdn_names"), list(content), list(content.values()))

    def delete_names(self, keys: Collection[bytes]) -> None:
        """Delete rows of the trie, those that are gone among them. Raises ApplyFailed."""
        with _explained(f"deleting {len(keys)} names"):
            rows.delete_batch(self.descriptor("fqdn_names"), list(keys))

    def names(self) -> fqdn_plan.Names:
        """Read the rows of the trie, and where the automata begin. Raises ApplyFailed."""
        with _explained("reading the names"):
            content = {
                fqdn_layout.decode_key(key): fqdn_layout.decode_pair(value)
                for key, value in rows.dump(self.descriptor("fqdn_names"))
            }
            raw = rows.lookup(self.descriptor("fqdn_config"), bytes(4), fqdn_layout.CONFIG.size)
        words = fqdn_layout.CONFIG.unpack(raw or bytes(fqdn_layout.CONFIG.size))
        first = fqdn_layout.DFA_START_WORD
        return fqdn_plan.Names(rows=content, starts=(words[first], words[first + 1]))

    def write_states(self, first: int, states: Sequence[fqdn_layout.DfaState]) -> None:
        """Write states of an automaton, from number `first` on; none that counts may use them. Raises ApplyFailed."""
        keys = [struct.pack("=I", first + index) for index in range(len(states))]
        with _explained(f"writing {len(states)} states of an automaton"):
            rows.update_batch(
                self.descriptor("fqdn_dfa"), keys, [fqdn_layout.encode_dfa_state(state) for state in states]
            )

    def count(self, classes: Collection[int]) -> None:
        """Have these classes count, as far as there is room, beside those that do. Raises ApplyFailed."""
        with _explained(f"writing the {len(classes)} classes of names that count"):
            descriptor = self.descriptor("fqdn_counting")
            known = {key for key, _ in rows.dump(descriptor)}
            new = sorted({struct.pack("=I", class_) for class_ in classes} - known)[: COUNTING - len(known)]
            rows.update_batch(descriptor, new, [fqdn_layout.COUNTS] * len(new))

    def count_only(self, classes: Collection[int]) -> None:
        """Have no other classes count. Raises ApplyFailed."""
        with _explained("forgetting classes of names that count no more"):
            descriptor = self.descriptor("fqdn_counting")
            counting = {struct.pack("=I", class_) for class_ in classes}
            rows.delete_batch(descriptor, [key for key, _ in rows.dump(descriptor) if key not in counting])
        self.count(classes)

    def store_ttl(self, *, min_ttl_s: int, grace_s: int) -> None:
        """Have addresses count for at least so long, and each for so much longer; both in seconds."""
        self._store(fqdn_layout.MIN_TTL_WORD, min_ttl_s)
        self._store(fqdn_layout.GRACE_WORD, grace_s)

    def store_reject(self, reject: fqdn.Reject) -> None:
        """Have whoever asks for what it may not ask for get this answer."""
        self._store(fqdn_layout.REJECT_WORD, fqdn_layout.RCODES[reject])

    def store_filters(self, *, used: bool) -> None:
        """Have programs look for filters, or not: before the first set that has one counts, until after the last."""
        self._store(fqdn_layout.FILTERS_WORD, int(used))

    def store_automaton(self, slot: int, start: int) -> None:
        """Have the automaton that begins in state `start` count in a slot; 0: none."""
        self._store(fqdn_layout.DFA_START_WORD + slot, start)

    def _store(self, word: int, value: int) -> None:
        """Store one aligned word of the configuration at once."""
        with (
            mmap.mmap(self.descriptor("fqdn_config"), mmap.PAGESIZE) as config,
            memoryview(config) as view,
            view.cast("I") as words,
        ):
            words[word] = value

    def learned(self) -> Iterator[fqdn_layout.Learned]:
        """Yield what is learned, expired or not. The kernel goes on meanwhile: a row may be missed or come twice."""
        for key, value in rows.dump(self.descriptor("fqdn_learned")):
            yield from fqdn_layout.decode_learned(key, value)

    def endpoints(self) -> frozenset[int]:
        """Return the endpoints that have learned anything. Raises ApplyFailed."""
        with _explained("looking for endpoints that have learned"):
            return frozenset(struct.unpack("=I", key)[0] for key, _ in rows.dump(self.descriptor("fqdn_hands")))

    def forget(self, *endpoints: int) -> None:
        """Delete all of endpoints that are gone. Raises ApplyFailed."""
        begins = {struct.pack("=I", endpoint) for endpoint in endpoints}
        with _explained(f"forgetting the addresses of {len(begins)} endpoints"):
            for name in ("fqdn_learned", "fqdn_places", "fqdn_hands", "fqdn_pending") if begins else ():
                descriptor = self.descriptor(name)
                rows.delete_batch(descriptor, [key for key, _ in rows.dump(descriptor) if key[:4] in begins])

    def counters(self) -> Mapping[str, int]:
        """Return each counter of enum nw_dns_counter, summed over the CPUs, by its lower-case name."""
        return maps.counters(self.descriptor("fqdn_counters"), fqdn_layout.Counter)


def replay(program: int, learned: Sequence[fqdn_layout.Learned]) -> int:
    """Learn these addresses by the loaded `nw_dns_replay`; return how many found no room. Raises OSError."""
    refused = 0
    for begin in range(0, len(learned), REPLAY_ROWS):
        content = fqdn_layout.encode_replay(learned[begin : begin + REPLAY_ROWS])
        refused += syscalls.program_test_run(program, PADDING + content).verdict
    return refused


def remove(directory: pathlib.Path) -> None:
    """Unpin every map; the kernel frees them with their last user."""
    for shape in shapes():
        with contextlib.suppress(FileNotFoundError):
            (directory / shape.name).unlink()


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.ApplyFailed(f"{doing}: {error.strerror}") from error
