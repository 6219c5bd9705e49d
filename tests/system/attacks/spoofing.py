"""Addresses that are not the sender's: towards the victim, towards those who answer it, and towards the sender.

Three uses of a forged source. As the admitted pod, to be let in. As the victim, so that somebody else's answer (an echo
reply, an RST, an ICMP error, each quoting the attacker) goes to it. And as the victim towards the attacker itself, so
that conntrack believes in a connection the victim opened, whose "replies" the attacker then sends honestly.
"""

from __future__ import annotations

import time

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, wire

EXTERNAL = {4: "198.51.100.77", 6: "2001:db8:77::77"}
UNROUTED = {4: "203.0.113.77", 6: "2001:db8:dead::77"}
CLOSED_PORT = 4
TRACK_S = 0.02
"""So that the first packet has left the node before the second."""


def _datagram(aim: aim_.Aim, source: str) -> None:
    content = wire.udp(source, aim.victim, (aim.source_port, aim.port), aim.payload)
    link.transmit(wire.ip((source, aim.victim), wire.UDP, content), toward=aim.victim)


def as_friend(aim: aim_.Aim) -> None:
    """Send a datagram that says it is the admitted pod's."""
    _datagram(aim, aim.friend)


def as_node(aim: aim_.Aim) -> None:
    """Send a datagram that says it is the node's, which is always admitted (rule A37)."""
    _datagram(aim, aim.node)


def as_stranger(aim: aim_.Aim) -> None:
    """Send a datagram that says it comes from outside the cluster."""
    _datagram(aim, EXTERNAL[aim.family])


def as_friend_syn(aim: aim_.Aim) -> None:
    """Send a SYN that says it is the admitted pod's."""
    segment = wire.tcp(aim.friend, aim.victim, (aim.source_port, aim.port), wire.SYN, aim.payload)
    link.transmit(wire.ip((aim.friend, aim.victim), wire.TCP, segment), toward=aim.victim)


def as_friend_answer(aim: aim_.Aim) -> None:
    """Speak into the connection that the victim has open to the friend."""
    content = wire.udp(aim.friend, aim.victim, (aim.friend_port, aim.port), aim.payload)
    link.transmit(wire.ip((aim.friend, aim.victim), wire.UDP, content), toward=aim.victim)


def echo_by(aim: aim_.Aim, whom: str) -> None:
    """Make somebody answer an echo request to the victim."""
    packet = wire.ip((aim.victim, whom), wire.echo_protocol(whom), wire.echo(aim.victim, whom, aim.payload))
    link.transmit(packet, toward=whom)


def reset_by(aim: aim_.Aim, whom: str) -> None:
    """Make somebody refuse a SYN, to the victim."""
    segment = wire.tcp(aim.victim, whom, (aim.source_port, aim.port), wire.SYN)
    link.transmit(wire.ip((aim.victim, whom), wire.TCP, segment), toward=whom)


def unreachable_by(aim: aim_.Aim, whom: str) -> None:
    """Make somebody send "port unreachable", quoting the datagram, to the victim."""
    content = wire.udp(aim.victim, whom, (aim.source_port, CLOSED_PORT), aim.payload)
    link.transmit(wire.ip((aim.victim, whom), wire.UDP, content), toward=whom)


def _error_by_node(aim: aim_.Aim, destination: str, ttl: int) -> None:
    content = wire.udp(aim.victim, destination, (aim.source_port, CLOSED_PORT), aim.payload)
    link.transmit(wire.ip((aim.victim, destination), wire.UDP, content, ttl=ttl), toward=aim.node)


def time_exceeded(aim: aim_.Aim) -> None:
    """Make the node send "time exceeded" to the victim."""
    _error_by_node(aim, aim.friend, ttl=1)


def no_route(aim: aim_.Aim) -> None:
    """Make the node send "no route" to the victim."""
    _error_by_node(aim, UNROUTED[aim.family], ttl=wire.DEFAULT_TTL)


