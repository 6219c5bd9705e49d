"""A logged packet, parsed as far as policy needs it, step by step as `bpf/include/packet.h` does.

The bytes are hostile and cut off after what the log rule copies. Nothing here raises: what cannot be read is zero, and
headers that cannot be followed make the packet malformed. IPv6 extension headers that go on where nothing was copied
are no fault of the packet; `cut` tells, and then nobody knows what it was. Addresses stay bytes: most packets are of a
flow that is known already.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from agent.model import net

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD
NO_ADDRESS4 = bytes(4)
TCP_SYN = 0x02
TCP_ACK = 0x10
ECHO_REQUEST = {net.Protocol.ICMP.value: 8, net.Protocol.ICMPV6.value: 128}
_PORTED = frozenset({net.Protocol.TCP.value, net.Protocol.UDP.value, net.Protocol.SCTP.value})
_ICMP = frozenset(ECHO_REQUEST)
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset({0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140})
_EXTENSIONS_MOST = 8
"""RFC 8504 lets a host refuse long chains; the BPF programs follow as many."""
_IPV4 = struct.Struct(">BxH2xHxB2x4s4s")
_IPV4_LEAST_WORDS = 5
_IPV6 = struct.Struct(">B3xHBx16s16s")
_EXTENSION = struct.Struct(">BBH")
_PORTS = struct.Struct(">HH")
_ARP_SENDER = slice(14, 18)
"""Hardware type to operation: 8 bytes, sender's hardware address: 6 (RFC 826)."""


class Packet(NamedTuple):
    """What policy knows of a packet; the client is the source until somebody turns it."""

    version: int
    """Of IP; 4 for ARP."""
    source: bytes
    """4 or 16 bytes."""
    destination: bytes
    protocol: int
    """IANA number; not to be trusted if `malformed`."""
    source_port: int = 0
    """0 where the protocol has none, or a fragment does not show it."""
    destination_port: int = 0
    malformed: bool = False
    cut: bool = False
    """What is missing, or could not be followed, may be in the part that was not copied."""
    transport: int = 0
    """Where the transport header begins; 0: this fragment has none."""


NOTHING = Packet(4, NO_ADDRESS4, NO_ADDRESS4, 0, malformed=True)
"""What is neither IP nor ARP, or too short for it."""


def parse(ethertype: int, payload: bytes) -> Packet:
    """Parse what begins at the network header."""
    match ethertype:
        case 0x0800:
            return parse4(payload)
        case 0x86DD:
            return parse6(payload)
        case 0x0806:
            return parse_arp(payload)
        case _:
            return NOTHING


def parse4(payload: bytes) -> Packet:
    """Parse an IPv4 packet (RFC 791)."""
    if len(payload) < _IPV4.size:
        return NOTHING
    first, _, fragment, protocol, source, destination = _IPV4.unpack_from(payload)
    words = first & 0xF
    if first >> 4 != net.Family.IPV4.value or words < _IPV4_LEAST_WORDS:
        return NOTHING
    if fragment & 0x1FFF:
        return Packet(4, source, destination, protocol)
    transport = words * 4
    if protocol in _PORTED and len(payload) >= transport + _PORTS.size:
        source_port, destination_port = _PORTS.unpack_from(payload, transport)
        return Packet(4, source, destination, protocol, source_port, destination_port, False, False, transport)  # noqa: FBT003 - many a second
    return Packet(4, source, destination, protocol, transport=transport)


def parse6(payload: bytes) -> Packet:
    """Parse an IPv6 packet (RFC 8200)."""
    if len(payload) < _IPV6.size:
        return NOTHING._replace(version=6, source=bytes(16), destination=bytes(16))
    first, length, following, source, destination = _IPV6.unpack_from(payload)
    if first >> 4 != net.Family.IPV6.value:
        return NOTHING._replace(version=6, source=bytes(16), destination=bytes(16))
    protocol, transport, followed = _walk(payload, following)
    if followed and transport and protocol in _PORTED and len(payload) >= transport + _PORTS.size:
        source_port, destination_port = _PORTS.unpack_from(payload, transport)
        return Packet(6, source, destination, protocol, source_port, destination_port, False, False, transport)  # noqa: FBT003 - many a second
    cut = _IPV6.size + length > len(payload) and (not followed or (protocol in _PORTED and transport > 0))
    return Packet(6, source, destination, protocol, malformed=not followed, cut=cut, transport=transport)


def parse_arp(payload: bytes) -> Packet:
    """Return the address an ARP packet says it comes from; there is no other end."""
    sender = payload[_ARP_SENDER]
    return Packet(4, sender, NO_ADDRESS4, 0) if len(sender) == len(NO_ADDRESS4) else NOTHING


def opens(packet: Packet, payload: bytes) -> bool:
    """Tell whether the packet alone shows that it goes the original way: a first segment, or an echo request."""
    if not packet.transport:
        return False
    if packet.protocol == net.Protocol.TCP.value:
        flags = _byte(payload, packet.transport + 13)
        return flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    return packet.protocol in _ICMP and _byte(payload, packet.transport) == ECHO_REQUEST[packet.protocol]


def is_icmp(packet: Packet) -> bool:
    """Tell whether it is ICMP or ICMPv6, errors among them."""
    return packet.protocol in _ICMP


def _walk(payload: bytes, protocol: int) -> tuple[int, int, bool]:
    """Follow extension headers; return the protocol, where its header is (0: not here), and whether it was found."""
    offset = _IPV6.size
    for _ in range(_EXTENSIONS_MOST):
        if protocol not in _EXTENSIONS:
            return protocol, offset, True
        if len(payload) < offset + _EXTENSION.size:
            return protocol, 0, False
        following, length, fragment = _EXTENSION.unpack_from(payload, offset)
        if protocol == _FRAGMENT:
            offset += 8
            if fragment & 0xFFF8:
                return following, 0, following not in _EXTENSIONS
        else:
            offset += (length + 2) * 4 if protocol == _AUTHENTICATION else (length + 1) * 8
        protocol = following
    return protocol, 0, False


def _byte(payload: bytes, offset: int) -> int:
    return payload[offset] if offset < len(payload) else 0
