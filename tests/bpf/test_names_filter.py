"""The programs that iptables asks for names, run on packets by the live maps: what matches and what does not."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from agent import desired
from agent.datapath.bpf import names_filter, syscalls
from agent.model import identity, net
from tests.bpf import by_name, conftest, packets, states
from tests.bpf import learned as learned_
from tests.bpf import node as node_

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
FILTER = 77
CLASS, RULE = identity.FIRST_NAME_CLASS + 9, 7002
POD = states.endpoint_of(0)
ETHERNET = bytes(12)
BUDGET = 60_000
"""Instructions the verifier may look at; the kernel allows a million."""
TEST_RUNS = 20_000
SLOWEST_NANOSECONDS = 5_000
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@dataclasses.dataclass(frozen=True, slots=True)
class Filters:
    """The programs over the rig's maps."""

    rig: conftest.Rig
    pins: pathlib.Path
    learned: learned_.Learned

    def matches(self, name: str, packet: bytes) -> bool:
        """Run one on a packet, which begins with its network header."""
        kind = 0x0800 if packet[:1] and packet[0] >> 4 == 4 else 0x86DD
        with syscalls.owned(syscalls.open_pin(self.pins / name)) as program:
            return bool(syscalls.program_test_run(program, ETHERNET + kind.to_bytes(2, "big") + packet).verdict)

    def ends(self, family: int) -> tuple[net.Address, net.Address]:
        """Return the pod's address and the outside host's."""
        return node_.addresses(self.rig.node.pods[0])[family], node_.addresses(self.rig.node.outside)[family]


@pytest.fixture
def filters(rig: conftest.Rig) -> Filters:
    pins = rig.datapath._program_directory()
    names_filter.load(map_pins=rig.datapath._pins, program_pins=pins)
    known = learned_.Learned(rig.datapath._maps.descriptor("fqdn_learned"))
    known.clear()
    return Filters(rig, pins, known)


def _apply(filters: Filters, *, held: bool = False, row: desired.Row | None = None, named: bool = True) -> None:
    """Isolate the first pod for egress; a name opens PORT by UDP. `row` is what the set says of the world."""
    state = states.pods(filters.rig.node, egress={}, held=frozenset({0} if held else ()))
    rows = {desired.RowKey(CLASS, states.UDP, PORT, 16): desired.Row(desired.Action.ALLOW, RULE, 5)} if named else {}
    if row is not None:
        rows[desired.RowKey(identity.WORLD, desired.ANY_PROTOCOL, 0, 0)] = row
    found = dataclasses.replace(state.sets[states.EGRESS_SET], rows=rows)
    filters.rig.datapath.apply(
        dataclasses.replace(state, sets={**state.sets, found.id: found}, filters={FILTER: frozenset()})
    )


@FAMILIES
def test_each_way_of_a_connection_is_asked_of_its_own_program(filters: Filters, family: int) -> None:
    """F17: one that is open counts past its name's expiry where conntrack knows where it ends; datagrams do not."""
    client, server = filters.ends(family)
    _apply(filters)
    there, back = packets.udp(client, server, PORT, sport=2000), packets.udp(server, client, 2000, sport=PORT)
    asked = {names_filter.NEW: there, names_filter.OPEN: there, names_filter.REPLY: back}
    assert not any(filters.matches(name, packet) for name, packet in asked.items())
    filters.learned.put(POD, server, {CLASS: learned_.VALID_S})
    assert all(filters.matches(name, packet) for name, packet in asked.items())
    assert not filters.matches(names_filter.NEW, back)
    assert not filters.matches(names_filter.REPLY, there)
    assert not filters.matches(names_filter.NEW, packets.udp(client, server, OTHER, sport=2000))
    filters.learned.put(POD, server, {CLASS: learned_.EXPIRED_S})
    assert not any(filters.matches(name, packet) for name, packet in asked.items())


@pytest.mark.parametrize(
    ("row", "matches"),
    [
        (desired.Row(desired.Action.ALLOW, 7003, 2), False),
        (desired.Row(desired.Action.DENY, 7003, 4), False),
        (desired.Row(desired.Action.DENY, 7003, 6), True),
        (desired.Row(desired.Action.DENY, 7003, 6, passed=4), False),
        (None, True),
    ],
    ids=["allowed without", "denied first", "denied later", "passed first", "default"],
)
def test_a_name_is_asked_where_rows_deny_and_heeds_ranks(
    filters: Filters, row: desired.Row | None, *, matches: bool
) -> None:
    client, server = filters.ends(0)
    filters.learned.put(POD, server, {CLASS: learned_.VALID_S})
    _apply(filters, row=row)
    assert filters.matches(names_filter.NEW, packets.udp(client, server, PORT)) is matches


def test_a_row_with_a_filter_allows_where_queries_are_read(filters: Filters) -> None:
    """Rules cannot say it: where nobody reads what an endpoint asks for, what a filter restricts is denied."""
    client, server = filters.ends(0)
    packet = packets.udp(client, server, OTHER)
    row = desired.Row(desired.Action.ALLOW, 7003, asks=FILTER)
    try:
        for reading in (by_name.sandboxes(filters.rig.node), ()):
            filters.rig.datapath.attach_links(reading)
            _apply(filters, row=row)
            assert filters.matches(names_filter.NEW, packet) is bool(reading)
            assert filters.matches(names_filter.OPEN, packet) is bool(reading)
    finally:
        filters.rig.datapath.attach_links(())


def test_neither_who_is_held_nor_who_has_no_names_nor_anybody_else_matches(filters: Filters) -> None:
    client, server = filters.ends(0)
    filters.learned.put(POD, server, {CLASS: learned_.VALID_S})
    packet = packets.udp(client, server, PORT)
    _apply(filters, held=True)
    assert not filters.matches(names_filter.NEW, packet)
    _apply(filters, named=False)
    assert not filters.matches(names_filter.NEW, packet)
    _apply(filters)
    assert filters.matches(names_filter.NEW, packet)
    assert not filters.matches(
        names_filter.NEW, packets.udp(node_.addresses(filters.rig.node.pods[1])[0], server, PORT)
    )


@FAMILIES
def test_a_packet_that_is_cut_off_anywhere_is_none_that_a_name_allows(filters: Filters, family: int) -> None:
    client, server = filters.ends(family)
    filters.learned.put(POD, server, {CLASS: learned_.VALID_S})
    _apply(filters)
    packet = packets.udp(client, server, PORT)
    header = (20, 40)[family]
    sizes = range(header, len(packet) + 1)  # the kernel runs no test on less than a header
    shortest = next(size for size in sizes if filters.matches(names_filter.NEW, packet[:size]))
    assert shortest == header + 4, "the ports"


def test_they_stay_in_their_budget_of_the_verifier_and_of_time(filters: Filters) -> None:
    client, server = filters.ends(1)
    _apply(filters)
    packet = ETHERNET + b"\x86\xdd" + packets.udp(client, server, PORT)
    for name in names_filter.PROGRAMS:
        with syscalls.owned(syscalls.open_pin(filters.pins / name)) as program:
            assert 0 < syscalls.program_info(program).verified_instructions < BUDGET
            assert syscalls.program_test_run(program, packet, repeat=TEST_RUNS).nanoseconds < SLOWEST_NANOSECONDS
