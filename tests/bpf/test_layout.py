"""C and Python agree on every byte: `layout.py` against the BTF of what clang made of `types.h`."""

from __future__ import annotations

import enum
import ipaddress
import struct

import pytest

from agent import desired
from agent.datapath import plan
from agent.datapath.bpf import layout, maps
from agent.model import identity, net
from agent.model import verdict as verdict_
from tests.bpf import btf, judge

SOURCE = judge.REPOSITORY / "tests" / "bpf" / "layout_probe.bpf.c"


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> btf.Types:
    target = tmp_path_factory.mktemp("layout") / "layout_probe.bpf.o"
    judge.build(SOURCE, target)
    return btf.Types(target)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("endpoints", 4, "endpoint_value"),
        ("ep_by_netns", 8, "slot_value"),
        ("ep_by_ifindex", 4, "slot_value"),
        ("ep_by_ip4", 4, "slot_value"),
        ("ep_by_ip6", "addr6", "slot_value"),
        ("ipcache_host4", 4, "slot_value"),
        ("ipcache_host6", "addr6", "slot_value"),
        ("ipcache_cidr4", "cidr4_key", "slot_value"),
        ("ipcache_cidr6", "cidr6_key", "slot_value"),
        ("held4", "cidr4_key", "slot_value"),
        ("held6", "cidr6_key", "slot_value"),
        ("policy", "policy_key", "policy_value"),
        ("frontend4", "frontend4_key", "slot_value"),
        ("frontend6", "frontend6_key", "slot_value"),
        ("service_class", "class_key", "class_value"),
        ("config", 4, "config_value"),
        ("verdict_rates", "rate_key", "rate_value"),
        ("fqdn_learned", "learned_key", "learned_value"),
    ],
)
def test_keys_and_values_are_as_long_as_the_structs(types: btf.Types, name: str, key: int | str, value: str) -> None:
    shape = {shape.name: shape for shape in maps.shapes()}[name]
    assert shape.key_size == (key if isinstance(key, int) else types.size(key))
    assert shape.value_size == types.size(value)


def test_an_event_is_read_member_by_member_as_c_wrote_it(types: btf.Types) -> None:
    assert layout.EVENT.size == types.size("event")
    raw = bytearray(layout.EVENT.size)
    expected: dict[str, object] = {}
    for index, (name, offset, size) in enumerate(types.members("event"), start=1):
        raw[offset : offset + size] = content = bytes([index]) * size
        expected[name] = int.from_bytes(content, "little") if size in {1, 4, 8} else content
    event = layout.RawEvent._make(layout.EVENT.unpack(raw))
    wire = {
        "source": "wire_source",
        "destination": "wire_destination",
        "source_port": "wire_source_port",
        "destination_port": "wire_destination_port",
        "command": "wire_command",
    }
    found = {name: getattr(event, wire.get(name, name)) for name in expected if not name.startswith("pad")}
    assert found == {name: value for name, value in expected.items() if not name.startswith("pad")}


@pytest.mark.parametrize(
    ("c_name", "prefix", "python"),
    [
        ("nw_action", "NW_", desired.Action),
        ("nw_class", "NW_CLASS_", desired.ServiceClass),
        ("nw_layer", "NW_LAYER_", verdict_.Layer),
        ("nw_counter", "NW_COUNT_", layout.Counter),
    ],
)
def test_enums_agree_by_name_and_value(types: btf.Types, c_name: str, prefix: str, python: type[enum.Enum]) -> None:
    values = {name.removeprefix(prefix): value for name, value in types.enumerators(c_name).items()}
    values.pop("MAX", None)
    assert {item.name: item.value for item in python} == values


def test_directions_agree(types: btf.Types) -> None:
    python = {item.name: item.value for item in (*net.Direction, *plan.Asking)}
    assert {name.removeprefix("NW_"): value for name, value in types.enumerators("nw_direction").items()} == python


def test_reasons_and_verdicts_agree(types: btf.Types) -> None:
    reasons = {name.removeprefix("NW_"): value for name, value in types.enumerators("nw_reason").items()}
    reasons["NOT_ISOLATED"] = reasons.pop("NOT_ISOLATED_ALLOWED")  # NW_NOT_ISOLATED is a policy set in C
    assert {reason.name: reason.value for reason in verdict_.Reason} == reasons
    for name, value in types.enumerators("nw_verdict").items():
        assert verdict_.Verdict[name.removeprefix("NW_")].value == value


