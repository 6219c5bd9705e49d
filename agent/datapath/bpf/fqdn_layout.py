"""Between names, learned addresses and the bytes of `bpf/include/dns_types.h`.

The rule is layout.py's: numbers in the machine's order, addresses as on the wire with IPv4 mapped, padding zero;
`tests/bpf/dns/test_layout.py` compares all of it with the BTF of the compiled object. Times are CLOCK_BOOTTIME, in
nanoseconds. Pure.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Iterator, Mapping, Sequence

from agent.datapath import base
from agent.datapath.bpf import fqdn_plan, layout
from agent.fqdn import trie
from agent.model import fqdn, net

NAME_MAX = 256
MESSAGE_MAX = 4096
RECORDS_MAX = 256
ADDRESSES_MAX = 4096
CLASSES = 4
SYMBOLS = 64
CLASS_NONE = 0
DOT = b"\x80"
RESOLVER_TRUSTED = struct.pack("=I", 1)
COUNTS = struct.pack("=I", 1)
MIN_TTL_WORD, GRACE_WORD, DFA_START_WORD, REJECT_WORD, FILTERS_WORD = 0, 1, 2, 4, 5
"""Words of struct fqdn_config; the automata's first states are DFA_START_WORD and the one behind it, by slot."""
RCODES: Mapping[fqdn.Reject, int] = {fqdn.Reject.REFUSED: 5, fqdn.Reject.NAME_ERROR: 3, fqdn.Reject.DROP: 0}
"""What the word REJECT_WORD says (RFC 1035 4.1.1); 0: no answer."""
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-_."
"""The symbols of an automaton, by number; the dot stands for what is behind each label of a key."""


class Counter(enum.Enum):
    """enum nw_dns_counter; the value is the index in `fqdn_counters`."""

    QUERIES = 0
    ANSWERS = 1
    LEARNED = 2
    NO_RULE = 3
    NEGATIVE = 4
    MALFORMED = 5
    UNTRUSTED = 6
    UNASKED = 7
    FRAGMENTED = 8
    SPLIT = 9
    TOO_LONG = 10
    TOO_MANY_RECORDS = 11
    ADDRESSES = 12
    EVICTED = 13
    CLASS_EVICTED = 14
    FULL = 15
    ANSWERS_LOST = 16
    REFUSED = 17
    WOULD_REFUSE = 18
    HELD = 19


