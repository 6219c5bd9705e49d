"""What an answer teaches: F5 to F7, F14, F19 to F21 and F28, as the kernel decides them."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from agent.datapath import base
from tests.bpf.dns import rig, wire

pytestmark = pytest.mark.root

Outcome = base.Outcome
ONE, TWO = ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("203.0.113.8")
SIX = ipaddress.ip_address("2001:db8::7")


def test_the_address_of_a_name_with_a_rule_is_learned(learner: rig.Learner) -> None:
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE))) == {"203.0.113.7": 60}
    (learned,) = learner.learned()
    assert (learned.endpoint, learned.class_) == (rig.ENDPOINT, rig.API)


@pytest.mark.parametrize("resolver", [rig.RESOLVER4, rig.RESOLVER6, rig.LOCAL_CACHE], ids=str)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_every_resolver_is_read_by_udp_and_tcp_in_both_families(
    learner: rig.Learner, resolver: ipaddress.IPv4Address | ipaddress.IPv6Address, *, tcp: bool
) -> None:
    """F28, F29."""
    both = wire.answer(rig.NAME, wire.address(ONE), wire.address(SIX, 30))
    assert learner.resolve(both, resolver=resolver, tcp=tcp) == {"203.0.113.7": 60, "2001:db8::7": 30}


def test_only_the_name_that_was_asked_decides(learner: rig.Learner) -> None:
    """F5: an alias's target that has a rule opens nothing."""
    evil = wire.answer("evil.org", wire.alias(rig.NAME), wire.address(ONE, owner=wire.name(rig.NAME)))
    assert learner.resolve(evil) == {}
    assert learner.outcomes() == [Outcome.NO_RULE]


def test_a_chain_in_one_answer_opens_what_it_ends_at(learner: rig.Learner) -> None:
    """F5."""
    owner = wire.name("lb.cdn.example.net")
    chain = (wire.alias("x.example.net"), wire.alias("lb.cdn.example.net"), wire.address(ONE, owner=owner))
    assert learner.resolve(wire.answer(rig.NAME, *chain)) == {"203.0.113.7": 60}


def test_addresses_of_the_answer_section_alone_are_learned(learner: rig.Learner) -> None:
    """F6: neither hints nor the other sections."""
    hint = wire.Record(
        type=wire.HTTPS, ttl=60, data=struct.pack(">H", 1) + b"\0" + struct.pack(">HH", 4, 4) + TWO.packed
    )
    other = wire.Record(type=wire.A, ttl=60, data=TWO.packed, class_=wire.CHAOS)
    answer = wire.answer(
        rig.NAME, hint, other, wire.address(ONE), authority=(wire.address(TWO),), additional=(wire.address(TWO),)
    )
    assert learner.resolve(answer) == {"203.0.113.7": 60}


@pytest.mark.parametrize("code", [wire.NXDOMAIN, wire.SERVFAIL])
def test_an_error_neither_adds_nor_removes(learner: rig.Learner, code: int) -> None:
    """F7."""
    learner.resolve(wire.answer(rig.NAME, wire.address(ONE)))
    wrong = wire.answer(rig.NAME, wire.address(TWO), flags=wire.ANSWER_FLAGS | code)
    assert learner.resolve(wrong) == {"203.0.113.7": 60}
    assert learner.outcomes() == [Outcome.LEARNED, Outcome.NEGATIVE]


def test_no_data_neither_adds_nor_removes(learner: rig.Learner) -> None:
    """F7."""
    learner.resolve(wire.answer(rig.NAME, wire.address(ONE)))
    assert learner.resolve(wire.answer(rig.NAME, type_=wire.AAAA)) == {"203.0.113.7": 60}


def test_a_truncated_answer_teaches_what_it_has(learner: rig.Learner) -> None:
    """F28: the rest comes by TCP."""
    short = wire.answer(rig.NAME, wire.address(ONE), flags=wire.ANSWER_FLAGS | wire.TRUNCATED)
    assert learner.resolve(short) == {"203.0.113.7": 60}
    assert learner.resolve(wire.answer(rig.NAME, wire.address(TWO)), tcp=True).keys() == {"203.0.113.7", "203.0.113.8"}


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (wire.Record(type=wire.A, ttl=60, data=b"\1\2\3\4", length=400), "rdlength past the end"),
        (wire.Record(type=wire.A, ttl=60, data=b"\1\2\3"), "an address of three bytes"),
        (wire.Record(type=wire.AAAA, ttl=60, data=b"\1\2\3\4"), "an IPv6 address of four"),
        (wire.Record(type=wire.A, ttl=60, data=b"\1\2\3\4", owner=b"\x3f"), "an owner past the end"),
        (wire.Record(type=wire.A, ttl=60, data=b"\1\2\3\4", owner=b"\x80"), "a label of a kind that is none"),
        (wire.Record(type=wire.A, ttl=60, data=b"\1\2\3\4", owner=b"\1x" * 130), "an owner without an end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_comes_before_a_fault_is_learned_and_nothing_behind_it(
    learner: rig.Learner, fault: wire.Record, outcome: str
) -> None:
    """F14."""
    assert outcome
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE), fault, wire.address(TWO))) == {"203.0.113.7": 60}
    assert learner.outcomes() == [Outcome.MALFORMED]


def test_a_count_that_lies_teaches_what_there_is(learner: rig.Learner) -> None:
    """F14."""
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE), count=9)) == {"203.0.113.7": 60}
    assert learner.outcomes() == [Outcome.MALFORMED]
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE, 90), wire.address(TWO), count=1)) == {
        "203.0.113.7": 90
    }


