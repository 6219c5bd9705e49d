"""Whose answers are believed: F11 and F13, as the kernel decides them (F12 and F12b need interfaces: test_live.py)."""

from __future__ import annotations

import ipaddress
import struct
import time

import pytest

from agent.datapath.bpf import dns_loader, fqdn_layout, rows
from tests.bpf.dns import rig, wire

pytestmark = pytest.mark.root

ONE, TWO = ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("203.0.113.8")
ANSWER = wire.answer(rig.NAME, wire.address(ONE))
QUERY = wire.query(rig.NAME)


def test_an_answer_of_a_stranger_teaches_nothing(learner: rig.Learner) -> None:
    """F11: asked or not."""
    before = learner.fqdn.counters()["untrusted"]
    learner.ask(QUERY, resolver=rig.STRANGER)
    learner.reply(ANSWER, resolver=rig.STRANGER)
    assert learner.seconds() == {}
    assert learner.fqdn.counters()["untrusted"] == before + 1


def test_a_resolver_that_is_trusted_no_more_teaches_nothing(learner: rig.Learner) -> None:
    """F11."""
    learner.ask(QUERY)
    learner.fqdn.trust([rig.RESOLVER6])
    learner.reply(ANSWER)
    assert learner.seconds() == {}


@pytest.mark.parametrize(
    ("answer", "port", "resolver"),
    [
        (wire.answer(rig.NAME, wire.address(ONE), number=0x1235), rig.CLIENT_PORT, rig.RESOLVER4),
        (ANSWER, rig.CLIENT_PORT + 1, rig.RESOLVER4),
        (ANSWER, rig.CLIENT_PORT, rig.LOCAL_CACHE),
        (wire.answer(rig.NAME, wire.address(ONE), type_=wire.AAAA), rig.CLIENT_PORT, rig.RESOLVER4),
        (wire.answer("api.example.org", wire.address(ONE)), rig.CLIENT_PORT, rig.RESOLVER4),
    ],
    ids=["number", "port", "resolver", "type", "name"],
)
def test_an_answer_to_another_question_teaches_nothing_and_the_true_one_still_does(
    learner: rig.Learner, answer: bytes, port: int, resolver: ipaddress.IPv4Address
) -> None:
    """F13."""
    learner.know("api.example.org", exact=rig.API)
    before = learner.fqdn.counters()["unasked"]
    learner.ask(QUERY)
    learner.reply(answer, port=port, resolver=resolver)
    assert learner.seconds() == {}
    assert learner.fqdn.counters()["unasked"] == before + 1
    learner.reply(ANSWER)
    assert learner.seconds() == {"203.0.113.7": 60}


def test_an_answer_that_nobody_asked_for_teaches_nothing(learner: rig.Learner) -> None:
    """F13."""
    learner.reply(ANSWER)
    assert learner.seconds() == {}
    assert learner.reader.read() == []


def test_a_second_copy_teaches_nothing_new(learner: rig.Learner) -> None:
    """F13: a query is used up by its answer."""
    learner.resolve(ANSWER)
    learner.reply(wire.answer(rig.NAME, wire.address(TWO)))
    assert learner.seconds() == {"203.0.113.7": 60}


def test_a_query_by_udp_is_not_answered_by_tcp(learner: rig.Learner) -> None:
    """F13."""
    learner.ask(QUERY)
    learner.reply(ANSWER, tcp=True)
    assert learner.seconds() == {}


def test_an_answer_that_comes_when_nobody_waits_any_more_teaches_nothing(learner: rig.Learner) -> None:
    """F13."""
    learner.ask(QUERY)
    descriptor = learner.fqdn.descriptor("fqdn_pending")
    ((key, value),) = rows.dump(descriptor)
    question, asked_ns = fqdn_layout.PENDING_VALUE.unpack(value)
    assert asked_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    rows.update(descriptor, key, fqdn_layout.PENDING_VALUE.pack(question, asked_ns - 31 * 10**9))
    learner.reply(ANSWER)
    assert learner.seconds() == {}


def test_the_case_of_letters_does_not_matter(learner: rig.Learner) -> None:
    """F1: resolvers may change it at random to make forging harder."""
    learner.ask(wire.query("API.Example.com"))
    learner.reply(wire.answer("aPi.eXample.COM", wire.address(ONE)))
    assert learner.seconds() == {"203.0.113.7": 60}


@pytest.mark.parametrize(
    "message",
    [
        wire.answer(rig.NAME, wire.address(ONE)),
        wire.query(rig.NAME, flags=0x2100),
        QUERY[:4] + struct.pack(">H", 2) + QUERY[6:],
        QUERY[:-1],
    ],
    ids=["an answer", "a status request", "two questions", "cut off"],
)
def test_what_is_no_query_is_not_remembered(learner: rig.Learner, message: bytes) -> None:
    before = learner.fqdn.counters()["queries"]
    learner.ask(message)
    assert learner.fqdn.counters()["queries"] == before
    assert list(rows.dump(learner.fqdn.descriptor("fqdn_pending"))) == []


def test_an_interface_that_is_no_endpoints_is_not_looked_at(learner: rig.Learner) -> None:
    learner.be(0)
    assert learner.resolve(ANSWER) == {}
    assert list(rows.dump(learner.fqdn.descriptor("fqdn_pending"))) == []


def test_what_one_pod_learns_and_asks_is_not_anothers(learner: rig.Learner) -> None:
    """F9."""
    learner.ask(QUERY)
    learner.be(rig.NEIGHBOUR)
    learner.reply(ANSWER)
    assert learner.learned() == []
    learner.resolve(ANSWER)
    assert [one.endpoint for one in learner.learned()] == [rig.NEIGHBOUR]


@pytest.mark.parametrize("program", [dns_loader.QUERY, dns_loader.ANSWER])
@pytest.mark.parametrize("length", [34, 35, 41, 42, 50])
def test_a_frame_that_ends_anywhere_passes(learner: rig.Learner, program: str, length: int) -> None:
    """F14; the kernel runs programs on no shorter ones."""
    frame = wire.frame(rig.RESOLVER4, rig.POD4, (wire.PORT, wire.PORT), ANSWER)
    learner.run(program, frame[:length])
    assert learner.seconds() == {}
