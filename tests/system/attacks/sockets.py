"""Ordinary sockets, in every way that ends in a packet: what the socket layer must see, each by its own door.

A refusal surfaces as OSError; silence as TimeoutError, which is one. TCP sockets are bound to the attempt's own source
port, so that a SYN without payload is known by its ports.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
from collections.abc import Iterator

from tests.system.attacks import aim as aim_
from tests.system.attacks import wire

PATIENCE_S = 0.25
IPPROTO_MPTCP = 262
TCP_FASTOPEN_CONNECT = 30
TCP_FASTOPEN_NO_COOKIE = 34
DISCARD_PORT = 9


@contextlib.contextmanager
def opened(aim: aim_.Aim, kind: socket.SocketKind, protocol: int = 0) -> Iterator[socket.socket]:
    """Give a socket of the attempt's family, bound to its source port."""
    with socket.socket(aim.domain, kind, protocol) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(PATIENCE_S)
        sock.bind((aim.source, aim.source_port))
        yield sock


@contextlib.contextmanager
def unbound(aim: aim_.Aim, protocol: int = 0) -> Iterator[socket.socket]:
    """Give a datagram socket as clients have them: the kernel picks the port at the first send."""
    with socket.socket(aim.domain, socket.SOCK_DGRAM, protocol) as sock:
        sock.settimeout(PATIENCE_S)
        yield sock


def tcp_connect(aim: aim_.Aim) -> None:
    """Connect and speak."""
    with opened(aim, socket.SOCK_STREAM) as sock:
        sock.connect((aim.victim, aim.port))
        sock.sendall(aim.payload)


def udp_connect(aim: aim_.Aim) -> None:
    """Send on a connected UDP socket."""
    with unbound(aim) as sock:
        sock.connect((aim.victim, aim.port))
        sock.send(aim.payload)


def udp_sendto(aim: aim_.Aim) -> None:
    """Send on an unconnected UDP socket."""
    with unbound(aim) as sock:
        sock.sendto(aim.payload, (aim.victim, aim.port))


def bound_udp_connect(aim: aim_.Aim) -> None:
    """Send on a connected UDP socket with a port of its own, as a server would to answer."""
    with opened(aim, socket.SOCK_DGRAM) as sock:
        sock.connect((aim.victim, aim.port))
        sock.send(aim.payload)


def bound_udp_sendto(aim: aim_.Aim) -> None:
    """Send on an unconnected UDP socket with a port of its own, as a server would to answer."""
    with opened(aim, socket.SOCK_DGRAM) as sock:
        sock.sendto(aim.payload, (aim.victim, aim.port))


def udp_sendto_elsewhere(aim: aim_.Aim) -> None:
    """Connect to the pod itself, which is always allowed, then name the victim in sendto()."""
    with unbound(aim) as sock:
        sock.connect((aim.source, DISCARD_PORT))
        sock.sendto(aim.payload, (aim.victim, aim.port))


def udp_reconnect(aim: aim_.Aim) -> None:
    """Connect to the pod itself, dissolve the association, then connect to the victim."""
    with unbound(aim) as sock:
        sock.connect((aim.source, DISCARD_PORT))
        sock.connect((aim.victim, aim.port))
        sock.send(aim.payload)


@contextlib.contextmanager
def _mapped(aim: aim_.Aim, kind: socket.SocketKind) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6, kind) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(PATIENCE_S)
        if kind == socket.SOCK_STREAM:
            sock.bind((f"::ffff:{aim.source}", aim.source_port))
        yield sock


def mapped_connect(aim: aim_.Aim) -> None:
    """Connect an IPv6 TCP socket to the victim's IPv4-mapped address (rule A24)."""
    with _mapped(aim, socket.SOCK_STREAM) as sock:
        sock.connect((f"::ffff:{aim.victim}", aim.port))
        sock.sendall(aim.payload)


def mapped_sendto(aim: aim_.Aim) -> None:
    """Send from an IPv6 UDP socket to the victim's IPv4-mapped address (rule A24)."""
    with _mapped(aim, socket.SOCK_DGRAM) as sock:
        sock.sendto(aim.payload, (f"::ffff:{aim.victim}", aim.port))


def mapped_udp_connect(aim: aim_.Aim) -> None:
    """Connect an IPv6 UDP socket to the victim's IPv4-mapped address, then send."""
    with _mapped(aim, socket.SOCK_DGRAM) as sock:
        sock.connect((f"::ffff:{aim.victim}", aim.port))
        sock.send(aim.payload)


def fast_open_sendto(aim: aim_.Aim) -> None:
    """Put the payload into the SYN by sendto(): there is no connect() call."""
    with opened(aim, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sock.sendto(aim.payload, socket.MSG_FASTOPEN, (aim.victim, aim.port))


def fast_open_connect(aim: aim_.Aim) -> None:
    """Put off the SYN of connect() to the first send()."""
    with opened(aim, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect((aim.victim, aim.port))
        sock.sendall(aim.payload)


def multipath(aim: aim_.Aim) -> None:
    """Connect by MPTCP."""
    with opened(aim, socket.SOCK_STREAM, IPPROTO_MPTCP) as sock:
        sock.connect((aim.victim, aim.port))
        sock.sendall(aim.payload)


def lite_connect(aim: aim_.Aim) -> None:
    """Send on a connected UDP-Lite socket."""
    with unbound(aim, wire.UDPLITE) as sock:
        sock.connect((aim.victim, aim.port))
        sock.send(aim.payload)


def lite_sendto(aim: aim_.Aim) -> None:
    """Send on an unconnected UDP-Lite socket."""
    with unbound(aim, wire.UDPLITE) as sock:
        sock.sendto(aim.payload, (aim.victim, aim.port))


def ping_socket(aim: aim_.Aim) -> None:
    """Send an echo request by a datagram ICMP socket, which no socket hook sees."""
    pathlib.Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    with socket.socket(aim.domain, socket.SOCK_DGRAM, wire.echo_protocol(aim.victim)) as sock:
        sock.sendto(wire.echo(aim.source, aim.victim, aim.payload), (aim.victim, 0))


ATTACKS = (
    aim_.Attack(name="TCP connect()", run=tcp_connect),
    aim_.Attack(name="UDP connect(), send()", run=udp_connect),
    aim_.Attack(name="UDP sendto()", run=udp_sendto),
    aim_.Attack(name="UDP connect(), send(), bound port", run=bound_udp_connect),
    aim_.Attack(name="UDP sendto(), bound port", run=bound_udp_sendto),
    aim_.Attack(name="UDP connected to itself, sendto() the victim", run=udp_sendto_elsewhere),
    aim_.Attack(name="UDP connected to itself, connect() again", run=udp_reconnect),
    aim_.Attack(name="IPv4-mapped, TCP connect()", run=mapped_connect, families=aim_.ONLY4),
    aim_.Attack(name="IPv4-mapped, UDP sendto()", run=mapped_sendto, families=aim_.ONLY4),
    aim_.Attack(name="IPv4-mapped, UDP connect()", run=mapped_udp_connect, families=aim_.ONLY4),
    aim_.Attack(name="TCP fast open, sendto()", run=fast_open_sendto),
    aim_.Attack(name="TCP fast open, deferred connect()", run=fast_open_connect),
    aim_.Attack(name="MPTCP connect()", run=multipath),
    aim_.Attack(name="UDP-Lite connect(), send()", run=lite_connect),
    aim_.Attack(name="UDP-Lite sendto()", run=lite_sendto),
    aim_.Attack(name="ping socket", run=ping_socket),
)
