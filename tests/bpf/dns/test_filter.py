"""Which queries a filter lets a pod send, and what becomes of all else that it sends there (rule E17)."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from agent import desired
from agent.datapath import base, plan
from agent.datapath.bpf import fqdn_layout
from agent.model import fqdn, net
from tests.bpf import packets
from tests.bpf.dns import filtering, rig, wire
from tests.bpf.dns.filtering import DROPPED, PASSED, REDIRECTED

pytestmark = pytest.mark.root

GROUP, ROUTERS = ipaddress.ip_address("ff02::16"), ipaddress.ip_address("fe80::a")
RESTRICTED = [rig.RESOLVER4, rig.RESOLVER6, filtering.DNS_POD4, filtering.DNS_POD6]
QUERY = wire.query(filtering.OTHER)
HOP_BY_HOP, ROUTING, AUTHENTICATION = 0, 43, 51
ADMITTED_ALSO = 0x80000077


def told(learner: rig.Learner) -> list[base.Outcome]:
    return [answer.outcome for answer in learner.reader.read()]


@pytest.mark.parametrize("resolver", RESTRICTED, ids=str)
@pytest.mark.parametrize("name", [rig.NAME, rig.NAME.upper(), f"{rig.NAME}."])
def test_a_name_of_the_filter_may_be_asked_for(pod: rig.Learner, resolver: net.Address, name: str) -> None:
    frame = filtering.asking(name, resolver)
    assert filtering.sent(pod, frame) == filtering.Done(PASSED, frame)
    assert told(pod) == []


def test_what_may_be_asked_is_remembered_and_what_may_not_is_not(pod: rig.Learner) -> None:
    filtering.sent(pod, filtering.asking(filtering.OTHER))
    assert filtering.remembered(pod) == 0
    filtering.sent(pod, filtering.asking(rig.NAME))
    assert filtering.remembered(pod) == 1


@pytest.mark.parametrize("resolver", RESTRICTED, ids=str)
@pytest.mark.parametrize("name", [filtering.OTHER, f"x.{rig.NAME}", "example.com", "com", ""])
def test_another_name_is_refused_at_once(pod: rig.Learner, resolver: net.Address, name: str) -> None:
    """By an answer that is right to the last bit of its checksums."""
    frame = filtering.asking(name, resolver)
    refused = filtering.refusal_of(frame, filtering.REFUSED)
    assert filtering.sent(pod, frame) == filtering.Done(REDIRECTED, refused)
    assert told(pod) == [base.Outcome.REFUSED]


@pytest.mark.parametrize(
    "message",
    [
        wire.query(filtering.OTHER, flags=0x0010),
        wire.query(filtering.OTHER, flags=0x0720),
        QUERY[:-2] + struct.pack(">H", wire.CHAOS),
        wire.query("what/is this"),
        QUERY[:12] + b"\xc0\x0c" + QUERY[-4:],
        QUERY[:20],
        QUERY + wire.Record(type=41, ttl=0, data=b"\0\x0a\0\x08cookie!!", owner=b"\0", class_=1232).packed,
    ],
    ids=["checking disabled", "strange flags", "class", "letters", "a pointer", "cut off", "EDNS"],
)
def test_whatever_is_asked_is_sent_back_as_it_was_asked(pod: rig.Learner, message: bytes) -> None:
    frame = filtering.frame(message)
    refused = filtering.refusal_of(frame, filtering.REFUSED)
    assert filtering.sent(pod, frame) == filtering.Done(REDIRECTED, refused)


def test_a_datagram_without_a_checksum_is_answered_without_one(pod: rig.Learner) -> None:
    frame = filtering.frame(QUERY, summed=False)
    done = filtering.sent(pod, frame)
    assert done.frame == filtering.refusal_of(frame, filtering.REFUSED)
    assert done.frame[14 + 26 : 14 + 28] == bytes(2)


def test_a_header_with_options_is_sent_back_whole(pod: rig.Learner) -> None:
    datagram = packets.udp(rig.POD4, rig.RESOLVER4, wire.PORT, payload=QUERY)[20:]
    packet = packets.ipv4(rig.POD4, rig.RESOLVER4, packets.UDP, datagram, options=b"\x94\x04\0\0")
    frame = filtering.ethernet(packet)
    refused = filtering.refusal_of(frame, filtering.REFUSED)
    assert filtering.sent(pod, frame) == filtering.Done(REDIRECTED, refused)


def test_the_answer_may_be_that_there_is_no_such_name_or_none(pod: rig.Learner) -> None:
    """A search list goes on after NXDOMAIN; musl's resolver stops at REFUSED."""
    frame = filtering.asking(filtering.OTHER)
    pod.fqdn.store_reject(fqdn.Reject.NAME_ERROR)
    assert filtering.sent(pod, frame).frame == filtering.refusal_of(frame, filtering.NO_SUCH_NAME)
    pod.fqdn.store_reject(fqdn.Reject.DROP)
    assert filtering.sent(pod, frame) == filtering.Done(DROPPED, frame)
    assert told(pod) == [base.Outcome.REFUSED] * 2


