"""The classes of one name, by look-ups of the kernel's own: what `bpf/include/dns_class.h` finds in the pinned maps.

The problem: whoever asks what becomes of a query has to know what the program would, and the program folds a name, asks
the trie and walks the automaton. The rule: the same look-ups in the same maps, of the generation that counts. Nothing
is written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from agent.datapath.bpf import fqdn_layout, fqdn_plan, rows
from agent.fqdn import patterns, trie

NAMES, DFA, CONFIG = "fqdn_names", "fqdn_dfa", "fqdn_config"


def classes_of(maps: Mapping[str, int], name: str, slot: int) -> tuple[int, ...]:
    """Return the classes of a name in one slot, by the descriptors of the learner's maps; none where there are none.

    Raises OSError.
    """
    folded = patterns.canonical(name)
    if folded is None or NAMES not in maps:
        return ()
    at = trie.key(folded)
    found = (_by_trie(maps[NAMES], at, slot), _by_automaton(maps[DFA], at, _config(maps)[_start(slot)]))
    return tuple(sorted({class_ for class_ in found if class_ != fqdn_layout.CLASS_NONE}))


def filters_used(maps: Mapping[str, int]) -> bool:
    """Tell whether programs look for filters at all. Raises OSError."""
    return CONFIG in maps and bool(_config(maps)[fqdn_layout.FILTERS_WORD])


def _start(slot: int) -> int:
    return fqdn_layout.DFA_START_WORD + slot


def _config(maps: Mapping[str, int]) -> tuple[int, ...]:
    raw = rows.lookup(maps[CONFIG], bytes(4), fqdn_layout.CONFIG.size)
    return fqdn_layout.CONFIG.unpack(raw or bytes(fqdn_layout.CONFIG.size))


def _by_trie(names: int, at: bytes, slot: int) -> int:
    """Ask for the longest row; how far below it the name is decides which of its classes is meant."""
    raw = rows.lookup(names, fqdn_layout.encode_key(at), fqdn_layout.NAME_VALUE.size)
    if raw is None:
        return fqdn_layout.CLASS_NONE
    row = fqdn_layout.decode_pair(raw)[slot]
    more = at.count(fqdn_layout.DOT) - row.labels
    if not more:
        return row.exact
    return row.one_label if more == 1 else row.more_labels


def _by_automaton(states: int, at: bytes, start: int) -> int:
    """Walk from the name's end, as it lies in a key."""
    state = start
    for byte in at:
        if state == fqdn_plan.NO_AUTOMATON:
            return fqdn_layout.CLASS_NONE
        symbol = fqdn_layout.ALPHABET.index("." if bytes((byte,)) == fqdn_layout.DOT else chr(byte))
        state = _state(states, state)[symbol]
    return _state(states, state)[fqdn_layout.SYMBOLS] if state != fqdn_plan.NO_AUTOMATON else fqdn_layout.CLASS_NONE


def _state(states: int, number: int) -> tuple[int, ...]:
    """Return where each symbol leads, and then the class."""
    raw = rows.lookup(states, struct.pack("=I", number), fqdn_layout.DFA_STATE.size)
    return fqdn_layout.DFA_STATE.unpack(raw or bytes(fqdn_layout.DFA_STATE.size))