def parameter_problem(aim: aim_.Aim) -> None:
    """Make the node complain to the victim of an option it must know (RFC 8200 4.2)."""
    option = bytes((0x80 | 0x1E, 4, 0, 0, 0, 0))
    content = wire.udp(aim.victim, aim.node, (aim.source_port, CLOSED_PORT), aim.payload)
    chain = wire.extension(wire.UDP, option) + content
    packet = wire.ip6((aim.victim, aim.node), wire.DESTINATION_OPTIONS, chain)
    link.transmit(packet, toward=aim.node)


def both_ends_udp(aim: aim_.Aim) -> None:
    """Play the victim towards oneself, then answer it."""
    question = wire.udp(aim.victim, aim.source, (aim.port, aim.source_port), b"?")
    link.transmit(wire.ip((aim.victim, aim.source), wire.UDP, question), toward=aim.node)
    time.sleep(TRACK_S)
    _datagram(aim, aim.source)


def both_ends_tcp(aim: aim_.Aim) -> None:
    """Play the victim's SYN, then answer with SYN+ACK."""
    syn = wire.tcp(aim.victim, aim.source, (aim.port, aim.source_port), wire.SYN)
    link.transmit(wire.ip((aim.victim, aim.source), wire.TCP, syn), toward=aim.node)
    time.sleep(TRACK_S)
    answer = wire.tcp(aim.source, aim.victim, (aim.source_port, aim.port), wire.SYN | wire.ACK, aim.payload)
    link.transmit(wire.ip((aim.source, aim.victim), wire.TCP, answer), toward=aim.victim)


def both_ends_echo(aim: aim_.Aim) -> None:
    """Play the victim's echo request, then send the reply."""
    number = wire.echo_protocol(aim.victim)
    asked = wire.echo(aim.victim, aim.source, b"?")
    link.transmit(wire.ip((aim.victim, aim.source), number, asked), toward=aim.node)
    time.sleep(TRACK_S)
    kind = (0, 0) if aim.family == 4 else (129, 0)
    reply = wire.icmp(aim.source, aim.victim, kind, b"\0\x07\0\x01" + aim.payload)
    link.transmit(wire.ip((aim.source, aim.victim), number, reply), toward=aim.victim)


ATTACKS = (
    aim_.Attack(name="spoofed: admitted pod, UDP", run=as_friend),
    aim_.Attack(name="spoofed: admitted pod, TCP SYN", run=as_friend_syn),
    aim_.Attack(name="spoofed: admitted pod, in the victim's own connection", run=as_friend_answer),
    aim_.Attack(name="spoofed: node, UDP", run=as_node),
    aim_.Attack(name="spoofed: outside, UDP", run=as_stranger),
    aim_.Attack(name="node answers: echo reply", run=lambda aim: echo_by(aim, aim.node)),
    aim_.Attack(name="node answers: RST", run=lambda aim: reset_by(aim, aim.node)),
    aim_.Attack(name="node answers: port unreachable", run=lambda aim: unreachable_by(aim, aim.node)),
    aim_.Attack(name="node answers: time exceeded", run=time_exceeded),
    aim_.Attack(name="node answers: no route", run=no_route),
    aim_.Attack(name="node answers: parameter problem", run=parameter_problem, families=aim_.ONLY6),
    aim_.Attack(name="admitted pod answers: echo reply", run=lambda aim: echo_by(aim, aim.friend)),
    aim_.Attack(name="admitted pod answers: RST", run=lambda aim: reset_by(aim, aim.friend)),
    aim_.Attack(name="admitted pod answers: port unreachable", run=lambda aim: unreachable_by(aim, aim.friend)),
    aim_.Attack(name="both ends forged, UDP", run=both_ends_udp),
    aim_.Attack(name="both ends forged, TCP", run=both_ends_tcp),
    aim_.Attack(name="both ends forged, ICMP", run=both_ends_echo),
)
