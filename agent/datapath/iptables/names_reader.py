"""What a packet of DNS teaches: packets of pods and their resolvers in, learned addresses out.

The same law as the programs' at the veth (`bpf/include/dns_answer.h`): believed is who is trusted, when it answers the
very question that this pod has asked, once; the name is the question's. Beyond what these can, a message by TCP may be
spread over segments in any way, or share one with others (requirement F28).

Whoever calls has held the packet back, and lets it go when what it teaches is in force; so everything here is bounded,
raises nothing and reads no clock. Hostile bytes make a counter grow.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from agent.datapath import base
from agent.datapath.iptables import names_asked, names_book, names_streams, packet
from agent.fqdn import classes as classes_
from agent.fqdn import history, message
from agent.model import fqdn, net

PORT = 53
TCP, UDP = net.Protocol.TCP.value, net.Protocol.UDP.value
UDP_HEADER, TCP_HEADER_LEAST = 8, 20
TCP_FIN, TCP_SYN, TCP_RST = 0x01, 0x02, 0x04
COUNTERS = (
    "queries",
    "answers",
    "learned",
    "no_rule",
    "negative",
    "malformed",
    "untrusted",
    "unasked",
    "fragmented",
    "addresses",
)
"""By the names that the learner at the veth has for them."""


class Told(NamedTuple):
    """`base.Answer`: what an endpoint was told."""

    endpoint: int
    time_ns: int
    message: bytes
    resolver: net.Address
    """As the packet had it where it waited: the Service's backend, if there is one."""
    protocol: int = UDP
    outcome: base.Outcome = base.Outcome.LEARNED
    resolver_port: int = 0
    client_port: int = 0
    policy_set: int = 0
    rule: int = 0
    repeats: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Who learns what from whom."""

    endpoints: Mapping[net.Address, int] = dataclasses.field(default_factory=dict)
    """Address -> the endpoint that has it."""
    resolvers: frozenset[net.Address] = frozenset()
    classes: tuple[classes_.Classes, ...] = ()
    """Those that count and those that will, if they differ."""
    lifetimes: history.Lifetimes = dataclasses.field(default_factory=history.Lifetimes)

    def of(self, name: str) -> frozenset[int]:
        """Return the classes of a name."""
        return frozenset(number for each in self.classes for number in each.of(name))


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What one packet teaches."""

    entries: tuple[names_book.Entry, ...] = ()
    told: tuple[Told, ...] = ()


NOTHING = Reading()


