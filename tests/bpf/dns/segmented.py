"""Streams of answers in random segments: what they teach must be what each answer teaches by itself.

Segments come as they do behind a network that loses, repeats and reorders, from a sender that cuts anew what it sends
again. What the programs drop has not arrived: the receiver acknowledges only what got through, in order.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
import time
from collections.abc import Sequence

from tests.bpf.dns import connections, mutants, reference, rig, wire
from tests.bpf.dns.connections import Way

MOST = 6
"""Answers of one stream."""
LONGEST = 3000
"""Bytes of one segment: a frame in BPF_PROG_TEST_RUN is less than a page."""
PATIENCE = 15
"""Segments that come ahead without any progress, at most."""
SLACK_S = 1.5
WHOLE, TINY, ANY = 0.2, 0.3, 0.5
"""Of how many streams segments are as long as can be, of a few bytes, or of any length."""


@dataclasses.dataclass(slots=True, kw_only=True)
class Campaign:
    """What came of it."""

    streams: int = 0
    segments: int = 0
    dropped: int = 0
    seconds: float = 0.0
    taught: int = 0
    """Addresses."""
    wrong: list[str] = dataclasses.field(default_factory=list)
    """What was learned and should not have been, or the other way round; seed and number repeat a stream."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sender:
    """Sends one way of a connection."""

    connection: connections.Connection
    way: Way
    source: random.Random
    longest: int

    def deliver(self, stream: bytes, campaign: Campaign) -> None:
        """Send all of it, until all has got through."""
        through, ahead = 0, 0
        while through < len(stream):
            begin = self._begin(through, len(stream), ahead)
            end = min(len(stream), begin + self.source.randint(1, self.longest))
            passed = self.connection.send(self.way, begin, stream[begin:end])
            campaign.segments += 1
            campaign.dropped += not passed
            assert passed is (begin <= through), "what is ahead is dropped, and nothing else"
            if begin > through:
                ahead += 1
            elif end > through:
                through, ahead = end, 0

    def _begin(self, through: int, length: int, ahead: int) -> int:
        """Return where the next segment begins: mostly where it should."""
        chance = self.source.random()
        if chance < 0.15:
            return self.source.randint(0, through)
        if chance < 0.3 and self.way is Way.ANSWERS and ahead < PATIENCE and through + 1 < length:
            return self.source.randint(through + 1, length - 1)
        return through


def run(learner: rig.Learner, *, streams: int, seed: int) -> Campaign:
    """Run so many streams, each of an endpoint of its own."""
    learner.clear()
    learner.know("a.b-c.example_x.net", exact=rig.API)
    source, campaign = random.Random(seed), Campaign(streams=streams)
    begin = time.clock_gettime(time.CLOCK_BOOTTIME)
    expected: dict[int, dict[str, int]] = {}
    messages = mutants.mutants(seed)
    for endpoint in range(0x1000, 0x1000 + streams):
        learner.be(endpoint)
        learner.select(endpoint, by_names=True)
        sent = [_answer(source, number, next(messages)) for number in range(source.randint(1, MOST))]
        _exchange(learner, source, sent, campaign)
        expected[endpoint] = _taught(sent)
        learner.forget(endpoint)
    campaign.seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - begin
    _compare(learner, expected, begin, campaign)
    learner.be(rig.ENDPOINT)
    return campaign


def _answer(source: random.Random, number: int, mutant: bytes) -> bytes:
    """Return an answer with a number of its own, of which some are longer than what is read."""
    message = number.to_bytes(2, "big") + mutant[2:]
    if source.random() < 0.1:
        late = ipaddress.IPv4Address("198.18.0.1") + number
        filler = wire.Record(type=wire.RRSIG, ttl=60, data=source.randbytes(source.randint(3000, 5000)))
        return wire.answer(rig.NAME, wire.address(mutants.FOUR), filler, wire.address(late), number=number)
    return message


def _exchange(learner: rig.Learner, source: random.Random, sent: Sequence[bytes], campaign: Campaign) -> None:
    """Ask for all of them over one connection, and get them in any order."""
    longest = source.choices([LONGEST, 5, source.randint(1, 1500)], [WHOLE, TINY, ANY])[0]
    resolver = source.choice([rig.RESOLVER4, rig.RESOLVER6])
    connection = connections.opened(learner, resolver=resolver, near_wrap=source.choice([0, 0, source.randint(1, 999)]))
    queries = b"".join(wire.prefixed(wire.asked_by(message)) for message in sent)
    Sender(connection, Way.QUERIES, source, longest).deliver(queries, campaign)
    answers = b"".join(map(wire.prefixed, source.sample(list(sent), len(sent))))
    Sender(connection, Way.ANSWERS, source, longest).deliver(answers, campaign)


def _taught(sent: Sequence[bytes]) -> dict[str, int]:
    """Return what each of these teaches by itself, taken together."""
    found: dict[str, int] = {}
    for message in sent:
        for address, ttl in reference.taught(message, mutants.NAMES).items():
            found[address] = max(ttl, found.get(address, 0))
    return found


def _compare(learner: rig.Learner, expected: dict[int, dict[str, int]], begin: float, campaign: Campaign) -> None:
    found: dict[int, dict[str, float]] = {endpoint: {} for endpoint in expected}
    for one in learner.learned():
        found[one.endpoint][str(one.address)] = one.expires_ns / 1e9 - begin
    slack = campaign.seconds + SLACK_S
    for endpoint, taught in expected.items():
        campaign.taught += len(taught)
        late = [address for address, ttl in taught.items() if not ttl <= found[endpoint].get(address, 0) <= ttl + slack]
        if late or found[endpoint].keys() != taught.keys():
            campaign.wrong.append(f"stream {endpoint - 0x1000}: {sorted(found[endpoint])} for {sorted(taught)}")
