"""DNS over TCP, segment by segment: what a pod and its resolver send each other, in whatever pieces."""

from __future__ import annotations

import dataclasses
import enum
import ipaddress

from agent.datapath.bpf import dns_loader
from agent.model import net
from tests.bpf.dns import rig, wire

NUMBERS = 1 << 32
ONE, TWO = ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("203.0.113.8")
BOTH = {str(ONE), str(TWO)}
ANSWER = wire.answer(rig.NAME, wire.address(ONE), number=1)
OTHER = wire.answer(rig.NAME, wire.address(TWO), number=2)
QUERY, OTHER_QUERY = wire.asked_by(ANSWER), wire.asked_by(OTHER)
FIRST, SECOND = wire.prefixed(ANSWER), wire.prefixed(OTHER)
STREAM = FIRST + SECOND
ASKED = wire.prefixed(QUERY) + wire.prefixed(OTHER_QUERY)


class Way(enum.Enum):
    """Who sends; the value is the program that sees it."""

    QUERIES = dns_loader.QUERY
    ANSWERS = dns_loader.ANSWER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One between the rig's pod and a resolver; nothing is remembered of what it sent."""

    learner: rig.Learner
    port: int
    first: dict[Way, int]
    """The numbers of the SYNs."""
    resolver: net.Address = rig.RESOLVER4

    def send(self, way: Way, offset: int, payload: bytes, *, flags: int = wire.PUSH | wire.ACK) -> bool:
        """Send bytes that come so far behind the SYN; return whether they got through."""
        frame = self.frame(way, self.first[way] + 1 + offset, payload, flags)
        return self.learner.passes(way.value, frame)

    def frame(self, way: Way, sequence: int, payload: bytes, flags: int) -> bytes:
        """Return a segment's frame."""
        pod, ports = rig.pod_of(self.resolver), (self.port, wire.PORT)
        if way is Way.ANSWERS:
            return wire.segment(self.resolver, pod, ports[::-1], payload, sequence=sequence, flags=flags)
        return wire.segment(pod, self.resolver, ports, payload, sequence=sequence, flags=flags)

    def open(self) -> None:
        """Shake hands."""
        assert self.send(Way.QUERIES, -1, b"", flags=wire.SYN)
        assert self.send(Way.ANSWERS, -1, b"", flags=wire.SYN | wire.ACK)

    def ask(self, *messages: bytes) -> int:
        """Ask in one segment, the first of its stream; return how long that is."""
        payload = b"".join(map(wire.prefixed, messages))
        assert self.send(Way.QUERIES, 0, payload)
        return len(payload)


def fresh(learner: rig.Learner, *, resolver: net.Address = rig.RESOLVER4, near_wrap: int = 0) -> Connection:
    """Return a connection that was never there; `near_wrap`: so many bytes until its numbers begin anew."""
    number = next(learner.numbers)
    first = NUMBERS - 1 - near_wrap if near_wrap else number << 16
    return Connection(
        learner=learner,
        port=10_000 + number % 50_000,
        first={Way.QUERIES: first % NUMBERS, Way.ANSWERS: (first + (0 if near_wrap else 12345)) % NUMBERS},
        resolver=resolver,
    )


def opened(learner: rig.Learner, *, resolver: net.Address = rig.RESOLVER4, near_wrap: int = 0) -> Connection:
    """Return one whose handshake was seen."""
    connection = fresh(learner, resolver=resolver, near_wrap=near_wrap)
    connection.open()
    return connection


def known(learner: rig.Learner) -> set[str]:
    """Return the learned addresses."""
    return set(learner.seconds())


def asked(learner: rig.Learner) -> Connection:
    """Return a connection over which both questions were asked."""
    connection = opened(learner)
    connection.ask(QUERY, OTHER_QUERY)
    return connection


def deliver(connection: Connection, way: Way, stream: bytes, size: int) -> None:
    """Send a stream in segments of a size, all of which get through."""
    for begin in range(0, len(stream), size):
        assert connection.send(way, begin, stream[begin : begin + size])
