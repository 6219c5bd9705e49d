"""Verdicts of logged packets are those the memory datapath comes to, and the kernel's word stands."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import random

import hypothesis
import pytest
from hypothesis import strategies

from agent import desired, snapshot
from agent.datapath import judge, memory, plan
from agent.datapath.iptables import logged as logged_
from agent.datapath.iptables import nflog, verdicts
from agent.datapath.iptables.prefix import Note
from agent.model import net, verdict
from agent.observer import enrich, history
from tests.bpf import packets
from tests.datapath.iptables import logged
from tests.states import pictures

XA, XB, YA, YB = (pod.addresses[0] for pod in pictures.PODS)
WORLD = ipaddress.ip_address("198.51.100.1")
NODE = pictures.NODES[0].addresses[0]
EGRESS, INGRESS = net.Direction.EGRESS, net.Direction.INGRESS
Reason = verdict.Reason
TCP = net.Protocol.TCP.value
NOW = 12345
FLOWS = 60


def attribution(state: desired.DesiredState, *, generation: int = 1, reported: int = 9) -> verdicts.Attribution:
    moments = verdicts.Moments()
    moments.staged(generation, state)
    moments.tell(generation, reported)
    return verdicts.Attribution(moments)


def number(state: desired.DesiredState, address: net.Address) -> int:
    return next((item.id for item in state.endpoints.values() if address in item.addresses), 0)


def said(event: verdicts.Event) -> judge.Judgement:
    """Read the judgement back out of an event."""
    return judge.Judgement(
        verdict=verdict.Verdict(event.verdict),
        reason=Reason(event.reason),
        direction=net.Direction(event.direction),
        endpoint=event.endpoint,
        rule=event.rule,
        set=event.policy_set,
    )


@pytest.mark.parametrize("name", pictures.NAMES)
def test_what_the_rules_deny_or_allow_is_told_as_the_memory_datapath_judges(name: str) -> None:
    state = pictures.named(name)
    reference = memory.MemoryDatapath(plan.at_rest(state))
    attribute = attribution(state)
    rng = random.Random(name)
    addresses = [*state.hosts, *(network[-1] for network in state.cidrs), WORLD, NODE]
    for _ in range(FLOWS):
        client = rng.choice(addresses)
        server = rng.choice([address for address in addresses if address.version == client.version])
        protocol, port = rng.choice((TCP, 17)), rng.choice((80, 81, 8080))
        for hook, place in ((judge.Hook.FORWARD, logged.FORWARD), (judge.Hook.LOCAL_IN, logged.LOCAL_IN)):
            expected = reference.judge(client=client, server=server, protocol=protocol, port=port, hook=hook)
            note = Note.ALLOWED if expected.allowed else Note.DENIED
            payload = logged.flow(client, server, protocol, port)
            events = attribute.events(logged.packet(payload, note, hook=place), NOW)
            if expected.allowed:
                sides = [(EGRESS, number(state, client)), (INGRESS, number(state, server))]
                if hook is judge.Hook.LOCAL_IN:
                    sides.pop()
                assert [(said(event).direction, event.endpoint) for event in events] == [
                    side for side in sides if side[1]
                ]
                assert all(said(event).allowed for event in events)
                assert not expected.endpoint or expected in map(said, events)
            else:
                assert [said(event) for event in events] == [expected]
            for event in events:
                assert (event.source, event.destination, event.protocol) == (client, server, protocol)
    assert attribute.disagreed == 0


def test_an_event_has_all_that_the_programs_write() -> None:
    """emit.h, event_fill."""
    state = pictures.named("allowed by label")
    payload = logged.flow(XA, YA, TCP, 80, sport=4001)
    egress, ingress = attribution(state).events(logged.packet(payload, Note.ALLOWED), NOW)
    assert (egress.time_ns, egress.generation, egress.layer, egress.pid, egress.command) == (NOW, 9, 2, 0, "")
    assert (egress.source, egress.source_port, egress.destination, egress.destination_port) == (XA, 4001, YA, 80)
    assert (egress.source_identity, egress.destination_identity) == (state.hosts[XA], state.hosts[YA])
    assert (egress.direction, egress.endpoint) == (EGRESS.value, number(state, XA))
    assert egress.policy_set == state.endpoints[egress.endpoint].egress_set != 0
    assert egress.rule in state.rules
    assert (ingress.direction, ingress.endpoint, ingress.policy_set) == (INGRESS.value, number(state, YA), 0)


def test_the_observer_can_name_what_it_gets() -> None:
    state = pictures.named("isolated")
    (event,) = attribution(state).events(logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED), NOW)
    past = history.History()
    past.enforced(9, state, snapshot.Snapshot())
    told = enrich.enrich(event, enrich.Context(node="n", past=past.past, monotonic_to_unix_ns=5))
    assert (told.time_ns, told.generation, told.source.pod, told.reason) == (NOW + 5, 9, "a", Reason.POLICY_DENIED)
    assert told.isolating == state.sets[event.policy_set].isolating


def test_a_denied_reply_is_told_as_the_connection_it_belongs_to() -> None:
    """Rule A38."""
    state = pictures.named("isolated")
    reply = packets.udp(YA, XA, 4000, sport=53)
    (event,) = attribution(state).events(logged.packet(reply, Note.REPLY_DENIED), NOW)
    assert (event.source, event.source_port, event.destination, event.destination_port) == (XA, 4000, YA, 53)
    assert (event.direction, event.endpoint) == (EGRESS.value, number(state, XA))


def test_a_flood_of_one_client_is_one_flow_with_many_ports() -> None:
    attribute = attribution(pictures.named("isolated"))
    ports = [
        attribute.events(logged.packet(logged.flow(XA, YA, TCP, 80, sport=port), Note.DENIED), NOW)[0].source_port
        for port in range(1, 50)
    ]
    assert ports == list(range(1, 50))
    assert len(attribute._flows) == 1


def test_a_denial_nobody_can_explain_is_told_and_counted_and_names_no_policy() -> None:
    state = pictures.named("allowed by label")
    attribute = attribution(state)
    for count in (1, 2):
        (event,) = attribute.events(logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED), NOW)
        assert said(event) == judge.Judgement(
            verdict=verdict.Verdict.DROPPED,
            reason=Reason.POLICY_DENIED,
            direction=EGRESS,
            endpoint=number(state, XA),
        )
        assert attribute.disagreed == count


def test_a_permission_nobody_can_explain_likewise() -> None:
    state = pictures.named("isolated")
    attribute = attribution(state)
    (egress, ingress) = attribute.events(logged.packet(logged.flow(XA, YA, TCP, 80), Note.ALLOWED), NOW)
    assert (said(egress).allowed, egress.reason, egress.rule, egress.policy_set) == (True, 1, 0, 0)
    assert (said(ingress).reason, ingress.endpoint) == (Reason.NOT_ISOLATED, number(state, YA))
    assert attribute.disagreed == 1


def test_what_concerns_no_endpoint_is_not_told() -> None:
    attribute = attribution(pictures.named("isolated"))
    assert attribute.events(logged.packet(logged.flow(WORLD, NODE, TCP, 80), Note.ALLOWED), NOW) == []


def test_a_held_address_is_denied_without_an_endpoint() -> None:
    """Rule A45."""
    unknown = ipaddress.ip_address("10.0.1.99")
    attribute = attribution(pictures.named("held"))
    (event,) = attribute.events(logged.packet(logged.flow(unknown, WORLD, TCP, 80), Note.DENIED), NOW)
    assert (event.reason, event.endpoint, event.direction) == (Reason.ENDPOINT_HELD.value, 0, EGRESS.value)


def test_headers_that_cannot_be_followed_are_denied_as_malformed() -> None:
    state = pictures.named("isolated")
    attribute = attribution(_with_ipv6(state))
    chain = packets.ipv6(SIX_A, SIX_B, 60, packets.options6(9, TCP, b"1234"))
    (event,) = attribute.events(logged.packet(chain, Note.DENIED), NOW)
    assert (event.reason, attribute.disagreed) == (Reason.MALFORMED.value, 0)
    long = packets.ipv6(SIX_A, SIX_B, 60, bytes([60, 20]) + bytes(166))[: nflog.COPIED_BYTES]
    (event,) = attribute.events(logged.packet(long, Note.DENIED), NOW)
    assert (event.reason, event.policy_set, attribute.disagreed) == (Reason.POLICY_DENIED.value, 0, 0)


SIX_A, SIX_B = map(ipaddress.ip_address, ("fd00::a", "fd00::b"))


def _with_ipv6(state: desired.DesiredState) -> desired.DesiredState:
    """Give x/a and x/b an address more."""
    more = {number(state, XA): SIX_A, number(state, XB): SIX_B}
    return dataclasses.replace(
        state,
        endpoints={
            key: dataclasses.replace(item, addresses=(*item.addresses, *([more[key]] if key in more else [])))
            for key, item in state.endpoints.items()
        },
    )


@pytest.mark.parametrize(
    ("source", "ifindex", "blamed", "disagreed"),
    [
        (WORLD, "veth", XA, 0),  # claims somebody else's address
        (XB, "veth", XA, 0),  # claims another pod's: the sender is to blame
        (XA, "elsewhere", XA, 0),  # comes from where the pod is not: its own number is what is known
        (XA, "veth", XA, 1),  # is genuine
        (WORLD, "elsewhere", None, 1),
    ],
)
def test_who_forged_is_told_as_the_programs_blame(
    source: net.Address, ifindex: str, blamed: net.Address | None, disagreed: int
) -> None:
    """source_forged_by() of source.h."""
    state = with_wires(pictures.named("isolated"))
    veth = state.endpoints[number(state, XA)].veth_ifindex
    attribute = attribution(state)
    payload = logged.flow(source, YA, TCP, 80)
    sight = logged.packet(payload, Note.FORGED, hook=logged.PRE_ROUTING, ifindex=veth if ifindex == "veth" else 999)
    (event,) = attribute.events(sight, NOW)
    assert (event.reason, event.direction) == (Reason.SOURCE_SPOOFED.value, EGRESS.value)
    assert event.endpoint == (number(state, blamed) if blamed else 0)
    assert (event.source, event.policy_set, attribute.disagreed) == (source, 0, disagreed)


def with_wires(state: desired.DesiredState) -> desired.DesiredState:
    """Give every endpoint a veth of its own, by which it comes in."""
    wired = {
        item.id: dataclasses.replace(item, veth_ifindex=100 + index, ingress_ifindex=100 + index)
        for index, item in enumerate(state.endpoints.values())
    }
    return dataclasses.replace(state, endpoints=wired)


def test_on_the_veth_itself_its_pod_is_to_blame_whatever_it_sent() -> None:
    """tc_source.bpf.c: ARP, and advertisements of other's addresses from a genuine one."""
    state = with_wires(pictures.named("isolated"))
    attribute = attribution(state)
    veth = state.endpoints[number(state, XA)].veth_ifindex
    for ethertype, payload, source in (
        (packets.ETH_ARP, packets.arp_reply(XB, bytes(6), XA), XB),
        (packets.ETH_IPV4, logged.flow(XA, YA, TCP, 80), XA),
        (0x8100, bytes(60), ipaddress.ip_address("0.0.0.0")),
    ):
        sight = logged.packet(payload, Note.FORGED, hook=logged.INGRESS, ifindex=veth, family=logged_.NFPROTO_NETDEV)
        (event,) = attribute.events(sight._replace(ethertype=ethertype), NOW)
        assert (event.reason, event.endpoint) == (Reason.SOURCE_SPOOFED.value, number(state, XA))
        assert event.source == source
    assert attribute.disagreed == 0