NAME_KEY = struct.Struct(f"=I{NAME_MAX}s")
NAME_VALUE = struct.Struct("=6II4x")
DFA_STATE = struct.Struct(f"={SYMBOLS}HI4x")
PENDING_KEY = struct.Struct("=I16s2s2sB3x")
PENDING_VALUE = struct.Struct("=QQ")
LEARNED_KEY = struct.Struct("=I16s")
LEARNED_VALUE = struct.Struct("=" + "IIQ" * CLASSES + "QI4x")
CLASS_WORDS = 3
"""Of each class in LEARNED_VALUE; then come the time of use and the place."""
PLACE_KEY = struct.Struct("=II")
CONFIG = struct.Struct("=6I")
ANSWER = struct.Struct("=QIHBB16sII2s2sI")
REPLAY_ROW = struct.Struct("=II16sQ")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """struct name_classes: what a row of the trie says in one slot; 0: no class."""

    exact: int = CLASS_NONE
    """Of the row's name."""
    one: int = CLASS_NONE
    """Of names with one more label."""
    more: int = CLASS_NONE
    """Of names with two more labels, or any number beyond."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DfaState:
    """struct dfa_state: where each symbol of ALPHABET leads, and the class of a name that ends here."""

    following: tuple[int, ...]
    class_: int = CLASS_NONE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """An address of one name class, as one endpoint learned it."""

    endpoint: int
    address: net.Address
    class_: int
    expires_ns: int
    used_ns: int = 0
    """When a flow last needed the address, to the second; 0: never."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """struct dns_answer with the message: an answer as the pod got it, or what a filter did not admit."""

    time_ns: int
    endpoint: int
    outcome: base.Outcome
    protocol: int
    resolver: net.Address
    message: bytes
    """Hostile: whoever owns the name, or the pod, has written it."""
    policy_set: int = 0
    rule: int = 0
    client_port: int = 0
    resolver_port: int = 0
    repeats: int = 0


def encode_name_key(name: str) -> bytes:
    """Write struct name_key for a name in lower case, without a dot at its end; "": for every name."""
    labels = reversed(name.split(".")) if name else ()
    marked = b"".join(label[::-1].encode("ascii") + DOT for label in labels)
    return NAME_KEY.pack(len(marked) * 8, marked)


def encode_name_value(slots: tuple[Classes, Classes], *, labels: int) -> bytes:
    """Write struct name_value."""
    words = (word for slot in slots for word in (slot.exact, slot.one, slot.more))
    return NAME_VALUE.pack(*words, labels)


def encode_key(at: bytes) -> bytes:
    """Write struct name_key for a key of `fqdn.trie`."""
    return NAME_KEY.pack(len(at) * 8, at)


def decode_key(raw: bytes) -> bytes:
    """Read struct name_key."""
    bits, name = NAME_KEY.unpack(raw)
    return bytes(name[: bits // 8])


def encode_pair(pair: fqdn_plan.Pair) -> bytes:
    """Write struct name_value for a row of the trie in both slots."""
    words = (word for row in pair for word in (row.exact, row.one_label, row.more_labels))
    return NAME_VALUE.pack(*words, pair[0].labels)


def decode_pair(raw: bytes) -> fqdn_plan.Pair:
    """Read struct name_value."""
    *words, labels = NAME_VALUE.unpack(raw)
    return trie.Row(labels, *words[:3]), trie.Row(labels, *words[3:])


def encode_dfa_state(state: DfaState) -> bytes:
    """Write struct dfa_state."""
    unused = (0,) * (SYMBOLS - len(state.following))
    return DFA_STATE.pack(*state.following, *unused, state.class_)


def encode_learned_key(endpoint: int, address: net.Address) -> bytes:
    """Write struct learned_key."""
    return LEARNED_KEY.pack(endpoint, layout.encode_address(address))


def decode_learned(key: bytes, value: bytes) -> Iterator[Learned]:
    """Read one row of `fqdn_learned`: a value for each class."""
    endpoint, address = LEARNED_KEY.unpack(key)
    words = LEARNED_VALUE.unpack(value)
    for index in range(CLASSES):
        class_, _, expires_ns = words[CLASS_WORDS * index : CLASS_WORDS * (index + 1)]
        if class_ != CLASS_NONE:
            yield Learned(
                endpoint=endpoint,
                address=layout.decode_address(address),
                class_=class_,
                expires_ns=expires_ns,
                used_ns=words[CLASS_WORDS * CLASSES],
            )


def encode_replay(rows: Sequence[Learned]) -> bytes:
    """Write struct replay_row for each."""
    return b"".join(
        REPLAY_ROW.pack(row.endpoint, row.class_, layout.encode_address(row.address), row.expires_ns) for row in rows
    )


def decode_answer(raw: bytes) -> Answer:
    """Read struct dns_answer and the message behind it."""
    time_ns, endpoint, length, outcome, protocol, resolver, *refused = ANSWER.unpack_from(raw)
    policy_set, rule, client_port, resolver_port, repeats = refused
    return Answer(
        time_ns=time_ns,
        endpoint=endpoint,
        outcome=base.Outcome(outcome),
        protocol=protocol,
        resolver=layout.decode_address(resolver),
        message=raw[ANSWER.size : ANSWER.size + length],
        policy_set=policy_set,
        rule=rule,
        client_port=int.from_bytes(client_port, "big"),
        resolver_port=int.from_bytes(resolver_port, "big"),
        repeats=repeats,
    )
