"""One connection, one verdict a direction: what the socket layer and the packet layer say of it becomes one.

The problem: connect() is judged when the application calls it, with the process and the address as it was written;
the packet is judged on its way, at the backend that was chosen. Whoever reads verdicts asks about connections. Nothing
that both layers see names the connection: the socket has no port of its own yet when it is judged.

The rule: an allowed call waits, by endpoint, protocol, address and port; the next packet of that endpoint to that
address, or to a backend of the Service that listens there, takes the call that has waited longest, for calls and their
packets come in one order. The packet's decision counts. In doubt nothing is lost and nothing made up:

- a refused call is told at once; where denials are silent (deny mode `drop`) its packet follows, and it waits too
- a call whose packet does not come within WAIT_NS is told alone, and so is the oldest of more than WAITING_MOST
- a packet nobody waits with is told at once; should its call arrive behind it, that adds nothing and is left out
- packets of the other direction, and what was dropped for other reasons than policy, have no call
- a packet of a connection that was told of is told no more (`again`), and takes no other connection's call

`sendmsg` reports no allowed datagram, so UDP without connect() is told by the packet layer alone. There are no timers:
`join` is called with every batch, and `due_ns` says when at the latest. It must not read a clock, nor name anything.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeAlias, TypeVar

from agent.model import net, verdict
from agent.observer import again

WAIT_NS = 250_000_000
"""The packet of a call leaves within microseconds; logged by iptables, it is read some 50 ms later."""
WAITING_MOST = 8192
SERVICES_MOST = 64
"""Service addresses with calls waiting, of one endpoint; calls to more of them are told alone."""

Towards: TypeAlias = tuple[int, int, bytes, bytes]
"""Endpoint, protocol, address (16 bytes, IPv4 mapped) and port (2 bytes, as on the wire)."""
Backends: TypeAlias = frozenset[tuple[bytes, bytes]]
"""Addresses and ports, likewise."""

_SOCKET = verdict.Layer.SOCKET.value
_EGRESS = net.Direction.EGRESS.value
_DROPPED = verdict.Verdict.DROPPED.value
_NOT_ISOLATED = verdict.Reason.NOT_ISOLATED.value
"""Of such an endpoint the socket layer tells nothing."""
_BY_POLICY = frozenset(
    reason.value
    for reason in (
        verdict.Reason.RULE_ALLOWED,
        verdict.Reason.NOT_ISOLATED,
        verdict.Reason.POLICY_DENIED,
        verdict.Reason.POLICY_DENY,
        verdict.Reason.ENDPOINT_HELD,
    )
)


class Event(again.Packet, Protocol):
    """What is looked at; all of it numbers. A packet's time may be that of its reading."""

    @property
    def layer(self) -> int:
        """Who judged."""

    @property
    def towards(self) -> Towards:
        """What was asked for."""


Raw = TypeVar("Raw", bound=Event)


class Joined(Generic[Raw]):
    """A packet's event, that of the call that made it, and how many events of it were kept back before."""

    __slots__ = ("more", "packet", "socket")

    def __init__(self, packet: Raw, socket: Raw | None, more: int = 0) -> None:
        """Keep them; `socket` is None where only others like it are known."""
        self.packet = packet
        self.socket = socket
        self.more = more

    @property
    def verdict(self) -> int:
        """The packet's, which counts."""
        return self.packet.verdict


