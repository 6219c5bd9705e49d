"""What packets of DNS teach: requirements F5 to F7, F9, F11, F13, F14, F19, F20 and F28, without a kernel."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterable

import pytest

from agent.datapath.iptables import names_asked, names_book, names_reader
from agent.fqdn import classes, history, patterns
from agent.model import net
from tests.bpf import packets
from tests.bpf.dns import wire

POD, NEIGHBOUR = ipaddress.ip_address("10.0.0.5"), ipaddress.ip_address("10.0.0.6")
POD6, RESOLVER6 = ipaddress.ip_address("fd00::5"), ipaddress.ip_address("fd00::53")
RESOLVER, OTHER_RESOLVER = ipaddress.ip_address("10.96.0.10"), ipaddress.ip_address("8.8.8.8")
ENDPOINT, NEXT = 7, 8
PORT, NUMBER = 40_000, 0x1234
NAME, ADDRESS = "api.example.com", ipaddress.ip_address("203.0.113.7")
GRACE_S = 5
NOW_NS = 1_000_000_000_000
CLASSES = classes.build([[patterns.parse_cilium_name(NAME)]])
(CLASS,) = CLASSES.of(NAME)
SEQUENCE = 1000
SYN, ACK, FIN = 0x02, 0x10, 0x01


def family_of(address: net.Address) -> net.Family:
    return net.family_of(address)


def reader(*, grace_s: int = GRACE_S) -> names_reader.Reader:
    made = names_reader.Reader()
    made.names = names_reader.Names(
        endpoints={POD: ENDPOINT, POD6: ENDPOINT, NEIGHBOUR: NEXT},
        resolvers=frozenset({RESOLVER, RESOLVER6}),
        classes=(CLASSES,),
        lifetimes=history.Lifetimes(grace_s=grace_s),
    )
    return made


def asked(pod: net.Address = POD, resolver: net.Address = RESOLVER, content: bytes | None = None) -> bytes:
    return packets.udp(pod, resolver, names_reader.PORT, payload=content or wire.query(NAME), sport=PORT)


def answered(
    *records: wire.Record,
    pod: net.Address = POD,
    resolver: net.Address = RESOLVER,
    port: int = PORT,
    name: str = NAME,
    number: int = NUMBER,
    flags: int = wire.ANSWER_FLAGS,
) -> bytes:
    content = wire.answer(name, *(records or (wire.address(ADDRESS),)), number=number, flags=flags)
    return packets.udp(resolver, pod, port, payload=content, sport=names_reader.PORT)


def entry(expires_s: int, address: net.Address = ADDRESS, endpoint: int = ENDPOINT) -> names_book.Entry:
    return names_book.Entry(endpoint, CLASS, address, NOW_NS + expires_s * history.SECOND_NS)


def read(made: names_reader.Reader, packet: bytes, family: net.Family = net.Family.IPV4) -> names_reader.Reading:
    return made.read(family, packet, NOW_NS)


def test_an_answer_teaches_the_pod_that_asked() -> None:
    made = reader()
    assert read(made, asked()) == names_reader.NOTHING
    found = read(made, answered())
    assert found.entries == (entry(60 + GRACE_S),)
    assert [(one.endpoint, one.time_ns) for one in found.told] == [(ENDPOINT, NOW_NS)]
    assert (made.counters()["queries"], made.counters()["learned"]) == (1, 1)


def test_both_families_are_read() -> None:
    """F6: an AAAA record, asked for over IPv6."""
    made, six = reader(), ipaddress.ip_address("2001:db8::7")
    read(made, asked(POD6, RESOLVER6), net.Family.IPV6)
    found = read(made, answered(wire.address(six), pod=POD6, resolver=RESOLVER6), net.Family.IPV6)
    assert found.entries == (entry(60 + GRACE_S, six),)


def test_a_second_copy_of_an_answer_teaches_nothing() -> None:
    """F13."""
    made = reader()
    read(made, asked())
    read(made, answered())
    assert read(made, answered()) == names_reader.NOTHING
    assert made.counters()["unasked"] == 1


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (answered(number=1), "unasked"),
        (answered(port=PORT + 1), "unasked"),
        (answered(name="other.example.com"), "unasked"),
        (answered(pod=NEIGHBOUR), "unasked"),
        (answered(resolver=OTHER_RESOLVER), "untrusted"),
        (answered()[:-1], "negative"),
        (answered(flags=wire.ANSWER_FLAGS | wire.NXDOMAIN), "negative"),
    ],
    ids=["wrong id", "wrong port", "wrong name", "another pod", "untrusted server", "cut", "no such domain"],
)
def test_what_nobody_believes_teaches_nothing(packet: bytes, counter: str) -> None:
    """F7, F9, F11, F13, F14."""
    made = reader()
    read(made, asked())
    assert read(made, packet).entries == ()
    assert made.counters()[counter] == 1


def test_the_name_is_found_in_any_case() -> None:
    made = reader()
    read(made, asked(content=wire.query("API.example.COM")))
    assert read(made, answered(name="api.EXAMPLE.com")).entries


def test_aliases_shorten_and_a_ttl_of_nothing_lasts_for_the_grace() -> None:
    """F5, F19, F20."""
    made = reader()
    read(made, asked())
    chain = (wire.alias("elsewhere.test", 3), wire.address(ADDRESS, 1 << 31))
    assert read(made, answered(*chain)).entries == (entry(GRACE_S),)


def test_a_name_without_a_rule_is_told_and_not_learned() -> None:
    """F10, F26: history hears of it."""
    made = reader()
    read(made, asked(content=wire.query("other.test")))
    found = read(made, answered(name="other.test"))
    assert (found.entries, len(found.told)) == ((), 1)


def test_classes_that_will_count_are_learned_beside_those_that_do() -> None:
    made = reader()
    second = classes.build([[patterns.parse_cilium_pattern("*.example.com")]])
    made.names = names_reader.Names(
        endpoints=made.names.endpoints, resolvers=made.names.resolvers, classes=(CLASSES, second)
    )
    read(made, asked())
    assert {one.class_number for one in read(made, answered()).entries} == {CLASS, *second.of(NAME)}


def segment(content: bytes, *, sequence: int, flags: int = ACK, answers: bool = True) -> bytes:
    ends = (RESOLVER, POD) if answers else (POD, RESOLVER)
    ports = (names_reader.PORT, PORT) if answers else (PORT, names_reader.PORT)
    header = struct.pack(">HHIIBBHHH", *ports, sequence, 1, 0x50, flags, 1000, 0, 0)
    return packets.ipv4(*ends, names_reader.TCP, header + content)


def by_tcp(made: names_reader.Reader, parts: Iterable[tuple[int, bytes]]) -> list[names_book.Entry]:
    """Have a question asked and answered over a connection, the answer in parts by their place in the stream."""
    read(made, segment(b"", sequence=5, flags=SYN, answers=False))
    read(made, segment(b"", sequence=SEQUENCE, flags=SYN | ACK))
    read(made, segment(wire.prefixed(wire.query(NAME)), sequence=6, answers=False))
    return [
        one for offset, content in parts for one in read(made, segment(content, sequence=SEQUENCE + 1 + offset)).entries
    ]


@pytest.mark.parametrize("size", [1, 3, 20, 5000])
def test_an_answer_over_any_number_of_segments_is_learned(size: int) -> None:
    """F28."""
    content = wire.prefixed(wire.answer(NAME, wire.address(ADDRESS)))
    parts = [(begin, content[begin : begin + size]) for begin in range(0, len(content), size)]
    assert by_tcp(reader(), parts) == [entry(60 + GRACE_S)]
    assert by_tcp(reader(), parts[::-1]) == [entry(60 + GRACE_S)]


def test_a_connection_whose_beginning_was_not_seen_teaches_nothing() -> None:
    made = reader()
    content = wire.prefixed(wire.answer(NAME, wire.address(ADDRESS)))
    read(made, asked())
    assert read(made, segment(content, sequence=9)) == names_reader.NOTHING
    assert made.counters()["split"] == 1


def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_asked, "ASKED_MAX", 1)
    made = reader()
    read(made, asked())
    read(made, asked(NEIGHBOUR))
    assert read(made, answered()).entries == ()
    assert read(made, answered(pod=NEIGHBOUR)).entries
    assert made.counters()["questions_evicted"] == 1


def test_no_bytes_raise_anything() -> None:
    """F14."""
    chance = random.Random(7)
    made = reader()
    whole = [asked(), answered(), segment(b"", sequence=1, flags=SYN), segment(bytes(30), sequence=2)]
    for _ in range(3000):
        mutated = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        for family in net.Family:
            made.read(family, bytes(mutated[: chance.randrange(len(mutated) + 1)]), NOW_NS)
