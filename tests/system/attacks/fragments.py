"""IP fragments: so small, or in such an order, that whoever looks at one of them sees no port (RFC 1858, RFC 7112)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, wire

UNIT = 8
"""Fragment offsets count in this."""

Piece = tuple[int, bytes, bool]
"""Offset in bytes, content, more to come."""


def _ident(aim: aim_.Aim) -> int:
    return aim.source_port


def _whole(aim: aim_.Aim) -> bytes:
    """Build a datagram whose mark starts at the first unit behind the UDP header."""
    return wire.udp(aim.source, aim.victim, (aim.source_port, aim.port), aim.payload + b"." * 64)


def _cut(content: bytes, *ends: int) -> list[Piece]:
    borders = (0, *ends, len(content))
    return [(first, content[first:last], last < len(content)) for first, last in itertools.pairwise(borders)]


def send(aim: aim_.Aim, protocol: int, pieces: Sequence[Piece], source: str | None = None) -> None:
    """Send the pieces in the order given, as fragments of one packet."""
    ends = (source or aim.source, aim.victim)
    for offset, content, more in pieces:
        if aim.family == 4:
            word = offset // UNIT | (wire.MORE_FRAGMENTS if more else 0)
            packet = wire.ip4(ends, protocol, content, ident=_ident(aim), fragment=word)
        else:
            head = wire.fragment6(protocol, offset, _ident(aim), more=more)
            packet = wire.ip6(ends, wire.FRAGMENT, head + content)
        link.transmit(packet, toward=aim.victim)


def in_order(aim: aim_.Aim) -> None:
    """Cut a datagram in two."""
    send(aim, wire.UDP, _cut(_whole(aim), 32))


def tiny_first(aim: aim_.Aim) -> None:
    """Leave no more than the ports in the first fragment."""
    send(aim, wire.UDP, _cut(_whole(aim), UNIT))


def out_of_order(aim: aim_.Aim) -> None:
    """Send the first fragment last."""
    send(aim, wire.UDP, _cut(_whole(aim), 32, 56)[::-1])


def many(aim: aim_.Aim) -> None:
    """Cut the datagram into as many fragments as it has units, but keep the mark in one piece."""
    whole = _whole(aim)
    send(aim, wire.UDP, _cut(whole, UNIT, *range(32, len(whole), UNIT)))


def overlapping(aim: aim_.Aim) -> None:
    """Send a second version of the first bytes, with an allowed-looking port, inside what was sent already."""
    pieces = _cut(_whole(aim), 32)
    other = wire.udp(aim.source, aim.victim, (aim.source_port, 53), b"")
    send(aim, wire.UDP, [pieces[0], (0, other[:UNIT], True), pieces[1]])


def repeated(aim: aim_.Aim) -> None:
    """Send a fragment twice."""
    pieces = _cut(_whole(aim), 32)
    send(aim, wire.UDP, [pieces[0], pieces[0], pieces[1]])


def split_tcp_header(aim: aim_.Aim) -> None:
    """Leave the TCP flags to the second fragment."""
    segment = wire.tcp(aim.source, aim.victim, (aim.source_port, aim.port), wire.SYN, b"...." + aim.payload)
    send(aim, wire.TCP, _cut(segment, UNIT))


def as_friend(aim: aim_.Aim) -> None:
    """Send fragments that say they are the admitted pod's."""
    content = wire.udp(aim.friend, aim.victim, (aim.source_port, aim.port), aim.payload + b"." * 64)
    send(aim, wire.UDP, _cut(content, 32), source=aim.friend)


def atomic(aim: aim_.Aim) -> None:
    """Send a packet that is its own only fragment (RFC 6946)."""
    send(aim, wire.UDP, [(0, _whole(aim), False)])


def behind_options(aim: aim_.Aim) -> None:
    """Put options before the fragment header, in every fragment."""
    for offset, content, more in _cut(_whole(aim), UNIT):
        head = wire.fragment6(wire.UDP, offset, _ident(aim), more=more)
        chain = wire.extension(wire.FRAGMENT, wire.padding_option()) + head + content
        packet = wire.ip6((aim.source, aim.victim), wire.DESTINATION_OPTIONS, chain)
        link.transmit(packet, toward=aim.victim)


def half(aim: aim_.Aim, *, first: bool, source: str) -> None:
    """Send one half of a datagram; both halves together are the friend's, whoever sends them.

    The checksum is none, as IPv4 permits. The first half has the ports, the second the mark.
    """
    length = UNIT + 64
    head = b"".join(value.to_bytes(2, "big") for value in (aim.source_port, aim.port, length, 0))
    if first:
        send(aim, wire.UDP, [(0, head + b"." * 24, True)], source=source)
    else:
        send(aim, wire.UDP, [(UNIT + 24, aim.payload.ljust(40, b"."), False)], source=source)


ATTACKS = (
    aim_.Attack(name="fragments, in order", run=in_order),
    aim_.Attack(name="fragments, first with ports only", run=tiny_first),
    aim_.Attack(name="fragments, out of order", run=out_of_order),
    aim_.Attack(name="fragments, of eight bytes", run=many),
    aim_.Attack(name="fragments, overlapping with another port", run=overlapping),
    aim_.Attack(name="fragments, one repeated", run=repeated),
    aim_.Attack(name="fragments, TCP flags in the second", run=split_tcp_header),
    aim_.Attack(name="fragments, of the admitted pod", run=as_friend),
    aim_.Attack(name="fragment header, one fragment", run=atomic, families=aim_.ONLY6),
    aim_.Attack(name="fragments, behind options", run=behind_options, families=aim_.ONLY6),
)
