"""AF_PACKET frames with the pod's own source address: below the socket layer, so the packet layer must judge them."""

from __future__ import annotations

import functools

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, wire


def _send(aim: aim_.Aim, protocol: int, content: bytes, tags: tuple[int, ...] = ()) -> None:
    link.transmit(wire.ip((aim.source, aim.victim), protocol, content), toward=aim.victim, tags=tags)


def _ports(aim: aim_.Aim) -> tuple[int, int]:
    return aim.source_port, aim.port


def udp(aim: aim_.Aim, tags: tuple[int, ...] = ()) -> None:
    """Send a UDP datagram, under VLAN headers with number 0 if asked."""
    _send(aim, wire.UDP, wire.udp(aim.source, aim.victim, _ports(aim), aim.payload), tags)


def tcp(aim: aim_.Aim, flags: int) -> None:
    """Send a segment of no connection, with a payload."""
    _send(aim, wire.TCP, wire.tcp(aim.source, aim.victim, _ports(aim), flags, aim.payload))


def echo(aim: aim_.Aim) -> None:
    """Send an echo request."""
    _send(aim, wire.echo_protocol(aim.victim), wire.echo(aim.source, aim.victim, aim.payload))


def echo_reply(aim: aim_.Aim) -> None:
    """Send an echo reply nobody asked for."""
    kind = (0, 0) if aim.family == 4 else (129, 0)
    message = wire.icmp(aim.source, aim.victim, kind, b"\0\x07\0\x01" + aim.payload)
    _send(aim, wire.echo_protocol(aim.victim), message)


def protocol(aim: aim_.Aim, number: int) -> None:
    """Send a payload under a bare protocol number."""
    _send(aim, number, b"\0" * 8 + aim.payload)


def tunnelled(aim: aim_.Aim) -> None:
    """Wrap a datagram of the friend's in one of the pod's own (RFC 2003, RFC 2473)."""
    inner = wire.udp(aim.friend, aim.victim, _ports(aim), aim.payload)
    number = wire.IPIP if aim.family == 4 else wire.IPV6
    _send(aim, number, wire.ip((aim.friend, aim.victim), wire.UDP, inner))


def zero_checksum(aim: aim_.Aim) -> None:
    """Send a UDP datagram with a wrong checksum, which conntrack calls invalid and tracks not at all."""
    datagram = bytearray(wire.udp(aim.source, aim.victim, _ports(aim), aim.payload))
    datagram[6:8] = b"\x12\x34"
    _send(aim, wire.UDP, bytes(datagram))


def short_transport(aim: aim_.Aim) -> None:
    """Send a TCP packet too short for a TCP header; the ports are there."""
    _send(aim, wire.TCP, aim.source_port.to_bytes(2, "big") + aim.port.to_bytes(2, "big") + b"\0" * 4)


def other_length(aim: aim_.Aim) -> None:
    """Send a frame with bytes behind the packet's end."""
    packet = wire.ip((aim.source, aim.victim), wire.UDP, wire.udp(aim.source, aim.victim, _ports(aim), aim.payload))
    link.transmit(packet + b"\xff" * 32, toward=aim.victim)


def segmented(aim: aim_.Aim) -> None:
    """Send one TCP segment larger than the link takes, for the kernel to cut: it crosses the node in one piece."""
    content = wire.tcp(aim.source, aim.victim, _ports(aim), wire.ACK, aim.payload + b"." * 3000)
    packet = wire.ip((aim.source, aim.victim), wire.TCP, content)
    begin = link.ETHERNET_SIZE + len(packet) - len(content)
    link.transmit_offloaded(packet, toward=aim.victim, transport=begin, checksum=16, size=1000)


def _tcp(flags: int) -> functools.partial[None]:
    return functools.partial(tcp, flags=flags)


ATTACKS = (
    aim_.Attack(name="frame, UDP", run=udp),
    aim_.Attack(name="frame, TCP SYN with payload", run=_tcp(wire.SYN)),
    aim_.Attack(name="frame, TCP SYN+ACK of no connection", run=_tcp(wire.SYN | wire.ACK)),
    aim_.Attack(name="frame, TCP ACK of no connection", run=_tcp(wire.ACK | wire.PSH)),
    aim_.Attack(name="frame, TCP RST", run=_tcp(wire.RST)),
    aim_.Attack(name="frame, TCP without flags", run=_tcp(0)),
    aim_.Attack(name="frame, TCP with every flag", run=_tcp(0x3F)),
    aim_.Attack(name="frame, TCP header cut short", run=short_transport),
    aim_.Attack(name="frame, UDP with a wrong checksum", run=zero_checksum),
    aim_.Attack(name="frame, UDP with a longer frame", run=other_length),
    aim_.Attack(name="frame, TCP larger than the link takes", run=segmented),
    aim_.Attack(name="frame, ICMP echo", run=echo),
    aim_.Attack(name="frame, ICMP echo reply unasked", run=echo_reply),
    aim_.Attack(name="frame, GRE", run=functools.partial(protocol, number=wire.GRE)),
    aim_.Attack(name="frame, protocol 253", run=functools.partial(protocol, number=wire.EXPERIMENT)),
    aim_.Attack(name="frame, IP in IP around the admitted pod's", run=tunnelled),
    aim_.Attack(name="frame, UDP under VLAN 0", run=functools.partial(udp, tags=(wire.ETH_VLAN,))),
    aim_.Attack(name="frame, UDP under 802.1ad VLAN 0", run=functools.partial(udp, tags=(wire.ETH_SERVICE_VLAN,))),
    aim_.Attack(
        name="frame, UDP under two VLANs 0",
        run=functools.partial(udp, tags=(wire.ETH_SERVICE_VLAN, wire.ETH_VLAN)),
    ),
)
