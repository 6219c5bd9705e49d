"""Between plan keys and values and the bytes of `bpf/include/types.h`; the only byte-order code.

The problem: C and Python must agree to the byte, on every machine. The rule: numbers are in the
machine's order, as the programs read them; addresses and ports are as on the wire; padding is zero, for
maps compare keys as bytes. `tests/bpf/test_layout.py` compares sizes, offsets and enums with the
BTF of the compiled object. Pure: no descriptor, no call.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from agent import desired as desired_
from agent.datapath import base, plan
from agent.model import net

ABI = 4
"""Version of everything in this file; the pins of another version are another directory."""
ENDPOINT_PROBE = 1
"""Endpoint number of the self-test; the programs emit no events for it."""
POLICY_BITS = 96
POLICY_ANY_PROTOCOL = 72
FLAG_PRESENT = 1
FLAG_HELD = 2
FLAG_EGRESS_NAMES = 4
FLAG_EGRESS_AUDIT_NAMES = 8
FLAG_EGRESS_ASKS = 16
FLAG_EGRESS_AUDIT_ASKS = 32
CONFIG_DROP_SILENTLY = 1
CONFIG_BYTES = 16
CONFIG_GENERATION_WORD = 0
CONFIG_FLAGS_WORD = 1
CONFIG_INTERVAL_WORD = 2
RATE_KEY_BYTES = 16
RATE_VALUE_BYTES = 16
MAPPED_PREFIX = bytes(10) + b"\xff\xff"


class Counter(enum.Enum):
    """enum nw_counter; the value is the index in `counters`."""

    EVENTS_LOST = 0
    SOCKET_ALLOWED = 1
    SOCKET_DENIED = 2
    PACKET_ALLOWED = 3
    PACKET_DENIED = 4
    SPOOFED = 5
    MALFORMED = 6
    EVENTS_SUPPRESSED = 7
    EVENTS_REPEATED = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Codec:
    """One map: its pinned name and the bytes of its keys and values."""

    name: str
    key_size: int
    value_size: int
    encode_key: Callable[[Any], bytes]
    decode_key: Callable[[bytes], Any]
    encode_value: Callable[[Any], bytes]
    decode_value: Callable[[bytes], Any]
    longest_prefix: bool = False
    """LPM trie, not hash."""


_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_SLOTS = struct.Struct("=II")
_POLICY_KEY = struct.Struct("=IIIBB2s")
_POLICY_VALUE = struct.Struct("=IHHB3xI")
_ENDPOINT = struct.Struct("=5I5II4x")
_ENDPOINT_SLOT_WORDS = 5
_PREFIX4 = struct.Struct("=I4s")
_PREFIX6 = struct.Struct("=I16s")
_FRONTEND4 = struct.Struct("=4s2sBx")
_FRONTEND6 = struct.Struct("=16s2sBx")
_CLASS_VALUE = struct.Struct("=IB3xI")
_RATE_VALUE = struct.Struct("=QII")


def encode_pair(value: tuple[int, int]) -> bytes:
    """Write struct slot_value, or struct class_key."""
    return _SLOTS.pack(*value)


def decode_pair(raw: bytes) -> tuple[int, int]:
    """Read struct slot_value, or struct class_key."""
    first, second = _SLOTS.unpack(raw)
    return first, second


def encode_policy_key(key: plan.PolicyKey) -> bytes:
    """Write struct policy_key: the wildcards are what the prefix leaves out."""
    bits = POLICY_BITS - 16 + key.port_bits if key.protocol != desired_.ANY_PROTOCOL else POLICY_ANY_PROTOCOL
    return _POLICY_KEY.pack(bits, key.set, key.identity, key.direction.value, key.protocol, key.port.to_bytes(2, "big"))


def decode_policy_key(raw: bytes) -> plan.PolicyKey:
    """Read struct policy_key."""
    bits, policy_set, identity, direction, protocol, port = _POLICY_KEY.unpack(raw)
    return plan.PolicyKey(
        set=policy_set,
        identity=identity,
        direction=plan.Asking.ASK if direction == plan.Asking.ASK.value else net.Direction(direction),
        protocol=protocol,
        port=int.from_bytes(port, "big"),
        port_bits=max(bits - (POLICY_BITS - 16), 0),
    )


def encode_row(row: desired_.Row) -> bytes:
    """Write struct policy_value."""
    return _POLICY_VALUE.pack(row.rule, row.rank, row.passed, row.action.value, row.asks)


def decode_row(raw: bytes) -> desired_.Row:
    """Read struct policy_value."""
    rule, rank, passed, action, asks = _POLICY_VALUE.unpack(raw)
    return desired_.Row(action=desired_.Action(action), rule=rule, rank=rank, passed=passed, asks=asks)


def encode_endpoint(value: plan.EndpointValue) -> bytes:
    """Write struct endpoint_value."""
    words: list[int] = []
    for slot in value.slots:
        if slot is None:
            words += [0] * _ENDPOINT_SLOT_WORDS
        else:
            words += [slot.ingress_set, slot.egress_set, _flags(slot), slot.ingress_audit, slot.egress_audit]
    return _ENDPOINT.pack(*words, value.ingress_ifindex)


def decode_endpoint(raw: bytes) -> plan.EndpointValue:
    """Read struct endpoint_value."""
    *words, ingress_ifindex = _ENDPOINT.unpack(raw)
    first, second = words[:_ENDPOINT_SLOT_WORDS], words[_ENDPOINT_SLOT_WORDS:]
    return plan.EndpointValue(
        slots=(_decode_endpoint_slot(first), _decode_endpoint_slot(second)), ingress_ifindex=ingress_ifindex
    )


def _flags(slot: plan.EndpointSlot) -> int:
    """Return enum nw_endpoint_flag."""
    flags = FLAG_PRESENT
    flags |= FLAG_HELD if slot.held else 0
    flags |= FLAG_EGRESS_NAMES if slot.egress_names else 0
    flags |= FLAG_EGRESS_AUDIT_NAMES if slot.egress_audit_names else 0
    flags |= FLAG_EGRESS_ASKS if slot.egress_asks else 0
    flags |= FLAG_EGRESS_AUDIT_ASKS if slot.egress_audit_asks else 0
    return flags


def _decode_endpoint_slot(words: Sequence[int]) -> plan.EndpointSlot | None:
    ingress_set, egress_set, flags, ingress_audit, egress_audit = words
    if not flags & FLAG_PRESENT:
        return None
    return plan.EndpointSlot(
        ingress_set=ingress_set,
        egress_set=egress_set,
        held=bool(flags & FLAG_HELD),
        ingress_audit=ingress_audit,
        egress_audit=egress_audit,
        egress_names=bool(flags & FLAG_EGRESS_NAMES),
        egress_audit_names=bool(flags & FLAG_EGRESS_AUDIT_NAMES),
        egress_asks=bool(flags & FLAG_EGRESS_ASKS),
        egress_audit_asks=bool(flags & FLAG_EGRESS_AUDIT_ASKS),
    )


def encode_class(value: plan.ClassValue) -> bytes:
    """Write struct class_value."""
    return _CLASS_VALUE.pack(value.rule, value.service_class.value, value.asks)


def decode_class(raw: bytes) -> plan.ClassValue:
    """Read struct class_value."""
    rule, service_class, asks = _CLASS_VALUE.unpack(raw)
    return plan.ClassValue(service_class=desired_.ServiceClass(service_class), rule=rule, asks=asks)


def encode_prefix4(network: net.Network) -> bytes:
    """Write struct cidr4_key."""
    return _PREFIX4.pack(network.prefixlen, network.network_address.packed)


def encode_prefix6(network: net.Network) -> bytes:
    """Write struct cidr6_key."""
    return _PREFIX6.pack(network.prefixlen, network.network_address.packed)


def decode_prefix4(raw: bytes) -> net.Network:
    """Read struct cidr4_key."""
    bits, packed = _PREFIX4.unpack(raw)
    return ipaddress.IPv4Network((packed, bits))


def decode_prefix6(raw: bytes) -> net.Network:
    """Read struct cidr6_key."""
    bits, packed = _PREFIX6.unpack(raw)
    return ipaddress.IPv6Network((packed, bits))


def encode_frontend(frontend: desired_.Frontend) -> bytes:
    """Write struct frontend4_key or frontend6_key."""
    shape = _FRONTEND4 if frontend.address.version == net.Family.IPV4.value else _FRONTEND6
    return shape.pack(frontend.address.packed, frontend.port.to_bytes(2, "big"), frontend.protocol)


def decode_frontend(raw: bytes) -> desired_.Frontend:
    """Read struct frontend4_key or frontend6_key."""
    shape = _FRONTEND4 if len(raw) == _FRONTEND4.size else _FRONTEND6
    packed, port, protocol = shape.unpack(raw)
    return desired_.Frontend(address=ipaddress.ip_address(packed), port=int.from_bytes(port, "big"), protocol=protocol)


def _decode_u32(raw: bytes) -> int:
    number: int = _U32.unpack(raw)[0]
    return number


def _decode_u64(raw: bytes) -> int:
    number: int = _U64.unpack(raw)[0]
    return number


def _packed(address: net.Address) -> bytes:
    return address.packed


_SLOT_VALUE = (encode_pair, decode_pair)


def _numbered(name: str, shape: struct.Struct, decode: Callable[[bytes], int]) -> Codec:
    return Codec(name, shape.size, 8, shape.pack, decode, *_SLOT_VALUE)


def _by_address(name: str) -> tuple[Codec, Codec]:
    return (
        Codec(f"{name}4", 4, 8, _packed, ipaddress.IPv4Address, *_SLOT_VALUE),
        Codec(f"{name}6", 16, 8, _packed, ipaddress.IPv6Address, *_SLOT_VALUE),
    )


def _by_prefix(name: str) -> tuple[Codec, Codec]:
    return (
        Codec(f"{name}4", 8, 8, encode_prefix4, decode_prefix4, *_SLOT_VALUE, longest_prefix=True),
        Codec(f"{name}6", 20, 8, encode_prefix6, decode_prefix6, *_SLOT_VALUE, longest_prefix=True),
    )


CODECS: Mapping[plan.Table, tuple[Codec, ...]] = MappingProxyType(
    {
        plan.Table.POLICY: (
            Codec("policy", 16, 16, encode_policy_key, decode_policy_key, encode_row, decode_row, longest_prefix=True),
        ),
        plan.Table.SERVICE_CLASS: (
            Codec("service_class", 8, 12, encode_pair, decode_pair, encode_class, decode_class),
        ),
        plan.Table.ENDPOINTS: (
            Codec("endpoints", 4, _ENDPOINT.size, _U32.pack, _decode_u32, encode_endpoint, decode_endpoint),
        ),
        plan.Table.EP_BY_NETNS: (_numbered("ep_by_netns", _U64, _decode_u64),),
        plan.Table.EP_BY_IFINDEX: (_numbered("ep_by_ifindex", _U32, _decode_u32),),
        plan.Table.EP_BY_IP: _by_address("ep_by_ip"),
        plan.Table.IPCACHE_HOST: _by_address("ipcache_host"),
        plan.Table.IPCACHE_CIDR: _by_prefix("ipcache_cidr"),
        plan.Table.HELD: _by_prefix("held"),
        plan.Table.FRONTEND: (
            Codec("frontend4", 8, 8, encode_frontend, decode_frontend, *_SLOT_VALUE),
            Codec("frontend6", 20, 8, encode_frontend, decode_frontend, *_SLOT_VALUE),
        ),
    }
)
"""The maps of each table; where there are two, IPv4 comes first."""


def codec_of(table: plan.Table, key: Any) -> Codec:
    """Return the map that `key` belongs to."""
    codecs = CODECS[table]
    if len(codecs) == 1:
        return codecs[0]
    address = key.address if isinstance(key, desired_.Frontend) else key
    return codecs[0] if address.version == net.Family.IPV4.value else codecs[1]


def usage(tables: plan.Tables) -> Mapping[str, base.Usage]:
    """Return how full each map is that holds `tables`, by its pinned name."""
    found: dict[str, base.Usage] = {}
    for table, codecs in CODECS.items():
        content, capacity = tables.content(table), plan.CAPACITY[table]
        six = sum(codec_of(table, key) is codecs[-1] for key in content) if len(codecs) > 1 else 0
        found[codecs[0].name] = base.Usage(len(content) - six, capacity)
        if len(codecs) > 1:
            found[codecs[-1].name] = base.Usage(six, capacity)
    return found


def untold(raw: bytes) -> int:
    """Read from a struct rate_value how many events were kept back and not told of yet."""
    words: tuple[int, int, int] = _RATE_VALUE.unpack(raw)
    _, kept_back, told = words
    return (kept_back - told) % 2**32


class RawEvent(NamedTuple):
    """struct event, as cheap to make as Python allows: what costs is decoded when asked for."""

    time_ns: int
    """CLOCK_MONOTONIC."""
    netns_cookie: int
    """Socket layer; else 0."""
    endpoint: int
    generation: int
    policy_set: int
    rule: int
    source_identity: int
    """Socket layer: 0, the endpoint is the source."""
    destination_identity: int
    pid: int
    repeats: int
    """Events of this kind that were kept back since the last one."""
    wire_source: bytes
    wire_destination: bytes
    wire_source_port: bytes
    wire_destination_port: bytes
    protocol: int
    family: int
    layer: int
    direction: int
    verdict: int
    reason: int
    wire_command: bytes

    @property
    def source(self) -> net.Address:
        """The client; `::` where its socket is not bound yet."""
        return decode_address(self.wire_source)

    @property
    def destination(self) -> net.Address:
        """The server."""
        return decode_address(self.wire_destination)

    @property
    def source_port(self) -> int:
        """Host byte order; 0 where there is none or it is unknown."""
        return int.from_bytes(self.wire_source_port, "big")

    @property
    def destination_port(self) -> int:
        """Host byte order; 0 where there is none."""
        return int.from_bytes(self.wire_destination_port, "big")

    @property
    def towards(self) -> tuple[int, int, bytes, bytes]:
        """Who asks for what: endpoint, protocol, and the server's address and port as on the wire (IPv4 mapped)."""
        return self.endpoint, self.protocol, self.wire_destination, self.wire_destination_port

    @property
    def came_from(self) -> tuple[bytes, bytes]:
        """The client's address and port."""
        return self.wire_source, self.wire_source_port

    @property
    def command(self) -> str:
        """Name of the calling thread, hostile: escape before printing; bytes that are no UTF-8 are shown in hex."""
        return self.wire_command.split(b"\0", 1)[0].decode(errors="backslashreplace")


EVENT = struct.Struct("=QQ8I16s16s2s2s6B6x16s")
"""struct event, in the order of RawEvent."""


def decode_address(raw: bytes) -> net.Address:
    """Return the address of 16 bytes in which IPv4 is mapped (rule A24)."""
    if raw.startswith(MAPPED_PREFIX):
        return ipaddress.IPv4Address(raw[12:])
    return ipaddress.IPv6Address(raw)


def encode_address(address: net.Address) -> bytes:
    """Return 16 bytes, IPv4 mapped."""
    return address.packed if len(address.packed) == len(MAPPED_PREFIX) + 4 else MAPPED_PREFIX + address.packed
