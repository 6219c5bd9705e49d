"""ICMP errors that claim to be about the victim's connection to the admitted pod: conntrack calls them RELATED.

The sender writes its own address as the source, honestly: any router may complain. The quoted packet is the victim's,
with the attempt's mark behind its UDP header, so whatever arrives carries the mark.
"""

from __future__ import annotations

import functools

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, wire


def quoted(ends: tuple[str, str], ports: tuple[int, int], payload: bytes) -> bytes:
    """Return the packet an error complains of."""
    return wire.ip(ends, wire.UDP, wire.udp(*ends, ports, payload))


def error(aim: aim_.Aim, kinds: dict[int, tuple[int, int]], rest: int = 0) -> None:
    """Complain to the victim of its own datagram to the friend."""
    inner = quoted((aim.victim, aim.friend), (aim.port, aim.friend_port), aim.payload)
    _send(aim, kinds[aim.family], rest.to_bytes(4, "big") + inner)


def about_answer(aim: aim_.Aim) -> None:
    """Complain to the victim of what the friend sent: the inner packet runs towards the victim."""
    inner = quoted((aim.friend, aim.victim), (aim.friend_port, aim.port), aim.payload)
    _send(aim, (3, 3) if aim.family == 4 else (1, 4), bytes(4) + inner)


def about_itself(aim: aim_.Aim) -> None:
    """Complain of a datagram from the victim to the attacker, which there never was."""
    inner = quoted((aim.victim, aim.source), (aim.port, aim.source_port), aim.payload)
    _send(aim, (3, 3) if aim.family == 4 else (1, 4), bytes(4) + inner)


def about_echo(aim: aim_.Aim) -> None:
    """Complain of a ping of the victim's to the friend."""
    ends = (aim.victim, aim.friend)
    inner = wire.ip(ends, wire.echo_protocol(aim.victim), wire.echo(*ends, aim.payload))
    _send(aim, (3, 1) if aim.family == 4 else (1, 0), bytes(4) + inner)


def as_friend(aim: aim_.Aim) -> None:
    """Complain as the friend."""
    inner = quoted((aim.victim, aim.friend), (aim.port, aim.friend_port), aim.payload)
    _send(aim, (3, 3) if aim.family == 4 else (1, 4), bytes(4) + inner, source=aim.friend)


def _send(aim: aim_.Aim, kind: tuple[int, int], body: bytes, source: str | None = None) -> None:
    ends = (source or aim.source, aim.victim)
    message = wire.icmp(*ends, kind, body)
    link.transmit(wire.ip(ends, wire.echo_protocol(aim.victim), message), toward=aim.victim)


def _error(name: str, kinds: dict[int, tuple[int, int]], rest: int = 0) -> aim_.Attack:
    run = functools.partial(error, kinds=kinds, rest=rest)
    return aim_.Attack(name=f"ICMP error, {name}", run=run, families=frozenset(kinds))


ATTACKS = (
    _error("host unreachable", {4: (3, 1), 6: (1, 3)}),
    _error("port unreachable", {4: (3, 3), 6: (1, 4)}),
    _error("administratively prohibited", {4: (3, 13), 6: (1, 1)}),
    _error("packet too big", {4: (3, 4), 6: (2, 0)}, 1280),
    _error("time exceeded", {4: (11, 0), 6: (3, 0)}),
    _error("parameter problem", {4: (12, 0), 6: (4, 0)}),
    _error("source quench", {4: (4, 0)}),
    _error("redirect", {4: (5, 1)}),
    aim_.Attack(name="ICMP error, about the answer", run=about_answer),
    aim_.Attack(name="ICMP error, about no connection", run=about_itself),
    aim_.Attack(name="ICMP error, about a ping", run=about_echo),
    aim_.Attack(name="ICMP error, as the admitted pod", run=as_friend),
)
