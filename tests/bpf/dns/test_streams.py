"""DNS over TCP in any pieces: what the kernel learns of a stream, segment by segment (F28)."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from agent.datapath import base
from tests.bpf.dns import connections, rig, wire
from tests.bpf.dns.connections import ASKED, BOTH, FIRST, ONE, OTHER, OTHER_QUERY, QUERY, SECOND, STREAM, Way

pytestmark = pytest.mark.root

RESOLVERS = [rig.RESOLVER4, rig.RESOLVER6]
HELD_MAX = 16
SEGMENT = 1400


@pytest.mark.parametrize("resolver", RESOLVERS, ids=str)
def test_an_answer_may_be_cut_anywhere(
    learner: rig.Learner, resolver: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    """And is learned with the segment that completes it, not before; the next one behind it is read, too."""
    for cut in range(1, len(FIRST)):
        connection = connections.opened(learner, resolver=resolver)
        connection.ask(QUERY, OTHER_QUERY)
        assert connection.send(Way.ANSWERS, 0, FIRST[:cut])
        assert learner.outcomes() == []
        assert connection.send(Way.ANSWERS, cut, FIRST[cut:])
        assert learner.outcomes() == [base.Outcome.LEARNED], cut
        assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
        assert learner.outcomes() == [base.Outcome.LEARNED], cut
    assert connections.known(learner) == BOTH


def test_a_query_may_be_cut_anywhere(learner: rig.Learner) -> None:
    for cut in range(1, len(ASKED)):
        connection = connections.opened(learner)
        assert connection.send(Way.QUERIES, 0, ASKED[:cut])
        assert connection.send(Way.QUERIES, cut, ASKED[cut:])
        assert connection.send(Way.ANSWERS, 0, STREAM)
        assert learner.outcomes() == [base.Outcome.LEARNED] * 2, cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(FIRST) + 1])
def test_streams_may_come_in_pieces_of_any_size(learner: rig.Learner, size: int) -> None:
    connection = connections.opened(learner)
    connections.deliver(connection, Way.QUERIES, ASKED, size)
    connections.deliver(connection, Way.ANSWERS, STREAM, size)
    assert connections.known(learner) == BOTH
    assert learner.outcomes() == [base.Outcome.LEARNED] * 2


def test_numbers_begin_anew_in_the_middle(learner: rig.Learner) -> None:
    for near_wrap, size in itertools.product([1, 2, 3, 20, len(FIRST), len(FIRST) + 1], [1, 17, len(STREAM)]):
        connection = connections.opened(learner, near_wrap=near_wrap)
        connections.deliver(connection, Way.QUERIES, ASKED, size)
        connections.deliver(connection, Way.ANSWERS, STREAM, size)
        assert learner.outcomes() == [base.Outcome.LEARNED] * 2, (near_wrap, size)


def test_many_answers_in_one_segment_are_learned(learner: rig.Learner) -> None:
    """And out of the order of their questions, as resolvers may (RFC 7766 6.2.1.1)."""
    answers = [wire.answer(rig.NAME, wire.address(ONE + index), number=index) for index in range(40)]
    connection = connections.opened(learner)
    connection.ask(*map(wire.asked_by, answers))
    assert connection.send(Way.ANSWERS, 0, b"".join(map(wire.prefixed, reversed(answers))))
    assert connections.known(learner) == {str(ONE + index) for index in range(40)}


def test_what_was_seen_counts_once(learner: rig.Learner) -> None:
    """A retransmission passes, and of one that goes further what is new is read."""
    connection = connections.asked(learner)
    for begin, end in (
        (0, 10),
        (0, 10),
        (4, 20),
        (0, len(FIRST) - 1),
        (len(FIRST) - 3, len(FIRST) + 5),
        (0, 3),
    ):
        assert connection.send(Way.ANSWERS, begin, STREAM[begin:end])
    assert connections.known(learner) == {str(ONE)}
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == BOTH
    assert learner.outcomes() == [base.Outcome.LEARNED] * 2
    for offset in (0, 5000):
        assert connection.send(Way.ANSWERS, offset, b""), "acknowledgements"


def test_an_answer_that_overtakes_is_dropped_until_what_is_missing_has_come(learner: rig.Learner) -> None:
    before = learner.fqdn.counters()
    connection = connections.asked(learner)
    assert not connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert not connection.send(Way.ANSWERS, 20, STREAM[20:])
    assert connections.known(learner) == set()
    assert connection.send(Way.ANSWERS, 0, FIRST)
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connections.known(learner) == BOTH
    after = learner.fqdn.counters()
    assert (after["held"] - before["held"], after["split"] - before["split"]) == (2, 0)


def test_of_a_pod_that_no_policy_by_names_selects_nothing_is_dropped(learner: rig.Learner) -> None:
    learner.select(rig.ENDPOINT, by_names=False)
    before = learner.fqdn.counters()
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connection.send(Way.ANSWERS, 0, FIRST)
    assert connections.known(learner) == set()
    after = learner.fqdn.counters()
    assert (after["held"] - before["held"], after["split"] - before["split"]) == (0, 2)


def test_a_stream_that_does_not_go_on_is_given_up_and_passes(learner: rig.Learner) -> None:
    """So that no pod waits for ever; nothing more of it is read, for nobody knows where a message begins."""
    before = learner.fqdn.counters()
    connection = connections.asked(learner)
    for _ in range(HELD_MAX):
        assert not connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connection.send(Way.ANSWERS, len(FIRST), SECOND)
    assert connection.send(Way.ANSWERS, 0, FIRST)
    assert connections.known(learner) == set()
    after = learner.fqdn.counters()
    assert (after["held"] - before["held"], after["split"] - before["split"]) == (HELD_MAX, 2)


def test_every_step_forward_allows_as_many_drops_again(learner: rig.Learner) -> None:
    connection = connections.asked(learner)
    for begin in range(4):
        for _ in range(HELD_MAX):
            assert not connection.send(Way.ANSWERS, len(FIRST), SECOND)
        assert connection.send(Way.ANSWERS, begin, STREAM[begin : begin + 1])
    assert connection.send(Way.ANSWERS, 4, STREAM[4:])
    assert connections.known(learner) == BOTH


def test_a_query_that_overtakes_passes_and_is_remembered(learner: rig.Learner) -> None:
    """Nobody would send it again."""
    connection = connections.opened(learner)
    first = wire.prefixed(QUERY)
    assert connection.send(Way.QUERIES, len(first), ASKED[len(first) :])
    assert connection.send(Way.QUERIES, 0, first)
    third = wire.answer(rig.NAME, wire.address(ONE + 9), number=3)
    again = wire.prefixed(wire.asked_by(third))
    _deliver_from(connection, len(ASKED), again)
    assert connection.send(Way.ANSWERS, 0, STREAM + wire.prefixed(third))
    assert connections.known(learner) == {*BOTH, str(ONE + 9)}


def _deliver_from(connection: connections.Connection, offset: int, payload: bytes) -> None:
    for index, byte in enumerate(payload):
        assert connection.send(Way.QUERIES, offset + index, bytes([byte]))


def test_a_query_behind_a_hole_costs_its_asker_at_most(learner: rig.Learner) -> None:
    connection = connections.opened(learner)
    assert connection.send(Way.QUERIES, 7, ASKED[7:])
    assert connection.send(Way.QUERIES, 0, ASKED[:7])
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == set()


@pytest.mark.parametrize("size", [SEGMENT, 300, 1])
def test_of_an_answer_that_is_too_long_the_beginning_is_read_and_the_next_one_whole(
    learner: rig.Learner, size: int
) -> None:
    filler = wire.Record(type=wire.RRSIG, ttl=60, data=bytes(1000))
    unread = wire.address(ONE + 5)
    long = wire.answer(rig.NAME, wire.address(ONE), *(filler,) * 6, unread, number=1)
    stream = wire.prefixed(long) + SECOND
    before = learner.fqdn.counters()
    connection = connections.asked(learner)
    connections.deliver(connection, Way.ANSWERS, stream, size)
    assert connections.known(learner) == BOTH
    after = learner.fqdn.counters()
    assert after["too_long"] - before["too_long"] == 1
    first, second = learner.reader.read()
    assert (first.message, second.message) == (long[:4096], OTHER)


def test_an_answer_of_just_as_much_as_is_read_is_learned_whole(learner: rig.Learner) -> None:
    for length in (4095, 4096, 4097):
        learner.clear()
        empty = wire.answer(rig.NAME, wire.Record(type=wire.RRSIG, ttl=60, data=b""), wire.address(ONE), number=1)
        filler = wire.Record(type=wire.RRSIG, ttl=60, data=bytes(length - len(empty)))
        exact = wire.answer(rig.NAME, filler, wire.address(ONE), number=1)
        assert len(exact) == length
        connections.deliver(connections.asked(learner), Way.ANSWERS, wire.prefixed(exact), SEGMENT)
        assert connections.known(learner) == ({str(ONE)} if length <= 4096 else set())


@pytest.mark.parametrize("length", [0, 1, 11, 12])
def test_what_is_too_short_for_a_message_is_skipped(learner: rig.Learner, length: int) -> None:
    stream = wire.prefixed(bytes(length)) + FIRST
    for size in (1, len(stream)):
        learner.clear()
        connection = connections.opened(learner)
        queries = wire.prefixed(bytes(length)) + wire.prefixed(QUERY)
        connections.deliver(connection, Way.QUERIES, queries, size)
        connections.deliver(connection, Way.ANSWERS, stream, size)
        assert connections.known(learner) == {str(ONE)}


def test_a_port_may_be_used_again(learner: rig.Learner) -> None:
    """Whatever the connection before left there; its own late segments teach nothing."""
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 0, FIRST[:30])
    again = connections.Connection(
        learner=learner, port=connection.port, first={way: first - 5000 for way, first in connection.first.items()}
    )
    again.open()
    again.ask(QUERY, OTHER_QUERY)
    assert not connection.send(Way.ANSWERS, 30, FIRST[30:]), "ahead of what is there now"
    assert connections.known(learner) == set()
    connections.deliver(again, Way.ANSWERS, STREAM, 11)
    assert connections.known(learner) == BOTH


def test_a_syn_that_comes_twice_begins_nothing_anew(learner: rig.Learner) -> None:
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 0, STREAM[:30])
    connection.open()
    assert connection.send(Way.ANSWERS, 30, STREAM[30:])
    assert connections.known(learner) == BOTH


def test_a_query_on_a_syn_is_read(learner: rig.Learner) -> None:
    """TCP Fast Open (RFC 7413); a server that does not take it gets it again."""
    connection = connections.fresh(learner)
    assert connection.send(Way.QUERIES, -1, ASKED, flags=wire.SYN)
    connection.open()
    assert connection.send(Way.QUERIES, 0, ASKED)
    assert connection.send(Way.ANSWERS, 0, STREAM)
    assert connections.known(learner) == BOTH


@pytest.mark.parametrize("flags", [wire.FIN | wire.ACK, wire.RST])
def test_the_end_is_the_end_only_where_nothing_is_missing_before_it(learner: rig.Learner, flags: int) -> None:
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 500, b"", flags=flags)
    assert connection.send(Way.ANSWERS, 0, FIRST + SECOND[:5])
    assert connection.send(Way.ANSWERS, len(FIRST) + 5, b"", flags=flags)
    before = learner.fqdn.counters()["split"]
    assert connection.send(Way.ANSWERS, len(FIRST) + 5, SECOND[5:]), "of no stream any more"
    assert learner.fqdn.counters()["split"] == before + 1
    assert connections.known(learner) == {str(ONE)}


def test_an_answer_on_the_last_segment_is_read(learner: rig.Learner) -> None:
    connection = connections.asked(learner)
    assert connection.send(Way.ANSWERS, 0, STREAM[:30])
    assert connection.send(Way.ANSWERS, 30, STREAM[30:], flags=wire.FIN | wire.PUSH | wire.ACK)
    assert connections.known(learner) == BOTH


def test_a_pod_that_has_said_all_it_has_to_still_gets_answers(learner: rig.Learner) -> None:
    connection = connections.opened(learner)
    assert connection.send(Way.QUERIES, 0, ASKED, flags=wire.FIN | wire.PUSH | wire.ACK)
    connections.deliver(connection, Way.ANSWERS, STREAM, 10)
    assert connections.known(learner) == BOTH
