"""Packets are parsed as `bpf/include/packet.h` parses them, and no bytes make the parser fail."""

from __future__ import annotations

import ipaddress
import struct

import hypothesis
import pytest
from hypothesis import strategies

from agent.datapath.iptables import packet
from agent.model import net
from tests.bpf import packets

A4, B4 = map(ipaddress.ip_address, ("10.0.1.2", "10.0.1.3"))
A6, B6 = map(ipaddress.ip_address, ("fd00::2", "fd00::3"))
PORTS = struct.pack(">HH", 4000, 80)
SYN = PORTS + struct.pack(">IIBB", 0, 0, 0x50, packet.TCP_SYN) + bytes(6)
ESTABLISHED = PORTS + struct.pack(">IIBB", 0, 0, 0x50, packet.TCP_ACK) + bytes(6)


def parsed(payload: bytes) -> packet.Packet:
    return packet.parse(packet.ETHERTYPE_IPV4 if payload[0] >> 4 == 4 else packet.ETHERTYPE_IPV6, payload)


@pytest.mark.parametrize("protocol", [6, 17, 132])
def test_ports_are_read_of_the_protocols_that_policies_name_by_port(protocol: int) -> None:
    for payload in (
        packets.ipv4(A4, B4, protocol, PORTS),
        packets.ipv4(A4, B4, protocol, PORTS, options=bytes(8)),
        packets.ipv6(A6, B6, protocol, PORTS),
        packets.ipv6(A6, B6, 60, packets.options6(3, protocol, PORTS)),
    ):
        found = parsed(payload)
        assert (found.protocol, found.source_port, found.destination_port) == (protocol, 4000, 80)
        assert not found.malformed


def test_addresses_are_the_bytes_on_the_wire() -> None:
    four, six = parsed(packets.ipv4(A4, B4, 6, PORTS)), parsed(packets.ipv6(A6, B6, 6, PORTS))
    assert (four.version, four.source, four.destination) == (4, A4.packed, B4.packed)
    assert (six.version, six.source, six.destination) == (6, A6.packed, B6.packed)


@pytest.mark.parametrize("protocol", [1, 47, 136])
def test_other_protocols_have_no_ports(protocol: int) -> None:
    found = parsed(packets.ipv4(A4, B4, protocol, PORTS))
    assert (found.protocol, found.source_port, found.destination_port, found.malformed) == (protocol, 0, 0, False)


def test_what_follows_the_first_part_of_a_datagram_has_no_ports() -> None:
    four = bytearray(packets.ipv4(A4, B4, 17, PORTS))
    four[6:8] = struct.pack(">H", 185)
    six = packets.ipv6(A6, B6, packets.FRAGMENT, struct.pack(">BBHI", 17, 0, 185 << 3, 7) + PORTS)
    for found in (parsed(bytes(four)), parsed(six)):
        assert (found.protocol, found.destination_port, found.malformed, found.transport) == (17, 0, False, 0)


def test_the_first_part_has_them() -> None:
    six = packets.ipv6(A6, B6, packets.FRAGMENT, struct.pack(">BBHI", 17, 0, 1, 7) + PORTS)
    assert parsed(six).destination_port == 80


def test_an_extension_header_behind_the_first_part_cannot_be_followed() -> None:
    six = packets.ipv6(A6, B6, packets.FRAGMENT, struct.pack(">BBHI", 60, 0, 185 << 3, 7) + PORTS)
    assert parsed(six).malformed


def test_an_authentication_header_counts_in_words_less_two() -> None:
    """RFC 4302, 2.2."""
    header = struct.pack(">BBH", 6, 4, 0) + bytes(20)
    assert parsed(packets.ipv6(A6, B6, 51, header + PORTS)).destination_port == 80


@pytest.mark.parametrize(("count", "malformed"), [(7, False), (8, True)])
def test_a_chain_is_followed_as_far_as_the_programs_do(count: int, *, malformed: bool) -> None:
    """NW_EXTENSIONS_MAX."""
    found = parsed(packets.ipv6(A6, B6, 60, packets.options6(count, 6, PORTS)))
    assert (found.malformed, found.cut) == (malformed, False)


def test_headers_behind_the_cut_are_no_fault_of_the_packet() -> None:
    whole = packets.ipv6(A6, B6, 60, struct.pack(">BB", 6, 20) + bytes(166) + PORTS)
    assert parsed(whole).destination_port == 80
    found = parsed(whole[:128])
    assert (found.protocol, found.destination_port, found.malformed, found.cut) == (6, 0, False, True)
    twice = parsed(packets.ipv6(A6, B6, 60, struct.pack(">BB", 60, 20) + bytes(166) + PORTS)[:128])
    assert (twice.malformed, twice.cut) == (True, True)
    long = parsed(packets.ipv6(A6, B6, 6, PORTS + bytes(200))[:128])
    assert (long.destination_port, long.cut) == (80, False)


@pytest.mark.parametrize("payload", [b"", b"E", b"\x44" + bytes(19), b"\x65" + bytes(39), bytes(64)])
def test_what_is_no_ip_packet_is_malformed(payload: bytes) -> None:
    for ethertype in (packet.ETHERTYPE_IPV4, packet.ETHERTYPE_IPV6):
        assert packet.parse(ethertype, payload).malformed


def test_arp_tells_whose_address_it_claims() -> None:
    found = packet.parse(packet.ETHERTYPE_ARP, packets.arp_reply(A4, bytes(6), B4))
    assert (found.version, found.source, found.malformed) == (4, A4.packed, False)
    assert packet.parse(packet.ETHERTYPE_ARP, bytes(17)).malformed
    assert packet.parse(0x8100, bytes(64)).malformed


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (packets.ipv4(A4, B4, 6, SYN), True),
        (packets.ipv6(A6, B6, 6, SYN), True),
        (packets.ipv4(A4, B4, 6, ESTABLISHED), False),
        (packets.ipv4(A4, B4, 6, PORTS), False),
        (packets.udp(A4, B4, 53), False),
        (packets.ipv4(A4, B4, 1, b"\x08\0"), True),
        (packets.ipv4(A4, B4, 1, b"\0\0"), False),
        (packets.ipv4(A4, B4, 1, b""), False),
        (packets.icmp6(A6, B6, 128, bytes(4)), True),
        (packets.icmp6(A6, B6, 129, bytes(4)), False),
    ],
)
def test_some_packets_show_that_they_open_a_connection(payload: bytes, *, expected: bool) -> None:
    assert packet.opens(parsed(payload), payload) is expected


@hypothesis.given(ethertype=strategies.sampled_from([0x0800, 0x86DD, 0x0806, 0]), payload=strategies.binary())
@hypothesis.example(ethertype=0x86DD, payload=b"\x60" + bytes(39))
def test_no_bytes_are_too_much(ethertype: int, payload: bytes) -> None:
    found = packet.parse(ethertype, payload)
    assert len(found.source) == len(found.destination) == (4 if found.version == net.Family.IPV4.value else 16)
    assert 0 <= found.destination_port <= net.PORT_MAX
    packet.opens(found, payload)


@hypothesis.given(first=strategies.sampled_from(sorted(packet._EXTENSIONS)), content=strategies.binary(max_size=128))
def test_no_chain_of_extension_headers_is_too_much(first: int, content: bytes) -> None:
    found = packet.parse6(packets.ipv6(A6, B6, first, content))
    assert (found.source, found.destination) == (A6.packed, B6.packed)