def test_a_forged_error_is_its_senders() -> None:
    state = pictures.named("isolated")
    payload = packets.unreachable(XA, YA, logged.flow(YA, XB, TCP, 80))
    (event,) = attribution(state).events(logged.packet(payload, Note.ERROR_FORGED), NOW)
    assert (event.reason, event.endpoint, event.direction) == (9, number(state, XA), EGRESS.value)
    assert (event.source, event.destination, event.protocol) == (XA, YA, 1)


def test_what_was_not_judged_is_denied_by_policy_only_where_that_is_certain() -> None:
    state = pictures.named("isolated")
    attribute = attribution(state)

    def reason(payload: bytes, hook: int = logged.FORWARD) -> tuple[Reason, int]:
        (event,) = attribute.events(logged.packet(payload, Note.UNJUDGED, hook=hook), NOW)
        return Reason(event.reason), event.endpoint

    a, b = number(state, XA), number(state, XB)
    assert reason(logged.flow(XA, WORLD, TCP, 80)) == (Reason.POLICY_DENIED, a)
    assert reason(logged.flow(WORLD, XB, TCP, 80)) == (Reason.POLICY_DENIED, b)
    assert reason(packets.udp(XA, XB, 53)) == (Reason.POLICY_DENIED, a)  # both ways
    assert reason(packets.unreachable(XA, WORLD, packets.udp(WORLD, XA, 53))) == (Reason.UNJUDGED, a)
    assert reason(packets.udp(XA, NODE, 53), logged.LOCAL_IN) == (Reason.UNJUDGED, a)
    assert attribute.disagreed == 0
    attribute = attribution(pictures.named("allowed by label"))
    assert reason(logged.flow(XA, YA, TCP, 80)) == (Reason.UNJUDGED, a)
    assert reason(packets.udp(XA, WORLD, 53, sport=80))[0] is Reason.POLICY_DENIED