class Reader:
    """Reads packets in the order in which they pass; for one thread."""

    def __init__(self) -> None:
        """Have seen nothing; `names` says what to learn."""
        self.names = Names()
        self._asked = names_asked.Asked()
        self._streams = names_streams.Streams()
        self._counted: Counter[str] = Counter()

    def read(self, family: net.Family, payload: bytes, now_ns: int) -> Reading:
        """Read a packet, from its network header on; `now_ns` is CLOCK_BOOTTIME."""
        found = packet.parse4(payload) if family is net.Family.IPV4 else packet.parse6(payload)
        if found.malformed or not found.transport or PORT not in {found.source_port, found.destination_port}:
            self._counted["fragmented"] += 1
            return NOTHING
        answers = found.source_port == PORT
        pod, resolver = (found.destination, found.source) if answers else (found.source, found.destination)
        endpoint = self.names.endpoints.get(_address(pod))
        if endpoint is None:
            return NOTHING
        if _address(resolver) not in self.names.resolvers:
            self._counted["untrusted"] += answers
            return NOTHING
        flow = _Flow(endpoint, pod, found.destination_port if answers else found.source_port, resolver, found.protocol)
        messages = self._messages(flow, found, payload, answers=answers)
        if answers:
            return self._answers(flow, messages, now_ns)
        for content in messages:
            self._query(flow, content)
        return NOTHING

    def counters(self) -> dict[str, int]:
        """Return what was read and what was lost, by name; any thread may ask."""
        counted = {name: self._counted[name] for name in COUNTERS}
        streams = self._streams
        return counted | {
            "split": streams.unknown + streams.unreadable,
            "streams_evicted": streams.evicted,
            "questions_evicted": self._asked.evicted,
        }

    def _messages(self, flow: _Flow, found: packet.Packet, payload: bytes, *, answers: bool) -> Iterable[bytes]:
        if found.protocol == UDP:
            return (payload[found.transport + UDP_HEADER :],)
        if found.protocol != TCP or len(payload) < found.transport + TCP_HEADER_LEAST:
            return ()
        at = found.transport
        sequence, flags = int.from_bytes(payload[at + 4 : at + 8]), payload[at + 13]
        content = payload[at + (payload[at + 12] >> 4) * 4 :]
        if flags & TCP_RST:
            return ()
        if flags & TCP_SYN:
            if self._streams.open((flow, answers), sequence) and not answers:
                self._streams.close((flow, True))
            return ()
        messages = self._streams.read((flow, answers), sequence, content) if content else ()
        if flags & TCP_FIN:
            self._streams.end((flow, answers), sequence + len(content))
        return messages

    def _query(self, flow: _Flow, content: bytes) -> None:
        question = names_asked.question_of(content)
        if question is not None and not names_asked.is_answer(content):
            self._counted["queries"] += 1
            self._asked.ask((flow, names_asked.number_of(content)), question)

    def _answers(self, flow: _Flow, messages: Iterable[bytes], now_ns: int) -> Reading:
        entries: list[names_book.Entry] = []
        told: list[Told] = []
        for content in messages:
            question = names_asked.question_of(content)
            if question is None or not names_asked.is_answer(content):
                self._counted["malformed"] += 1
            elif not self._asked.answered((flow, names_asked.number_of(content)), question):
                self._counted["unasked"] += 1
            else:
                self._counted["answers"] += 1
                outcome, found = self._learned(flow.endpoint, content, now_ns)
                entries += found
                told.append(Told(flow.endpoint, now_ns, content, _address(flow.resolver), flow.protocol, outcome))
        return Reading(tuple(entries), tuple(told))

    def _learned(self, endpoint: int, content: bytes, now_ns: int) -> tuple[base.Outcome, tuple[names_book.Entry, ...]]:
        """Return how an answer was taken, and what it teaches."""
        answered = message.answered(content, endpoint=endpoint, at_ns=now_ns)
        numbers = self.names.of(answered.name) if answered is not None else frozenset()
        outcome = base.Outcome.LEARNED if numbers else base.Outcome.NO_RULE
        if answered is None:
            outcome = base.Outcome.NEGATIVE
        self._counted[outcome.name.lower()] += 1
        if answered is None or not numbers:
            return outcome, ()
        self._counted["addresses"] += len(answered.addresses)
        return outcome, tuple(entries_of(answered, numbers, self.names.lifetimes))


class _Flow(NamedTuple):
    """A pod's socket and the resolver it talks to."""

    endpoint: int
    pod: bytes
    port: int
    resolver: bytes
    protocol: int


def entries_of(
    answered: fqdn.Answered, numbers: Iterable[int], lifetimes: history.Lifetimes
) -> Iterator[names_book.Entry]:
    """Yield what an answer teaches of each class, each address once and as its longest record says."""
    expiries: dict[net.Address, int] = {}
    for address, ttl_s in answered.addresses:
        expires_ns = lifetimes.expires_ns(answered.at_ns, ttl_s, answered.alias_ttls_s)
        expiries[address] = max(expires_ns, expiries.get(address, 0))
    for number in sorted(numbers):
        for address, expires_ns in expiries.items():
            yield names_book.Entry(answered.endpoint, number, address, expires_ns)


def _address(packed: bytes) -> net.Address:
    return net.normalize(ipaddress.ip_address(packed))
