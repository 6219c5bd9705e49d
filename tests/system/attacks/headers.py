"""IPv4 options and IPv6 extension headers: whatever moves the transport header, or hides which one it is."""

from __future__ import annotations

import functools

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, wire

RECORD_ROUTE = bytes((7, 11, 4, *bytes(8)))
TIMESTAMP = bytes((68, 12, 5, 0, *bytes(8)))
ROUTER_ALERT = bytes((148, 4, 0, 0))
NO_OPERATION = bytes((1, 1, 1, 1))
FULL = bytes((1,)) * 39
"""As many options as a header can hold; the last byte ends the list."""
SECURITY = bytes((130, 11, *bytes(9)))

LINK_ONLY = 255
TYPE2_OF_ANOTHER = 200
"""A routing header type nobody defines; with no segments left a node ignores it (RFC 8200 4.4)."""


def _udp(aim: aim_.Aim) -> bytes:
    return wire.udp(aim.source, aim.victim, (aim.source_port, aim.port), aim.payload)


def options4(aim: aim_.Aim, options: bytes) -> None:
    """Send a UDP datagram under IPv4 options."""
    packet = wire.ip4((aim.source, aim.victim), wire.UDP, _udp(aim), options=options)
    link.transmit(packet, toward=aim.victim)


def chain6(aim: aim_.Aim, kinds: tuple[int, ...]) -> None:
    """Send a UDP datagram under a chain of padded extension headers."""
    content, following = _udp(aim), wire.UDP
    for kind in reversed(kinds):
        body = bytes((TYPE2_OF_ANOTHER, 0, 0, 0, 0, 0)) if kind == wire.ROUTING else wire.padding_option()
        content, following = wire.extension(following, body) + content, kind
    link.transmit(wire.ip6((aim.source, aim.victim), following, content), toward=aim.victim)


def big_option(aim: aim_.Aim) -> None:
    """Send one options header of 264 bytes."""
    body = bytes((1, 255, *bytes(255), 1, 3, 0, 0, 0))
    content = wire.extension(wire.UDP, body) + _udp(aim)
    link.transmit(wire.ip6((aim.source, aim.victim), wire.DESTINATION_OPTIONS, content), toward=aim.victim)


def authenticated(aim: aim_.Aim) -> None:
    """Put an authentication header before UDP: its length counts in other units (RFC 4302)."""
    head = bytes((wire.UDP, 4, 0, 0, *bytes(4), *bytes(4), *bytes(12)))
    packet = wire.ip((aim.source, aim.victim), wire.AUTHENTICATION, head + _udp(aim))
    link.transmit(packet, toward=aim.victim)


def nothing_follows(aim: aim_.Aim) -> None:
    """Say that no header follows, and send a payload all the same."""
    link.transmit(wire.ip6((aim.source, aim.victim), wire.NO_NEXT_HEADER, aim.payload), toward=aim.victim)


def discovery(aim: aim_.Aim, kind: int, ttl: int = wire.DEFAULT_TTL) -> None:
    """Send a payload as neighbour or listener discovery, which is always let through on a link (rule A41)."""
    body = bytes(4) + wire.packed(aim.victim) + aim.payload
    message = wire.icmp(aim.source, aim.victim, (kind, 0), body)
    link.transmit(wire.ip6((aim.source, aim.victim), wire.ICMPV6, message, ttl=ttl), toward=aim.victim)


def _options(name: str, options: bytes) -> aim_.Attack:
    run = functools.partial(options4, options=options)
    return aim_.Attack(name=f"IPv4 options, {name}", run=run, families=aim_.ONLY4)


def _chain(name: str, *kinds: int) -> aim_.Attack:
    run = functools.partial(chain6, kinds=kinds)
    return aim_.Attack(name=f"IPv6 extensions, {name}", run=run, families=aim_.ONLY6)


def _discovery(name: str, kind: int) -> aim_.Attack:
    run = functools.partial(discovery, kind=kind)
    return aim_.Attack(name=f"payload as {name}", run=run, families=aim_.ONLY6)


def _fresh(name: str, kind: int, *, neighbours: bool) -> aim_.Attack:
    """Return discovery with the hop limit of a packet nobody routed: a node that routes it counts it down."""
    run = functools.partial(discovery, kind=kind, ttl=LINK_ONLY)
    where = "on the link" if neighbours else "routed"
    return aim_.Attack(name=f"{name}, {where}", run=run, families=aim_.ONLY6, neighbours=neighbours)


ATTACKS = (
    _options("record route", RECORD_ROUTE),
    _options("timestamp", TIMESTAMP),
    _options("router alert", ROUTER_ALERT),
    _options("padding", NO_OPERATION),
    _options("forty bytes", FULL),
    _options("security", SECURITY),
    _chain("hop by hop", wire.HOP_BY_HOP),
    _chain("destination options", wire.DESTINATION_OPTIONS),
    _chain("routing", wire.ROUTING),
    _chain("three kinds", wire.HOP_BY_HOP, wire.DESTINATION_OPTIONS, wire.ROUTING),
    _chain("seven", *([wire.DESTINATION_OPTIONS] * 7)),
    _chain("eight", *([wire.DESTINATION_OPTIONS] * 8)),
    _chain("twelve", *([wire.DESTINATION_OPTIONS] * 12)),
    _chain("sixty", *([wire.DESTINATION_OPTIONS] * 60)),
    aim_.Attack(name="IPv6 extensions, one of 264 bytes", run=big_option, families=aim_.ONLY6),
    aim_.Attack(name="IPv6 extensions, nothing follows", run=nothing_follows, families=aim_.ONLY6),
    aim_.Attack(name="authentication header before UDP", run=authenticated),
    _discovery("router solicitation", 133),
    _discovery("router advertisement", 134),
    _discovery("neighbour solicitation", 135),
    _discovery("neighbour advertisement", 136),
    _discovery("redirect", 137),
    _fresh("router advertisement, hop limit 255", 134, neighbours=False),
    _fresh("neighbour solicitation, hop limit 255", 135, neighbours=False),
    _fresh("redirect, hop limit 255", 137, neighbours=False),
    _fresh("router advertisement, hop limit 255", 134, neighbours=True),
    _fresh("redirect, hop limit 255", 137, neighbours=True),
    _discovery("listener query", 130),
    _discovery("listener report", 143),
)