class Joiner(Generic[Raw]):
    """Events in, verdicts out; remembers the calls that wait. For one thread."""

    def __init__(self) -> None:
        """Begin with nothing waiting."""
        self._waiting: dict[Towards, collections.deque[Raw]] = {}
        self._order: collections.deque[tuple[Towards, Raw]] = collections.deque()
        """Calls as they came; those that were taken stay until they are due."""
        self._count = 0
        self._services: dict[tuple[int, int], dict[Towards, Backends]] = {}
        """By endpoint and protocol: Service addresses with calls waiting."""
        self._again = again.Again()
        self._calls_come = False
        """Whether there is a socket layer that tells of calls."""
        self._early: dict[tuple[int, int], dict[tuple[bytes, bytes], collections.deque[int]]] = {}
        """By endpoint and protocol, address and port: times of packets nobody waited with."""
        self._early_order: collections.deque[tuple[int, Towards]] = collections.deque()

    def join(
        self,
        events: Iterable[Raw],
        *,
        until_ns: int,
        backends: Callable[[Raw], Backends | None],
        followed: Callable[[Raw], bool],
    ) -> list[Raw | Joined[Raw]]:
        """Return what is to be told now. All events before `until_ns` have been given, or are among `events`.

        `backends` says what a call may be translated to, None for an address that is nobody's Service; `followed`,
        whether the packet of a refused call is sent all the same.
        """
        told: list[Raw | Joined[Raw]] = []
        for event in events:
            if event.layer == _SOCKET:
                if event.verdict == _DROPPED and not followed(event):
                    told.append(event)
                else:
                    self._wait(event, backends(event))
                continue
            more = self._again.kept_back(event)
            if more is None:
                continue
            call = self._call_of(event) if event.direction == _EGRESS and event.reason in _BY_POLICY else None
            told.append(event if call is None and not more else Joined(event, call, more))
        told += self._due(until_ns - WAIT_NS)
        return told

    def rest(self) -> list[Raw | Joined[Raw]]:
        """Return all that waits: nothing more will come."""
        return list(self._due(sys.maxsize))

    @property
    def again(self) -> int:
        """Packets that were kept back since their connection was told of; any thread may ask."""
        return self._again.count

    @property
    def due_ns(self) -> int | None:
        """When the call that has waited longest is to be told alone; None: none waits."""
        return self._order[0][1].time_ns + WAIT_NS if self._count else None

    def _call_of(self, packet: Raw) -> Raw | None:
        call = self._take(packet) if self._count else None
        if call is None and self._calls_come and packet.reason != _NOT_ISOLATED:
            self._remember(packet)
        return call

    def _wait(self, call: Raw, backends: Backends | None) -> None:
        towards, self._calls_come = call.towards, True
        if self._early and self._was_early(towards, call.time_ns, backends):
            return
        self._waiting.setdefault(towards, collections.deque()).append(call)
        self._order.append((towards, call))
        self._count += 1
        if backends is not None:
            services = self._services.setdefault(towards[:2], {})
            if towards in services or len(services) < SERVICES_MOST:
                services[towards] = backends

    def _take(self, packet: Raw) -> Raw | None:
        """Return the call that waits for this packet, the oldest if there are several."""
        towards = packet.towards
        found = self._oldest(towards, packet.time_ns)
        chosen = towards
        if services := self._services.get(towards[:2]):
            backend = towards[2:]
            for service, backends in services.items():
                if backend in backends:
                    call = self._oldest(service, packet.time_ns)
                    if call is not None and (found is None or call.time_ns < found.time_ns):
                        found, chosen = call, service
        if found is not None:
            self._remove(chosen)
        return found

    def _oldest(self, towards: Towards, before_ns: int) -> Raw | None:
        calls = self._waiting.get(towards)
        return calls[0] if calls and calls[0].time_ns <= before_ns else None

    def _remove(self, towards: Towards) -> None:
        calls = self._waiting[towards]
        calls.popleft()
        self._count -= 1
        if not calls:
            del self._waiting[towards]
            services = self._services.get(towards[:2])
            if services is not None and services.pop(towards, None) is not None and not services:
                del self._services[towards[:2]]

    def _due(self, before_ns: int) -> Iterator[Raw]:
        """Yield the calls whose packets do not come, and forget what is too old to matter."""
        order, early = self._order, self._early_order
        while order:
            towards, call = order[0]
            calls = self._waiting.get(towards)
            if calls and calls[0] is call:
                if call.time_ns > before_ns and self._count <= WAITING_MOST:
                    break
                self._remove(towards)
                yield call
            order.popleft()
        while early and (early[0][0] <= before_ns or len(early) > WAITING_MOST):
            time_ns, towards = early.popleft()
            times = self._early.get(towards[:2], {}).get(towards[2:], ())
            if time_ns in times:
                self._forget(towards, time_ns)

    def _remember(self, packet: Raw) -> None:
        towards = packet.towards
        early = self._early.setdefault(towards[:2], {})
        early.setdefault(towards[2:], collections.deque()).append(packet.time_ns)
        self._early_order.append((packet.time_ns, towards))

    def _forget(self, towards: Towards, time_ns: int) -> None:
        early = self._early[towards[:2]]
        early[towards[2:]].remove(time_ns)
        if not early[towards[2:]]:
            del early[towards[2:]]
            if not early:
                del self._early[towards[:2]]

    def _was_early(self, towards: Towards, time_ns: int, backends: Backends | None) -> bool:
        """Tell whether the packet of a call was told already, and forget it: it has one call."""
        early = self._early.get(towards[:2])
        if not early:
            return False
        places = [towards[2:]]
        if backends is not None:
            fewer, others = (early, backends) if len(early) < len(backends) else (backends, early)
            places += [place for place in fewer if place in others]
        for place in places:
            if (times := early.get(place)) and times[-1] >= time_ns:
                self._forget((*towards[:2], *place), times[-1])
                return True
        return False
