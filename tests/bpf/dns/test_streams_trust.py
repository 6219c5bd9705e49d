"""Streams that the kernel cannot follow, or must not believe: other people's, forgotten ones, forged ones (F28)."""

from __future__ import annotations

import itertools
import random
import struct
import threading

import pytest

from agent.datapath import base
from agent.datapath.bpf import dns_loader
from tests.bpf.dns import connections, rig, wire
from tests.bpf.dns.connections import ASKED, BOTH, FIRST, ONE, OTHER_QUERY, QUERY, SECOND, STREAM, TWO, Way

pytestmark = pytest.mark.root

TOGETHER = 20


def test_of_a_stream_whose_beginning_was_not_seen_nothing_is_learned(learner: rig.Learner) -> None:
    """As after another build of the programs took over: what looks like an answer may lie inside a record."""
    connection = connections.fresh(learner)
    before = learner.fqdn.counters()["split"]
    connection.ask(QUERY, OTHER_QUERY)
    assert connection.send(Way.ANSWERS, 0, FIRST)
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND[:20])
    assert connection.send(Way.ANSWERS, 2 * len(FIRST), SECOND), "not held: nothing is known of it"
    assert connections.known(learner) == set()
    assert learner.fqdn.counters()["split"] == before + 3


def test_the_next_connection_is_read_again(learner: rig.Learner) -> None:
    connections.fresh(learner).ask(QUERY)
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == BOTH


def test_a_message_inside_another_teaches_nothing(learner: rig.Learner) -> None:
    """Whoever owns a name writes what he likes into its records, and a pod chooses how long segments are."""
    forged = wire.prefixed(wire.answer(rig.NAME, wire.address(TWO), number=2))
    carrier = wire.answer("evil.example", wire.Record(type=16, ttl=60, data=forged), number=1)
    stream = wire.prefixed(carrier)
    at = stream.index(forged)
    connection = connections.opened(learner)
    connection.ask(wire.asked_by(carrier), OTHER_QUERY)
    assert connection.send(Way.ANSWERS, 0, stream[:at])
    assert connection.send(Way.ANSWERS, at, forged)
    assert connection.send(Way.ANSWERS, at, forged)
    assert connections.known(learner) == set()
    assert learner.outcomes() == [base.Outcome.NO_RULE]


def test_a_pod_cannot_answer_itself(learner: rig.Learner) -> None:
    """What it sends goes the other way, whatever port it has and whatever it claims to begin."""
    connection = connections.asked(learner)
    frame = connection.frame(Way.ANSWERS, connection.first[Way.ANSWERS] + 1, STREAM, wire.PUSH | wire.ACK)
    assert learner.passes(dns_loader.QUERY, frame)
    assert connection.send(Way.QUERIES, len(ASKED), STREAM)
    assert connection.send(Way.QUERIES, -1, b"", flags=wire.SYN | wire.ACK)
    assert connections.known(learner) == set()
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == BOTH


def test_streams_of_two_pods_are_two(learner: rig.Learner) -> None:
    connection = connections.asked(learner)
    learner.be(rig.NEIGHBOUR)
    connection.open()
    connection.ask(QUERY)
    assert connection.send(Way.ANSWERS, 0, FIRST[:20])
    learner.be(rig.ENDPOINT)
    assert connection.send(Way.ANSWERS, 0, FIRST[:5])
    learner.be(rig.NEIGHBOUR)
    assert connection.send(Way.ANSWERS, 20, FIRST[20:])
    assert {one.endpoint for one in learner.learned()} == {rig.NEIGHBOUR}
    learner.be(rig.ENDPOINT)
    assert connection.send(Way.ANSWERS, 5, FIRST[5:])
    assert {one.endpoint for one in learner.learned()} == {rig.ENDPOINT, rig.NEIGHBOUR}


def test_streams_of_a_stranger_are_neither_read_nor_held(learner: rig.Learner) -> None:
    connection = connections.opened(learner, resolver=rig.STRANGER)
    connection.ask(QUERY)
    before = learner.fqdn.counters()
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connection.send(Way.ANSWERS, 0, FIRST)
    assert connections.known(learner) == set()
    after = learner.fqdn.counters()
    assert (after["untrusted"] - before["untrusted"], after["held"]) == (2, before["held"])