def _with_length(length: int) -> bytes:
    """Return the frame of an allowed query whose UDP header lies."""
    frame = bytearray(filtering.asking(rig.NAME))
    frame[38:40] = length.to_bytes(2, "big")
    return bytes(frame)


ALLOWED = wire.query(rig.NAME)


@pytest.mark.parametrize(
    "frame",
    [
        filtering.frame(wire.answer(rig.NAME)),
        filtering.frame(wire.query(rig.NAME, flags=0x2100)),
        filtering.frame(ALLOWED[:4] + struct.pack(">H", 2) + ALLOWED[6:]),
        filtering.frame(ALLOWED[:4] + struct.pack(">H", 0) + ALLOWED[6:]),
        filtering.frame(ALLOWED[:11]),
        filtering.frame(b""),
        _with_length(8 + len(ALLOWED) - 1),
        _with_length(8 + len(ALLOWED) + 1),
        _with_length(0),
        filtering.asking(rig.NAME) + b"x",
    ],
    ids=[
        *("an answer", "a status request", "two questions", "none", "no header", "nothing"),
        *("more than it says", "less than it says", "no length", "trailer"),
    ],
)
def test_what_is_no_query_is_dropped(pod: rig.Learner, frame: bytes) -> None:
    """Nothing else goes where only queries may; what an Ethernet trailer has is no part of the packet."""
    trailer = frame.endswith(b"x")
    assert filtering.sent(pod, frame) == filtering.Done(PASSED if trailer else DROPPED, frame)
    assert told(pod) == ([] if trailer else [base.Outcome.REFUSED])


def test_a_query_as_long_as_can_be_read_is_read_whole(pod: rig.Learner) -> None:
    frame = filtering.frame(ALLOWED.ljust(1400, b"\0"))
    assert filtering.sent(pod, frame).action == PASSED


def test_by_another_protocol_nothing_passes(pod: rig.Learner) -> None:
    """Rows of a filter are of UDP; should there be others, a stream can be cut so that nobody can tell what it asks."""
    pod.node.upsert(
        plan.Table.POLICY, {filtering.row_key(filtering.EGRESS, filtering.RESTRICTED, protocol=6): filtering.allowing()}
    )
    segment = wire.segment(rig.POD4, filtering.DNS_POD4, (rig.CLIENT_PORT, wire.PORT), wire.prefixed(ALLOWED))
    assert filtering.sent(pod, segment) == filtering.Done(DROPPED, segment)
    (record,) = pod.reader.read()
    assert (record.outcome, record.protocol, record.message) == (base.Outcome.REFUSED, 6, b"")


@pytest.mark.parametrize(
    ("receiver", "port"),
    [
        (filtering.FREE_POD4, wire.PORT),
        (filtering.FREE_POD6, wire.PORT),
        (filtering.DNS_POD4, 5300),
        (rig.RESOLVER6, 5300),
        (rig.STRANGER, wire.PORT),
    ],
    ids=str,
)
def test_what_goes_elsewhere_is_not_looked_at(pod: rig.Learner, receiver: net.Address, port: int) -> None:
    """Whether it may go there is for those who judge packets."""
    frame = filtering.frame(b"anything", receiver, port=port)
    assert filtering.sent(pod, frame) == filtering.Done(PASSED, frame)
    assert told(pod) == []


@pytest.mark.parametrize("receiver", [filtering.DNS_POD4, filtering.DNS_POD6], ids=str)
def test_a_filter_holds_for_the_port_that_its_row_names(pod: rig.Learner, receiver: net.Address) -> None:
    key = filtering.row_key(filtering.EGRESS, filtering.RESTRICTED, port=5300)
    pod.node.upsert(plan.Table.POLICY, {key: filtering.allowing()})
    assert filtering.sent(pod, filtering.asking(rig.NAME, receiver, port=5300)).action == PASSED
    assert filtering.sent(pod, filtering.asking(filtering.OTHER, receiver, port=5300)).action == REDIRECTED
    assert filtering.sent(pod, filtering.frame(b"anything", receiver, port=5300)).action == DROPPED


