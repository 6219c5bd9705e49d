"""One connection, one verdict, however often its first packet comes.

The problem: conntrack calls a packet new until an answer was seen, so a datagram nobody answers is new each time, and
so is every SYN that is sent again because the first was dropped. The rule: what was told of the same two ends within
the time that conntrack remembers it, and was decided alike, is not told again but counted, and the next that is told
carries the number.

    UDP, UDP-Lite   UDP_NS (nf_conntrack_udp_timeout): by conntrack's own count it is the same connection
    TCP, dropped    TCP_NS, and as long after the last as a SYN is sent again: else it is another call from that port

It must not read a clock. Allowed TCP is always told: of that, a new packet between the same ends is a new connection.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from agent.model import net, verdict

SECOND_NS = 1_000_000_000
UDP_NS = 30 * SECOND_NS
TCP_NS = 130 * SECOND_NS
"""What a Linux client takes to give up, six times sending its SYN again (tcp_syn_retries)."""
RESENT_S = tuple((0.9 * 2**times, 1.2 * 2**times) for times in range(7))
"""A SYN is sent again after one second, then two, four (RFC 6298); what is read in batches has no exact time."""
REMEMBERED = 8192
"""Connections; the one told longest ago is forgotten first."""

_DATAGRAMS = frozenset({net.Protocol.UDP.value, net.Protocol.UDPLITE.value})
_TCP = net.Protocol.TCP.value
_DROPPED = verdict.Verdict.DROPPED.value


class Packet(Protocol):
    """What the packet layer tells."""

    @property
    def time_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    @property
    def protocol(self) -> int:
        """IANA number."""

    @property
    def direction(self) -> int:
        """Seen from the endpoint."""

    @property
    def verdict(self) -> int:
        """What happened."""

    @property
    def reason(self) -> int:
        """Why."""

    @property
    def rule(self) -> int:
        """What decided."""

    @property
    def repeats(self) -> int:
        """Events like it that were kept back before it."""

    @property
    def came_from(self) -> Hashable:
        """The client's address and port."""

    @property
    def towards(self) -> Hashable:
        """Endpoint, protocol, and the server's address and port."""


class _Told:
    __slots__ = ("count", "last_ns", "told_ns")

    def __init__(self, time_ns: int) -> None:
        self.told_ns = self.last_ns = time_ns
        self.count = 0


class Again:
    """Remembers what was told; for one thread."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._told: dict[Hashable, _Told] = {}
        self.count = 0
        """Packets that were kept back; any thread may read it."""

    def kept_back(self, packet: Packet) -> int | None:
        """Return how many were kept back that this one tells of; None: it is kept back itself."""
        datagram = packet.protocol in _DATAGRAMS
        if not datagram and (packet.protocol != _TCP or packet.verdict != _DROPPED):
            return 0
        key = (packet.towards, packet.came_from, packet.direction, packet.verdict, packet.reason, packet.rule)
        time_ns, known = packet.time_ns, self._told.get(key)
        if known is None:
            self._remember(key, time_ns)
            return 0
        apart, known.last_ns = time_ns - known.last_ns, time_ns
        told_since = time_ns - known.told_ns
        if told_since <= UDP_NS if datagram else told_since <= TCP_NS and _is_resent(apart):
            known.count += 1 + packet.repeats
            self.count += 1
            return None
        del self._told[key]
        self._remember(key, time_ns)
        return known.count

    def _remember(self, key: Hashable, time_ns: int) -> None:
        self._told[key] = _Told(time_ns)
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]


def _is_resent(apart_ns: int) -> bool:
    apart_s = apart_ns / SECOND_NS
    return any(least <= apart_s <= most for least, most in RESENT_S)
