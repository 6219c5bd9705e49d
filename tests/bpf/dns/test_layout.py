"""C and Python agree on every byte: `fqdn_layout.py` against the BTF of what clang made of `dns_types.h`."""

from __future__ import annotations

import enum
import ipaddress
import struct

import pytest

from agent.datapath import base
from agent.datapath.bpf import fqdn_layout, fqdn_maps
from tests.bpf import btf, judge

SOURCE = judge.REPOSITORY / "tests" / "bpf" / "dns" / "layout_probe.bpf.c"
FOUR = ipaddress.ip_address("203.0.113.7")
MAPPED = bytes(10) + b"\xff\xff" + FOUR.packed


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> btf.Types:
    target = tmp_path_factory.mktemp("layout") / "layout_probe.bpf.o"
    judge.build(SOURCE, target)
    return btf.Types(target)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("fqdn_resolvers", "addr6", 4),
        ("fqdn_names", "name_key", "name_value"),
        ("fqdn_dfa", 4, "dfa_state"),
        ("fqdn_pending", "pending_key", "pending_value"),
        ("fqdn_learned", "learned_key", "learned_value"),
        ("fqdn_places", "place_key", "addr6"),
        ("fqdn_hands", 4, 4),
        ("fqdn_counting", 4, 4),
        ("fqdn_config", 4, "fqdn_config"),
        ("fqdn_counters", 4, 8),
        ("fqdn_answers", 0, 0),
    ],
)
def test_keys_and_values_are_as_long_as_the_structs(
    types: btf.Types, name: str, key: int | str, value: int | str
) -> None:
    shape = {shape.name: shape for shape in fqdn_maps.shapes()}[name]
    assert shape.key_size == (key if isinstance(key, int) else types.size(key))
    assert shape.value_size == (value if isinstance(value, int) else types.size(value))


@pytest.mark.parametrize(
    ("c_name", "prefix", "python"),
    [
        ("nw_dns_outcome", "NW_DNS_", base.Outcome),
        ("nw_dns_counter", "NW_DNS_COUNT_", fqdn_layout.Counter),
    ],
)
def test_enums_agree_by_name_and_value(types: btf.Types, c_name: str, prefix: str, python: type[enum.Enum]) -> None:
    values = {name.removeprefix(prefix): value for name, value in types.enumerators(c_name).items()}
    values.pop("MAX", None)
    assert {item.name: item.value for item in python} == values


def test_outcomes_are_counted_in_their_order() -> None:
    """The program adds the one to the other."""
    first = fqdn_layout.Counter.LEARNED.value - base.Outcome.LEARNED.value
    for outcome in set(base.Outcome) - base.REFUSALS:
        assert fqdn_layout.Counter[outcome.name].value == first + outcome.value


def test_constants_agree(types: btf.Types) -> None:
    assert types.enumerators("constant") == {
        "NAME_MAX": fqdn_layout.NAME_MAX,
        "MESSAGE_MAX": fqdn_layout.MESSAGE_MAX,
        "RECORDS_MAX": fqdn_layout.RECORDS_MAX,
        "ADDRESSES_MAX": fqdn_layout.ADDRESSES_MAX,
        "CLASSES": fqdn_layout.CLASSES,
        "SYMBOLS": fqdn_layout.SYMBOLS,
        "CLASS_NONE": fqdn_layout.CLASS_NONE,
        "DOT": fqdn_layout.DOT[0],
    }