def test_others_prefixes_say_nothing() -> None:
    attribute = attribution(pictures.named("isolated"))
    sight = logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED)
    for text in (b"", b"\xff\xfe", b"nodewall", b"nodewall zz denied", b"kube-proxy: "):
        assert attribute.events(sight._replace(prefix=text), NOW) == []


@hypothesis.given(
    family=strategies.sampled_from([0, 2, 5, 7, 10]),
    hook=strategies.integers(0, 255),
    ethertype=strategies.sampled_from([0, 0x0800, 0x0806, 0x86DD, 0xFFFF]),
    note=strategies.sampled_from([*(note.value for note in Note), "other"]),
    generation=strategies.integers(0, 3),
    payload=strategies.binary(max_size=128),
    version=strategies.sampled_from([b"", b"\x45", b"\x60"]),
)
def test_no_bytes_are_too_much(  # noqa: PLR0917 - hypothesis names them
    family: int, hook: int, ethertype: int, note: str, generation: int, payload: bytes, version: bytes
) -> None:
    attribute = attribution(pictures.named("held"))
    sight = logged_.Logged(
        family, hook, ethertype, f"nodewall {generation} {note}".encode(), 3, 4, version + payload, 0
    )
    for event in attribute.events(sight, NOW):
        assert (event.layer, event.verdict in {1, 2}, event.direction in {1, 2}) == (2, True, True)
        assert event.source.version == event.destination.version


def test_every_note_and_reading_of_a_drawn_cluster_is_told_with_known_numbers() -> None:
    state = pictures.named("drawn 3")
    attribute = attribution(state)
    addresses = [*list(state.hosts)[:6], WORLD]
    for client, server, note, hook in itertools.product(addresses, addresses, Note, (logged.FORWARD, logged.LOCAL_IN)):
        if client.version != server.version:
            continue
        for event in attribute.events(logged.packet(packets.udp(client, server, 80), note, hook=hook), NOW):
            assert event.endpoint in {0, *state.endpoints}
            assert event.rule in {0, *state.rules}
            assert event.policy_set in {0, *state.sets}