def test_flags_and_constants_agree(types: btf.Types) -> None:
    assert types.enumerators("nw_endpoint_flag") == {
        "NW_FLAG_PRESENT": layout.FLAG_PRESENT,
        "NW_FLAG_HELD": layout.FLAG_HELD,
        "NW_FLAG_EGRESS_NAMES": layout.FLAG_EGRESS_NAMES,
        "NW_FLAG_EGRESS_AUDIT_NAMES": layout.FLAG_EGRESS_AUDIT_NAMES,
        "NW_FLAG_EGRESS_ASKS": layout.FLAG_EGRESS_ASKS,
        "NW_FLAG_EGRESS_AUDIT_ASKS": layout.FLAG_EGRESS_AUDIT_ASKS,
    }
    assert types.enumerators("nw_config_flag") == {"NW_CONFIG_DROP_SILENTLY": layout.CONFIG_DROP_SILENTLY}
    words = types.members("config_value")
    assert [name for name, _, _ in words] == ["generation", "flags", "verdict_interval_ns", "pad1"]
    assert [offset // 4 for _, offset, _ in words[:3]] == [
        layout.CONFIG_GENERATION_WORD,
        layout.CONFIG_FLAGS_WORD,
        layout.CONFIG_INTERVAL_WORD,
    ]
    assert types.enumerators("constant") == {
        "IDENTITY_ANY": identity.ANY,
        "IDENTITY_HOST": identity.HOST,
        "IDENTITY_WORLD": identity.WORLD,
        "IDENTITY_UNMANAGED": identity.UNMANAGED,
        "NOT_ISOLATED": desired.NOT_ISOLATED,
        "RANK_NONE": desired.NO_RANK,
        "ASKS_ANYTHING": desired.ASKS_ANYTHING,
        "SLOT_EMPTY": 0,
        "ENDPOINT_PROBE": layout.ENDPOINT_PROBE,
        "POLICY_BITS": layout.POLICY_BITS,
        "POLICY_ANY_PROTOCOL": layout.POLICY_ANY_PROTOCOL,
    }


def test_members_lie_where_the_encoders_put_them(types: btf.Types) -> None:
    slot = plan.EndpointSlot(ingress_set=0x01010101, egress_set=0x02020202, held=True, ingress_audit=0x09090909)
    other = plan.EndpointSlot(
        ingress_set=0x03030303,
        egress_set=0x04040404,
        held=False,
        egress_audit=0x0A0A0A0A,
        egress_names=True,
        egress_audit_names=True,
        egress_asks=True,
        egress_audit_asks=True,
    )
    endpoint = layout.encode_endpoint(plan.EndpointValue(slots=(slot, other), ingress_ifindex=0x05050505))
    assert _split(types, "endpoint_value", endpoint) == {
        "slot": struct.pack(
            "=10I", 0x01010101, 0x02020202, 3, 0x09090909, 0, 0x03030303, 0x04040404, 61, 0, 0x0A0A0A0A
        ),
        "ingress_ifindex": b"\x05" * 4,
        "pad1": bytes(4),
    }
    assert [name for name, _, _ in types.members("endpoint_slot")] == [
        *("ingress_set", "egress_set", "flags", "ingress_audit", "egress_audit")
    ]
    key = layout.encode_policy_key(plan.PolicyKey(7, 9, net.Direction.EGRESS, 6, 8080, 13))
    assert _split(types, "policy_key", key) == {
        "prefixlen": struct.pack("=I", 96 - 3),
        "set": struct.pack("=I", 7),
        "identity": struct.pack("=I", 9),
        "direction": b"\x02",
        "protocol": b"\x06",
        "port": b"\x1f\x90",
    }
    frontend = desired.Frontend(address=ipaddress.ip_address("10.96.0.1"), port=443, protocol=6)
    assert _split(types, "frontend4_key", layout.encode_frontend(frontend)) == {
        "addr": bytes([10, 96, 0, 1]),
        "port": b"\x01\xbb",
        "protocol": b"\x06",
        "pad1": b"\0",
    }
    row = layout.encode_row(
        desired.Row(action=desired.Action.DENY, rule=0x07070707, rank=0x0B0B, passed=0x0C0C, asks=0x0D0D0D0D)
    )
    assert _split(types, "policy_value", row) == {
        "rule": b"\x07" * 4,
        "rank": b"\x0b" * 2,
        "passed": b"\x0c" * 2,
        "action": b"\x02",
        "pad1": bytes(3),
        "asks": b"\x0d" * 4,
    }
    value = layout.encode_class(plan.ClassValue(desired.ServiceClass.MIXED, rule=0x08080808, asks=0x09090909))
    assert _split(types, "class_value", value) == {
        "rule": b"\x08" * 4,
        "class_": b"\x03",
        "pad1": bytes(3),
        "asks": b"\x09" * 4,
    }


def _split(types: btf.Types, name: str, raw: bytes) -> dict[str, bytes]:
    return {member: raw[offset : offset + size] for member, offset, size in types.members(name)}