def test_members_lie_where_the_encoders_put_them(types: btf.Types) -> None:
    words = [name for name, _, _ in types.members("fqdn_config")]
    assert [words[word] for word in (fqdn_layout.MIN_TTL_WORD, fqdn_layout.GRACE_WORD, fqdn_layout.DFA_START_WORD)] == [
        *("min_ttl_s", "grace_s", "dfa_start")
    ]
    assert [(name, offset // 4) for name, offset, _ in types.members("fqdn_config")[-2:]] == [
        ("reject", fqdn_layout.REJECT_WORD),
        ("filters", fqdn_layout.FILTERS_WORD),
    ]
    key = fqdn_layout.encode_name_key("a.bc")
    assert _split(types, "name_key", key) == {
        "prefixlen": struct.pack("=I", 40),
        "name": b"cb\x80a\x80".ljust(256, b"\0"),
    }
    assert fqdn_layout.encode_name_key("") == bytes(260)
    first, second = fqdn_layout.Classes(exact=1, one=2, more=3), fqdn_layout.Classes(exact=4, one=5, more=6)
    assert [name for name, _, _ in types.members("name_classes")] == ["exact", "one", "more"]
    assert _split(types, "name_value", fqdn_layout.encode_name_value((first, second), labels=2)) == {
        "slot": struct.pack("=6I", 1, 2, 3, 4, 5, 6),
        "labels": struct.pack("=I", 2),
        "pad1": bytes(4),
    }
    state = fqdn_layout.encode_dfa_state(fqdn_layout.DfaState(following=(7, 8), class_=9))
    assert _split(types, "dfa_state", state) == {
        "next": struct.pack("=HH", 7, 8) + bytes(124),
        "class_": struct.pack("=I", 9),
        "pad1": bytes(4),
    }
    row = fqdn_layout.Learned(endpoint=1, address=FOUR, class_=2, expires_ns=3)
    assert _split(types, "replay_row", fqdn_layout.encode_replay([row])) == {
        "endpoint": struct.pack("=I", 1),
        "class_": struct.pack("=I", 2),
        "address": MAPPED,
        "expires_ns": struct.pack("=Q", 3),
    }


def test_what_the_kernel_writes_is_read_member_by_member(types: btf.Types) -> None:
    assert types.members("learned_class") == [*(("class_", 0, 4), ("datagrams_until_s", 4, 4), ("expires_ns", 8, 8))]
    key = _join(types, "learned_key", endpoint=struct.pack("=I", 7), address=MAPPED)
    of = b"".join(struct.pack("=IIQ", class_, 99, 1000 + class_) for class_ in (5, 0, 6, 0))
    used, place = struct.pack("=Q", 2000), struct.pack("=I", 99)
    value = _join(types, "learned_value", of=of, used_ns=used, place=place, pad1=bytes(4))
    assert list(fqdn_layout.decode_learned(key, value)) == [
        fqdn_layout.Learned(endpoint=7, address=FOUR, class_=5, expires_ns=1005, used_ns=2000),
        fqdn_layout.Learned(endpoint=7, address=FOUR, class_=6, expires_ns=1006, used_ns=2000),
    ]
    raw = _join(
        types, "dns_answer",
        time_ns=struct.pack("=Q", 11), endpoint=struct.pack("=I", 12), length=struct.pack("=H", 3),
        outcome=b"\x02", protocol=b"\x11", resolver=MAPPED,
        policy_set=struct.pack("=I", 13), rule=struct.pack("=I", 14),
        client_port=b"\x9c\x40", resolver_port=b"\x00\x35", repeats=struct.pack("=I", 15),
    )  # fmt: skip
    assert fqdn_layout.decode_answer(raw + b"abc\0\0") == fqdn_layout.Answer(
        time_ns=11,
        endpoint=12,
        outcome=base.Outcome.NO_RULE,
        protocol=17,
        resolver=FOUR,
        message=b"abc",
        policy_set=13,
        rule=14,
        client_port=40000,
        resolver_port=53,
        repeats=15,
    )


def _split(types: btf.Types, name: str, raw: bytes) -> dict[str, bytes]:
    return {member: raw[offset : offset + size] for member, offset, size in types.members(name)}


def _join(types: btf.Types, name: str, **members: bytes) -> bytes:
    raw = bytearray(types.size(name))
    for member, offset, size in types.members(name):
        assert len(members[member]) == size
        raw[offset : offset + size] = members[member]
    return bytes(raw)
