"""Packets written by hand, as an attacker would."""

from __future__ import annotations

import ipaddress
import struct

from agent.model import net

ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
UDP, ICMP, ICMPV6, DESTINATION_OPTIONS, FRAGMENT = 17, 1, 58, 60, 44
UNREACHABLE, PORT_UNREACHABLE = 3, 3
IPV6_BYTES = 40
"""The header without extensions."""


def udp(source: net.Address, destination: net.Address, port: int, *, payload: bytes = b"x", sport: int = 999) -> bytes:
    """Return a UDP datagram without a checksum (IPv4), or with one (IPv6)."""
    header = struct.pack(">HHHH", sport, port, 8 + len(payload), 0)
    if isinstance(source, ipaddress.IPv6Address):
        pseudo = source.packed + destination.packed + struct.pack(">II", 8 + len(payload), UDP)
        header = header[:6] + struct.pack(">H", checksum(pseudo + header + payload) or 0xFFFF)
        return ipv6(source, destination, UDP, header + payload)
    return ipv4(source, destination, UDP, header + payload)


def ipv4(
    source: net.Address, destination: net.Address, protocol: int, content: bytes, *, options: bytes = b""
) -> bytes:
    """Return an IPv4 packet."""
    words = 5 + len(options) // 4
    begin = struct.pack(">BBHHHBBH", 0x40 | words, 0, words * 4 + len(content), 7, 0, 64, protocol, 0)
    header = begin + source.packed + destination.packed + options
    return header[:10] + struct.pack(">H", checksum(header)) + header[12:] + content


def ipv6(source: net.Address, destination: net.Address, protocol: int, content: bytes) -> bytes:
    """Return an IPv6 packet."""
    return struct.pack(">IHBB", 6 << 28, len(content), protocol, 255) + source.packed + destination.packed + content


def options6(count: int, protocol: int, content: bytes) -> bytes:
    """Return `count` destination options headers of padding before `content`; their chain begins with 60."""
    for index in range(count):
        following = protocol if index == 0 else DESTINATION_OPTIONS
        content = struct.pack(">BBBBI", following, 0, 1, 4, 0) + content
    return content


def unreachable(source: net.Address, destination: net.Address, about: bytes) -> bytes:
    """Return an ICMP error about the packet `about`."""
    content = struct.pack(">BBHI", UNREACHABLE, PORT_UNREACHABLE, 0, 0) + about[:28]
    content = content[:2] + struct.pack(">H", checksum(content)) + content[4:]
    return ipv4(source, destination, ICMP, content)


def icmp6(source: net.Address, destination: net.Address, kind: int, body: bytes) -> bytes:
    """Return an ICMPv6 message."""
    content = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = source.packed + destination.packed + struct.pack(">II", len(content), ICMPV6)
    content = content[:2] + struct.pack(">H", checksum(pseudo + content)) + content[4:]
    return ipv6(source, destination, ICMPV6, content)


def arp_reply(sender: net.Address, hardware: bytes, target: net.Address) -> bytes:
    """Return an ARP reply that claims `sender`."""
    return struct.pack(">HHBBH", 1, ETH_IPV4, 6, 4, 2) + hardware + sender.packed + bytes(6) + target.packed


def checksum(content: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    content += bytes(len(content) % 2)
    total: int = sum(struct.unpack(f">{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethertype(address: net.Address) -> int:
    """Return the Ethernet type of an address's family."""
    return ETH_IPV4 if address.version == net.Family.IPV4.value else ETH_IPV6