def test_the_row_for_everybody_may_have_a_filter(pod: rig.Learner) -> None:
    pod.node.upsert(plan.Table.POLICY, {filtering.row_key(filtering.EGRESS, 0): filtering.allowing()})
    assert filtering.sent(pod, filtering.asking(filtering.OTHER, rig.STRANGER)).action == REDIRECTED
    assert filtering.sent(pod, filtering.asking(filtering.OTHER, filtering.FREE_POD4)).action == PASSED


def _fragment4(offset: int, *, more: bool, receiver: net.Address = filtering.DNS_POD4) -> bytes:
    packet = bytearray(packets.udp(rig.POD4, receiver, wire.PORT, payload=ALLOWED))
    packet[6:8] = (offset // 8 | (0x2000 if more else 0)).to_bytes(2, "big")
    return filtering.ethernet(bytes(packet))


def _fragment6(offset: int, *, more: bool, receiver: net.Address = filtering.DNS_POD6, inner: int = 17) -> bytes:
    packet = packets.udp(rig.POD6, receiver, wire.PORT, payload=ALLOWED)
    header = struct.pack(">BBHI", inner, 0, offset | more, 7)
    return filtering.ethernet(packets.ipv6(rig.POD6, receiver, packets.FRAGMENT, header + packet[40:]))


@pytest.mark.parametrize(
    ("frame", "action"),
    [
        (_fragment4(0, more=True), DROPPED),
        (_fragment4(8, more=True), PASSED),
        (_fragment4(8, more=False), PASSED),
        (_fragment4(0, more=True, receiver=filtering.FREE_POD4), PASSED),
        (_fragment6(0, more=True), DROPPED),
        (_fragment6(0, more=False), DROPPED),
        (_fragment6(8, more=False), PASSED),
        (_fragment6(0, more=True, receiver=filtering.FREE_POD6), PASSED),
        (_fragment6(0, more=True, receiver=filtering.FREE_POD6, inner=60), DROPPED),
        (_fragment6(0, more=True, receiver=filtering.FREE_POD6, inner=44), DROPPED),
    ],
    ids=[
        *("4 first", "4 middle", "4 last", "4 elsewhere", "6 first", "6 only", "6 last", "6 elsewhere"),
        *("6 options behind", "6 another behind"),
    ],
)
def test_without_its_first_part_no_datagram_arrives(pod: rig.Learner, frame: bytes, action: int) -> None:
    """It has the ports; where these lead to nobody who has a filter, all parts pass."""
    assert filtering.sent(pod, frame) == filtering.Done(action, frame)


@pytest.mark.parametrize("kind", [HOP_BY_HOP, ROUTING, AUTHENTICATION, packets.DESTINATION_OPTIONS, 135, 139, 140])
def test_nothing_hides_behind_extension_headers(pod: rig.Learner, kind: int) -> None:
    datagram = packets.udp(rig.POD6, filtering.FREE_POD6, wire.PORT, payload=QUERY)[40:]
    hidden = packets.options6(1, packets.UDP, datagram)
    frame = filtering.ethernet(packets.ipv6(rig.POD6, filtering.FREE_POD6, kind, hidden))
    assert filtering.sent(pod, frame) == filtering.Done(DROPPED, frame)
    filtering.restrict(pod, filtering.slot(asks=False))
    assert filtering.sent(pod, frame) == filtering.Done(PASSED, frame), "as long as the pod has no filter"


@pytest.mark.parametrize(
    ("hop_limit", "type_", "action"), [(1, 143, PASSED), (1, 131, PASSED), (255, 143, DROPPED), (1, 128, DROPPED)]
)
def test_a_pod_may_say_to_which_groups_it_listens(pod: rig.Learner, hop_limit: int, type_: int, action: int) -> None:
    """Rule A41; that has a hop-by-hop header (RFC 3810 5)."""
    report = packets.icmp6(ROUTERS, GROUP, type_, bytes(4))[40:]
    content = struct.pack(">BBBBHBB", packets.ICMPV6, 0, 5, 2, 0, 1, 0) + report
    packet = bytearray(packets.ipv6(ROUTERS, GROUP, HOP_BY_HOP, content))
    packet[7] = hop_limit
    assert filtering.sent(pod, filtering.ethernet(bytes(packet))).action == action


@pytest.mark.parametrize("class_", list(desired.ServiceClass))
def test_a_service_has_the_filter_of_its_class_whatever_that_says(
    pod: rig.Learner, class_: desired.ServiceClass
) -> None:
    """What is sent to its address is judged before anybody has chosen a backend."""
    filtering.of_service(pod, class_)
    assert filtering.sent(pod, filtering.asking(filtering.OTHER)).action == REDIRECTED
    filtering.of_service(pod, class_, asks=desired.ASKS_NOTHING)
    assert filtering.sent(pod, filtering.asking(rig.NAME)).action == REDIRECTED, "of backends with different filters"
    filtering.of_service(pod, class_, asks=desired.ASKS_ANYTHING)
    assert filtering.sent(pod, filtering.frame(b"anything")).action == PASSED


def test_a_service_without_a_class_has_no_filter(pod: rig.Learner) -> None:
    pod.node.delete(plan.Table.SERVICE_CLASS, frozenset({(filtering.EGRESS, filtering.SERVICE)}))
    assert filtering.sent(pod, filtering.frame(b"anything")).action == PASSED


def test_what_is_denied_is_left_to_those_who_say_so(pod: rig.Learner) -> None:
    row = desired.Row(desired.Action.DENY, 5, asks=filtering.FILTER)
    pod.node.upsert(plan.Table.POLICY, {filtering.row_key(filtering.EGRESS, filtering.RESTRICTED): row})
    assert filtering.sent(pod, filtering.asking(filtering.OTHER, filtering.DNS_POD4)).action == PASSED


@pytest.mark.parametrize(
    "slot", [filtering.slot(held=True), filtering.slot(asks=False), None], ids=["held", "no filter", "no endpoint"]
)
def test_who_has_no_filter_is_not_looked_at(pod: rig.Learner, slot: plan.EndpointSlot | None) -> None:
    filtering.restrict(pod, slot)
    assert filtering.sent(pod, filtering.asking(filtering.OTHER)).action == PASSED
    assert told(pod) == []


def test_where_no_set_has_a_filter_nobody_looks_for_one(pod: rig.Learner) -> None:
    pod.fqdn.store_filters(used=False)
    assert filtering.sent(pod, filtering.asking(filtering.OTHER)).action == PASSED


def test_a_name_has_a_class_by_the_trie_and_one_by_an_automaton(pod: rig.Learner) -> None:
    """Either may be in the filter."""
    start = filtering.automaton_for(pod, "g", ADMITTED_ALSO, first=2)
    for slot in range(2):
        pod.fqdn.store_automaton(slot, start)
    pod.know(filtering.OTHER, exact=0x80000055)
    asking = filtering.asking(filtering.OTHER)
    assert filtering.sent(pod, asking).action == REDIRECTED
    pod.node.upsert(plan.Table.POLICY, filtering.admitting(ADMITTED_ALSO))
    assert filtering.sent(pod, asking).action == PASSED


@pytest.mark.parametrize("live", [0, 1])
def test_the_generation_that_counts_says_what_a_name_is(pod: rig.Learner, live: int) -> None:
    """An answer is learned for both; a query is let through by one, from one moment to the next by the other."""
    old, new = fqdn_layout.Classes(exact=rig.API), fqdn_layout.Classes(exact=0x80000055)
    key = fqdn_layout.encode_name_key("moved.example.net")
    pod.fqdn.write_names({key: fqdn_layout.encode_name_value((old, new) if live == 0 else (new, old), labels=3)})
    pod.fqdn.store_automaton(1 - live, filtering.automaton_for(pod, "g", rig.API, first=2))
    asking, other = filtering.asking("moved.example.net"), filtering.asking(filtering.OTHER)
    pod.node.store_generation(6 + live)
    assert [filtering.sent(pod, frame).action for frame in (asking, other)] == [PASSED, REDIRECTED]
    pod.node.store_generation(7 + live)
    assert [filtering.sent(pod, frame).action for frame in (asking, other)] == [REDIRECTED, PASSED]


def test_a_filter_comes_and_goes_with_the_generation(pod: rig.Learner) -> None:
    filtering.restrict(pod, filtering.slot(asks=False, egress=0), filtering.slot())
    asking = filtering.asking(filtering.OTHER)
    actions = []
    for generation in range(4):
        pod.node.store_generation(generation)
        actions.append(filtering.sent(pod, asking).action)
    assert actions == [PASSED, REDIRECTED, PASSED, REDIRECTED]
