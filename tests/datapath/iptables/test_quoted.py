"""The program that compares an error's source with whom the quoted packet was for, run by an interpreter of its own."""

from __future__ import annotations

import ipaddress

import pytest

from agent.datapath.iptables import quoted
from agent.model import net
from tests.system.attacks import wire

POD, VICTIM, OTHER = "10.0.0.2", "10.0.0.3", "10.0.0.4"
HOP_BY_HOP = 0


def run(family: net.Family, packet: bytes) -> bool:
    """Interpret the program as the kernel does: a load beyond the packet ends it without a match."""
    steps = quoted.program(family)
    accumulator = index = at = 0
    while True:
        operation, if_true, if_false, operand = steps[at]
        at += 1
        if operation == quoted.RET:
            return operand == quoted.MATCH
        if operation in {quoted.JEQ, quoted.JEQ_X}:
            at += if_true if accumulator == (index if operation == quoted.JEQ_X else operand) else if_false
            continue
        begin = operand + (index if operation == quoted.LD_WORD_AT_X else 0)
        size = 4 if operation in {quoted.LD_WORD, quoted.LD_WORD_AT_X} else 1
        loaded = packet[begin : begin + size]
        if operation == quoted.TAX:
            index = accumulator
        elif len(loaded) < size:
            return False
        elif operation == quoted.LDX_HEADER_LENGTH:
            index = (loaded[0] & 15) * 4
        else:
            accumulator = int.from_bytes(loaded)


def six(address: str) -> str:
    """Return an IPv6 address that has the same bits as the IPv4 address in every word."""
    bits = int(ipaddress.IPv4Address(address))
    return str(ipaddress.IPv6Address(sum(bits << shift for shift in (0, 32, 64, 96))))


def error(family: net.Family, source: str, about: tuple[str, str]) -> bytes:
    name = str if family is net.Family.IPV4 else six
    quote = wire.ip((name(about[0]), name(about[1])), wire.UDP, bytes(8))
    kind, protocol = ((3, 3), wire.ICMP) if family is net.Family.IPV4 else ((1, 4), wire.ICMPV6)
    return wire.ip((name(source), name(VICTIM)), protocol, bytes([*kind]) + bytes(6) + quote)


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_only_an_error_from_whom_the_quoted_packet_was_for_matches(family: net.Family) -> None:
    assert run(family, error(family, POD, (VICTIM, POD)))
    assert not run(family, error(family, POD, (VICTIM, OTHER)))
    assert not run(family, error(family, POD, (POD, VICTIM)))


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_an_error_that_is_cut_short_matches_nothing(family: net.Family) -> None:
    whole = error(family, POD, (VICTIM, POD))
    assert not any(run(family, whole[:length]) for length in range(len(whole) - 8))


def test_every_word_of_an_ipv6_address_counts() -> None:
    whole = error(net.Family.IPV6, POD, (VICTIM, POD))
    for word in range(4):
        at = quoted.IPV6_HEADER + quoted.ICMP_HEADER + 24 + 4 * word
        assert not run(net.Family.IPV6, whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def test_options_of_ipv4_are_stepped_over() -> None:
    whole = error(net.Family.IPV4, POD, (VICTIM, POD))
    with_options = bytes([0x46]) + whole[1:20] + bytes(4) + whole[20:]
    assert run(net.Family.IPV4, with_options)
    assert not run(net.Family.IPV4, whole[:20] + bytes(4) + whole[20:])


def test_behind_extension_headers_nothing_matches_whatever_they_hold() -> None:
    """Its sender writes an extension header as it likes, also so that it looks like the quotation that is compared."""
    whole = error(net.Family.IPV6, POD, (VICTIM, POD))
    assert not run(net.Family.IPV6, whole[:6] + bytes([HOP_BY_HOP]) + whole[7:])
