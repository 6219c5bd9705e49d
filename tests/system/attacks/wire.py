"""Packets from their fields, with right checksums unless a caller wants none (RFC 791, 768, 9293, 8200, 4443).

Only what the attacks need. Everything is network byte order; addresses are text.
"""

from __future__ import annotations

import ipaddress
import struct

ETH_IPV4 = 0x0800
ETH_IPV6 = 0x86DD
ETH_ARP = 0x0806
ETH_VLAN = 0x8100
ETH_SERVICE_VLAN = 0x88A8

HOP_BY_HOP = 0
ICMP = 1
IPIP = 4
TCP = 6
UDP = 17
IPV6 = 41
ROUTING = 43
FRAGMENT = 44
GRE = 47
AUTHENTICATION = 51
ICMPV6 = 58
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60
SCTP = 132
UDPLITE = 136
EXPERIMENT = 253

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

DEFAULT_TTL = 64
MORE_FRAGMENTS = 0x2000


def packed(address: str) -> bytes:
    """Return an address as it stands in a header."""
    return ipaddress.ip_address(address).packed


def version(address: str) -> int:
    """Return the IP version of an address."""
    return ipaddress.ip_address(address).version


def checksum(content: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = content + b"\0" * (len(content) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return the pseudo header a transport checksum covers."""
    ends = packed(source) + packed(destination)
    if version(source) == 4:
        return ends + struct.pack("!BBH", 0, protocol, length)
    return ends + struct.pack("!IHBB", length, 0, 0, protocol)


def udp(source: str, destination: str, ports: tuple[int, int], payload: bytes) -> bytes:
    """Return a UDP datagram without an IP header; `ports` are source and destination."""
    length = 8 + len(payload)
    head = struct.pack("!HHH", *ports, length)
    value = checksum(pseudo(source, destination, UDP, length) + head + b"\0\0" + payload) or 0xFFFF
    return head + struct.pack("!H", value) + payload


def tcp(source: str, destination: str, ports: tuple[int, int], flags: int, payload: bytes = b"") -> bytes:
    """Return a TCP segment without an IP header."""
    head = struct.pack("!HHIIBBH", *ports, 1000, 2000 if flags & ACK else 0, 5 << 4, flags, 65535)
    value = checksum(pseudo(source, destination, TCP, 20 + len(payload)) + head + b"\0\0\0\0" + payload)
    return head + struct.pack("!HH", value, 0) + payload


def icmp(source: str, destination: str, kind: tuple[int, int], body: bytes) -> bytes:
    """Return an ICMP or ICMPv6 message: type and code, then everything behind the checksum."""
    head = struct.pack("!BB", *kind)
    covered = b"" if version(source) == 4 else pseudo(source, destination, ICMPV6, 4 + len(body))
    return head + struct.pack("!H", checksum(covered + head + b"\0\0" + body)) + body


def echo(source: str, destination: str, payload: bytes) -> bytes:
    """Return an echo request of the family of `source`."""
    return icmp(source, destination, (8 if version(source) == 4 else 128, 0), struct.pack("!HH", 7, 1) + payload)


def echo_protocol(address: str) -> int:
    """Return the protocol number of ICMP in the family of `address`."""
    return ICMP if version(address) == 4 else ICMPV6


def ip4(
    ends: tuple[str, str],
    protocol: int,
    payload: bytes,
    *,
    ttl: int = DEFAULT_TTL,
    ident: int = 0,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return an IPv4 packet; `fragment` is the whole word: flags and offset in eighths."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBB", 4 << 4 | words, 0, words * 4 + len(payload), ident, fragment, ttl, protocol)
    tail = packed(ends[0]) + packed(ends[1]) + options
    return head + struct.pack("!H", checksum(head + b"\0\0" + tail)) + tail + payload


def ip6(ends: tuple[str, str], protocol: int, payload: bytes, *, ttl: int = DEFAULT_TTL) -> bytes:
    """Return an IPv6 packet; extension headers are part of `payload`."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, ttl)
    return head + packed(ends[0]) + packed(ends[1]) + payload


def ip(ends: tuple[str, str], protocol: int, payload: bytes, *, ttl: int = DEFAULT_TTL) -> bytes:
    """Return a plain packet of the family of the source."""
    if version(ends[0]) == 4:
        return ip4(ends, protocol, payload, ttl=ttl)
    return ip6(ends, protocol, payload, ttl=ttl)


def extension(following: int, body: bytes) -> bytes:
    """Return a hop-by-hop, destination options or routing header: `body` is padded to eighths."""
    body += b"\0" * (-(len(body) + 2) % 8)
    return struct.pack("!BB", following, (len(body) + 2) // 8 - 1) + body


def padding_option() -> bytes:
    """Return a PadN option that fills the smallest options header."""
    return bytes((1, 4, 0, 0, 0, 0))


def fragment6(following: int, offset: int, ident: int, *, more: bool) -> bytes:
    """Return a fragment header; `offset` in bytes, a multiple of eight."""
    return struct.pack("!BBHI", following, 0, offset | more, ident)


def arp(kind: int, sender: tuple[bytes, str], target: tuple[bytes, str]) -> bytes:
    """Return an ARP message: kind 1 asks, 2 answers; ends are MAC and IPv4 address."""
    head = struct.pack("!HHBBH", 1, ETH_IPV4, 6, 4, kind)
    return head + sender[0] + packed(sender[1]) + target[0] + packed(target[1])


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """Return an Ethernet frame without its check sequence."""
    return destination + source + struct.pack("!H", kind) + payload
