"""Raw IP sockets: the caller writes the transport header, or the whole packet. No socket hook sees them."""

from __future__ import annotations

import socket

from tests.system.attacks import aim as aim_
from tests.system.attacks import wire


def _whole(aim: aim_.Aim, packet: bytes) -> None:
    """Send a packet with its own IP header: IPPROTO_RAW implies IP_HDRINCL, for IPv6 too."""
    with socket.socket(aim.domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(packet, (aim.victim, 0))


def _transport(aim: aim_.Aim, protocol: int, content: bytes) -> None:
    with socket.socket(aim.domain, socket.SOCK_RAW, protocol) as sock:
        sock.sendto(content, (aim.victim, 0))


def _udp(aim: aim_.Aim) -> bytes:
    return wire.udp(aim.source, aim.victim, (aim.source_port, aim.port), aim.payload)


def whole_udp(aim: aim_.Aim) -> None:
    """Send a UDP datagram with its own IP header."""
    _whole(aim, wire.ip((aim.source, aim.victim), wire.UDP, _udp(aim)))


def whole_syn(aim: aim_.Aim) -> None:
    """Send a SYN with its own IP header."""
    segment = wire.tcp(aim.source, aim.victim, (aim.source_port, aim.port), wire.SYN, aim.payload)
    _whole(aim, wire.ip((aim.source, aim.victim), wire.TCP, segment))


def whole_spoofed(aim: aim_.Aim) -> None:
    """Send a UDP datagram that says it is the friend's."""
    datagram = wire.udp(aim.friend, aim.victim, (aim.source_port, aim.port), aim.payload)
    _whole(aim, wire.ip((aim.friend, aim.victim), wire.UDP, datagram))


def transport_udp(aim: aim_.Aim) -> None:
    """Send a UDP datagram by a raw socket that writes the IP header itself."""
    _transport(aim, wire.UDP, _udp(aim))


def transport_echo(aim: aim_.Aim) -> None:
    """Send an echo request."""
    _transport(aim, wire.echo_protocol(aim.victim), wire.echo(aim.source, aim.victim, aim.payload))


def transport_sctp(aim: aim_.Aim) -> None:
    """Send the start of an SCTP INIT; a pod needs no SCTP in its kernel for that."""
    head = aim.source_port.to_bytes(2, "big") + aim.port.to_bytes(2, "big") + bytes(8)
    _transport(aim, wire.SCTP, head + b"\x01\0\0\x14" + aim.payload)


def transport_experiment(aim: aim_.Aim) -> None:
    """Send by a protocol number nobody uses (RFC 3692)."""
    _transport(aim, wire.EXPERIMENT, aim.payload)


ATTACKS = (
    aim_.Attack(name="raw IP with own header, UDP", run=whole_udp),
    aim_.Attack(name="raw IP with own header, TCP SYN", run=whole_syn),
    aim_.Attack(name="raw IP with own header, source of the admitted pod", run=whole_spoofed),
    aim_.Attack(name="raw IP, UDP", run=transport_udp),
    aim_.Attack(name="raw IP, ICMP echo", run=transport_echo),
    aim_.Attack(name="raw IP, SCTP INIT", run=transport_sctp),
    aim_.Attack(name="raw IP, protocol 253", run=transport_experiment),
)
