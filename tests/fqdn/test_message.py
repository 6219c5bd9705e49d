"""What history reads in an answer is what the kernel learned from it (requirements F5 to F7, F14, F19, F20)."""

from __future__ import annotations

import ipaddress
import itertools

import hypothesis
import pytest
from hypothesis import strategies as st

from agent.fqdn import history, message
from tests.bpf.dns import mutants, reference, wire
from tests.fqdn import naming

FOUR, SIX = ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("2001:db8::7")
NAME = "api.example.com"
ROUNDS = 4000


def test_addresses_are_read_with_their_ttls_and_the_name_is_the_question_s() -> None:
    """F5, F6: whoever owns the records, and nothing from the other sections."""
    owner = wire.name("cdn.example.net")
    answer = wire.answer(
        "API.Example.com",
        wire.alias("cdn.example.net", 30),
        wire.address(FOUR, 60, owner=owner),
        wire.address(SIX, 20, owner=owner),
        authority=(wire.address(FOUR + 1),),
        additional=(wire.address(FOUR + 2),),
    )
    assert message.read(answer) == message.Told("API.Example.com", ((FOUR, 60), (SIX, 20)), (30,))


def test_an_answer_becomes_history_only_if_it_has_addresses() -> None:
    """F7."""
    answer = wire.answer(NAME, wire.address(FOUR, 60))
    told = message.answered(answer, endpoint=7, at_ns=1)
    assert told is not None
    assert (told.endpoint, told.name, told.addresses, told.at_ns) == (7, NAME, ((FOUR, 60),), 1)
    for nothing in (
        wire.answer(NAME),
        wire.answer(NAME, wire.address(FOUR), flags=wire.ANSWER_FLAGS | wire.NXDOMAIN),
        wire.answer(NAME, wire.address(FOUR), flags=wire.ANSWER_FLAGS | wire.SERVFAIL),
        wire.answer(NAME, wire.Record(type=wire.HTTPS, ttl=60, data=bytes(20))),
        wire.query(NAME),
    ):
        assert message.answered(nothing, endpoint=7, at_ns=1) is None


def test_a_mapped_address_is_the_ipv4_one() -> None:
    """Rule A24: the kernel has one key for both."""
    mapped = ipaddress.IPv6Address("::ffff:203.0.113.7")
    told = message.read(wire.answer(NAME, wire.address(mapped, 60)))
    assert told is not None
    assert told.addresses == ((FOUR, 60),)


def test_a_dot_within_a_label_makes_no_other_name() -> None:
    """F14: `api.example` as one label is not `api` below `example`."""
    forged = wire.answer("x.com", wire.address(FOUR)).replace(b"\1x\3com", b"\5x.com")
    assert message.read(forged) is None


def test_spoiled_answers_are_read_as_by_another_reader() -> None:
    """F14: no more than can be read, and no less."""
    lifetimes = history.Lifetimes(grace_s=0)
    for answer in itertools.islice(mutants.mutants(7), ROUNDS):
        told = message.read(answer)
        found: dict[str, int] = {}
        for address, ttl_s in told.addresses if told is not None and told.name.lower() in mutants.NAMES else ():
            seconds = lifetimes.expires_ns(0, ttl_s, told.alias_ttls_s if told is not None else ()) // history.SECOND_NS
            found[str(address)] = max(seconds, found.get(str(address), 0))
        assert found == reference.taught(answer, mutants.NAMES), answer


@naming.SPARING
@hypothesis.given(st.binary(max_size=80))
def test_no_bytes_are_an_error(raw: bytes) -> None:
    """CVE-2025-23028 was one: an answer that ends the agent."""
    message.read(raw)
    message.read(wire.answer(NAME, wire.address(FOUR))[:40] + raw)


@pytest.mark.parametrize(
    ("message_", "asked"),
    [
        (wire.query("Api.Example.com"), ("Api.Example.com.", "A")),
        (wire.query("x", type_=65280), ("x.", "TYPE65280")),
        (wire.query(""), (".", "A")),
        (wire.query("e\x1b[1m.b"), ("e\\027[1m.b.", "A")),
        (wire.query("a b\\.\xff"), ("a\\032b\\\\.\\255.", "A")),
    ],
)
def test_what_is_asked_is_shown_as_zone_files_have_it(message_: bytes, asked: tuple[str, str]) -> None:
    """RFC 1035 5.1, RFC 3597: a pod may write any byte, and no terminal acts on it."""
    assert message.asked(message_) == asked


@hypothesis.given(st.binary(max_size=600))
def test_what_is_asked_is_bounded_and_printable_whatever_the_bytes(content: bytes) -> None:
    asked = message.asked(content)
    assert asked is None or (asked.name.isascii() and asked.name.isprintable() and len(asked.name) <= 4 * 330)