@pytest.mark.parametrize(
    "question",
    [
        b"\xc0\x0c",
        b"\3api\xc0\x0c",
        b"\3api\7exam le\3com\0",
        b"\x0fapi\x80elpmaxe\x80moc\0",
        b"\x40" + b"a" * 64 + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + b"\1a\0",
    ],
    ids=["pointer", "pointer behind a label", "space", "forged separator", "label of 64", "name of 259"],
)
def test_a_name_that_is_none_teaches_nothing(learner: rig.Learner, question: bytes) -> None:
    """F14; not even to a rule for every name."""
    learner.know("", one=rig.API, more=rig.API)
    fixed = struct.pack(">6H", 0x1234, wire.ANSWER_FLAGS, 1, 1, 0, 0)
    message = fixed + question + struct.pack(">HH", wire.A, wire.IN) + wire.address(ONE).packed
    assert learner.resolve(message) == {}


@pytest.mark.parametrize("length", [0, 1, 11, 12, 13, 20, 30, 32])
def test_a_message_cut_off_teaches_nothing(learner: rig.Learner, length: int) -> None:
    """F14."""
    learner.ask(wire.query(rig.NAME))
    learner.reply(wire.answer(rig.NAME, wire.address(ONE))[:length])
    assert learner.seconds() == {}


def test_the_ttl_is_the_smallest_of_the_aliases_and_the_record(learner: rig.Learner) -> None:
    """F19: one record's does not shorten another's, and an alias behind the addresses counts, too."""
    records = (wire.alias("a.example.net", 300), wire.address(ONE, 20), wire.address(TWO, 90), wire.alias("b.net", 40))
    assert learner.resolve(wire.answer(rig.NAME, *records)) == {"203.0.113.7": 20, "203.0.113.8": 40}


def test_a_later_answer_never_shortens(learner: rig.Learner) -> None:
    """F19."""
    learner.resolve(wire.answer(rig.NAME, wire.address(ONE, 100)))
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE, 5))) == {"203.0.113.7": 100}
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE, 200))) == {"203.0.113.7": 200}


def test_a_short_ttl_counts_as_the_smallest_allowed_and_every_one_is_prolonged(learner: rig.Learner) -> None:
    """F19, F20."""
    learner.fqdn.store_ttl(min_ttl_s=30, grace_s=7)
    records = (wire.address(ONE, 0), wire.address(TWO, 60))
    assert learner.resolve(wire.answer(rig.NAME, *records)) == {"203.0.113.7": 37, "203.0.113.8": 67}


def test_a_ttl_with_the_highest_bit_counts_as_none(learner: rig.Learner) -> None:
    """F20 (RFC 2181 8)."""
    learner.fqdn.store_ttl(min_ttl_s=0, grace_s=7)
    assert learner.resolve(wire.answer(rig.NAME, wire.address(ONE, 0x80000000))) == {"203.0.113.7": 7}
    assert learner.resolve(wire.answer(rig.NAME, wire.address(TWO, 0x7FFFFFFF)))["203.0.113.8"] == 0x7FFFFFFF + 7


def test_a_hundred_addresses_in_one_answer_are_learned(learner: rig.Learner) -> None:
    """F21."""
    addresses = [ONE + index for index in range(100)]
    answer = wire.answer(rig.NAME, *(wire.address(one) for one in addresses))
    assert learner.resolve(answer, tcp=True).keys() == {str(one) for one in addresses}


def test_records_beyond_the_cap_are_counted(learner: rig.Learner) -> None:
    """F21: 256 of them are read; more fit only where they say nothing."""
    nothing = wire.Record(type=wire.NS, ttl=60, data=b"", owner=b"\0")
    before = learner.fqdn.counters()["too_many_records"]
    records = (*(nothing,) * 255, wire.address(ONE), wire.address(TWO))
    learned = learner.resolve(wire.answer(rig.NAME, *records))
    assert learned == {"203.0.113.7": 60}
    assert learner.fqdn.counters()["too_many_records"] == before + 1


def test_a_fragment_of_a_resolver_is_counted_and_not_read(learner: rig.Learner) -> None:
    before = learner.fqdn.counters()["fragmented"]
    learner.ask(wire.query(rig.NAME))
    frame = bytearray(
        wire.frame(rig.RESOLVER4, rig.POD4, (wire.PORT, rig.CLIENT_PORT), wire.answer(rig.NAME, wire.address(ONE)))
    )
    frame[20] = 0x20  # more fragments
    learner.run("nw_dns_answer", bytes(frame))
    assert learner.seconds() == {}
    assert learner.fqdn.counters()["fragmented"] == before + 1


def test_the_answer_is_told_as_the_pod_gets_it(learner: rig.Learner) -> None:
    known, unknown = wire.answer(rig.NAME, wire.address(ONE)), wire.answer("other.example.net", wire.address(TWO))
    learner.resolve(known)
    learner.resolve(unknown, resolver=rig.RESOLVER6)
    first, second = learner.reader.read()
    assert (first.endpoint, first.outcome, first.protocol) == (rig.ENDPOINT, Outcome.LEARNED, 17)
    assert (first.resolver, first.message) == (rig.RESOLVER4, known)
    assert (second.outcome, second.resolver, second.message) == (Outcome.NO_RULE, rig.RESOLVER6, unknown)
    assert learner.reader.read() == []


def test_a_ring_without_a_reader_costs_answers_that_are_counted_and_nothing_else(learner: rig.Learner) -> None:
    before = learner.fqdn.counters()["answers_lost"]
    answer = wire.answer(rig.NAME, *(wire.address(ONE + index) for index in range(200)))
    for _ in range(400):
        learner.exchange(answer)
    assert learner.fqdn.counters()["answers_lost"] > before
    assert len(learner.seconds()) == 200
    while learner.reader.read():
        pass