def test_padding_behind_a_packet_is_no_part_of_its_stream(learner: rig.Learner) -> None:
    """An Ethernet frame has 60 bytes at least."""
    connection = connections.asked(learner)
    for index in range(len(STREAM)):
        sequence = connection.first[Way.ANSWERS] + 1 + index
        frame = connection.frame(Way.ANSWERS, sequence, STREAM[index : index + 1], wire.ACK)
        assert learner.passes(dns_loader.ANSWER, frame.ljust(60, b"\xee"))
    assert connections.known(learner) == BOTH


def test_a_header_that_lies_is_no_segment(learner: rig.Learner) -> None:
    connection = connections.asked(learner)
    frame = bytearray(connection.frame(Way.ANSWERS, connection.first[Way.ANSWERS] + 1, STREAM, wire.ACK))
    for offset, value in ((16, struct.pack(">H", 4000)), (16, struct.pack(">H", 30)), (46, b"\xf0")):
        spoiled = bytearray(frame)
        spoiled[offset : offset + len(value)] = value
        if offset == 46:
            spoiled = spoiled[:90]
            spoiled[16:18] = struct.pack(">H", 76)
        assert learner.passes(dns_loader.ANSWER, bytes(spoiled))
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == BOTH


def test_processors_that_have_a_stream_at_one_time_learn_what_one_would(learner: rig.Learner) -> None:
    """One sends it in order, what is dropped again; another one sends again what was sent before, all the while."""
    answers = [wire.answer(rig.NAME, wire.address(ONE + index), number=index) for index in range(20)]
    stream = b"".join(map(wire.prefixed, answers))
    for seed in range(TOGETHER):
        connection = connections.opened(learner)
        connection.ask(*map(wire.asked_by, answers))
        _deliver_twice(connection, stream, random.Random(seed))
        assert learner.outcomes() == [base.Outcome.LEARNED] * len(answers)


def _deliver_twice(connection: connections.Connection, stream: bytes, source: random.Random) -> None:
    """Do so with one stream of answers."""
    sent, over = 0, threading.Event()

    def again() -> None:
        chance = random.Random(len(stream))
        while not over.is_set():
            begin, end = sorted(chance.randint(0, sent) for _ in range(2))
            connection.send(Way.ANSWERS, begin, stream[begin:end])

    other = threading.Thread(target=again)
    other.start()
    try:
        while sent < len(stream):
            piece = stream[sent : sent + source.randint(1, 40)]
            sent += len(piece) if connection.send(Way.ANSWERS, sent, piece) else 0
    finally:
        over.set()
        other.join()


def test_of_a_stream_that_is_forgotten_under_pressure_nothing_more_is_learned(learner: rig.Learner) -> None:
    """More connections than there is room for, and more messages under way; nothing wrong is learned of either."""
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 0, FIRST[:30])
    for number in itertools.islice(itertools.count(1), 20_000):
        frame = wire.segment(
            rig.POD4, rig.LOCAL_CACHE, (1024 + number, wire.PORT), b"", sequence=number, flags=wire.SYN
        )
        learner.run(dns_loader.QUERY, frame)
    before = learner.fqdn.counters()["split"]
    assert connection.send(Way.ANSWERS, 30, FIRST[30:])
    assert connections.known(learner) == set()
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connections.known(learner) == set()
    assert learner.fqdn.counters()["split"] == before + 2


def test_of_many_messages_under_way_the_ends_are_known_even_if_their_content_is_not(learner: rig.Learner) -> None:
    several = [connections.asked(learner) for _ in range(1500)]
    for connection in several:
        assert connection.send(Way.ANSWERS, 0, FIRST[:30])
    learner.clear()
    for connection in several:
        connection.send(Way.QUERIES, len(ASKED), ASKED)
        assert connection.send(Way.ANSWERS, 30, FIRST[30:])
    outcomes = len(learner.outcomes())
    assert 0 < outcomes < len(several)
    for connection in several:
        assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert len(learner.outcomes()) == len(several)
