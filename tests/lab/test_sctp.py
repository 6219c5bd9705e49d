"""SCTP packets, byte by byte."""

from __future__ import annotations

import pytest

from agent.lab import sctp

INIT = sctp.Packet(source_port=40000, destination_port=80, tag=0, chunk=sctp.INIT, initiate_tag=7)


def test_the_checksum_is_crc32c_as_rfc_3720_shows() -> None:
    """RFC 3720 B.4: 32 bytes of zeroes, of ones, and rising."""
    assert sctp.checksum(bytes(32)) == bytes.fromhex("aa36918a")
    assert sctp.checksum(b"\xff" * 32) == bytes.fromhex("43aba862")
    assert sctp.checksum(bytes(range(32))) == bytes.fromhex("4e79dd46")


def test_what_is_encoded_is_decoded() -> None:
    assert sctp.decode(sctp.encode(INIT)) == INIT


@pytest.mark.parametrize("name", ["x/a", "x/ab", "namespace/pod", ""])
def test_an_init_is_answered_with_the_servers_name(name: str) -> None:
    reply = sctp.answer(INIT, name=name, listening=True, initiate_tag=9)
    assert reply is not None
    assert len(reply) % 4 == 0
    packet = sctp.decode(reply)
    assert packet is not None
    assert (packet.chunk, packet.tag, packet.source_port, packet.destination_port) == (sctp.INIT_ACK, 7, 80, 40000)
    assert packet.cookie == name.encode()


def test_a_port_nobody_listens_on_aborts() -> None:
    reply = sctp.answer(INIT, name="x/a", listening=False, initiate_tag=9)
    assert reply is not None
    packet = sctp.decode(reply)
    assert packet is not None
    assert (packet.chunk, packet.tag) == (sctp.ABORT, 7)


def test_only_init_is_answered() -> None:
    other = sctp.Packet(source_port=1, destination_port=2, tag=3, chunk=sctp.ABORT)
    assert sctp.answer(other, name="x/a", listening=True, initiate_tag=9) is None


@pytest.mark.parametrize("position", [0, 4, 8, 12, 20])
def test_a_flipped_bit_is_refused(position: int) -> None:
    packet = bytearray(sctp.encode(INIT))
    packet[position] ^= 1
    assert sctp.decode(bytes(packet)) is None


@pytest.mark.parametrize("length", range(16))
def test_a_short_packet_is_refused(length: int) -> None:
    assert sctp.decode(sctp.encode(INIT)[:length]) is None


def test_ipv4_raw_sockets_deliver_a_header_and_ipv6_ones_do_not() -> None:
    assert sctp.payload_of(b"\x46" + bytes(23) + b"payload", with_header=True) == b"payload"
    assert sctp.payload_of(b"payload", with_header=False) == b"payload"
