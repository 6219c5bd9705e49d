"""What the chains of iptables let pass is what the memory datapath lets pass."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import random
from collections.abc import Iterator

import pytest

from agent import desired
from agent.datapath import memory
from agent.datapath.iptables import groups, interpreter, prefix, render, ruleset
from agent.model import endpoint, identity, net
from agent.policy import compiler
from tests.support import random_cluster, random_state

STATES = 70
CLUSTERS = 30
FLOWS = 25
CLIENT_PORT = 40000
JUDGED = 0x1000
INTERFACES = {index: f"veth{index}" for index in (*range(100, 140), *range(900, 910))}
POD, OTHER, NODE = (ipaddress.ip_address(text) for text in ("10.0.0.2", "10.0.0.3", "192.0.2.1"))
EMPTIED = 8
"""States of which each chain is emptied in turn."""
Table = ruleset.Table
Flow = tuple[net.Address, net.Address, int, int]
"""Client, server, protocol, the server's port."""


class Subject:
    """A state, rendered for both families and held by the memory datapath."""

    def __init__(self, state: desired.DesiredState) -> None:
        """Render and remember `state`."""
        self.state = state
        self.memory = memory.MemoryDatapath()
        self.memory.apply(state)
        self.rules = {family: render.render(state, family, INTERFACES, 7) for family in net.Family}
        self.models = {family: interpreter.Model(rules) for family, rules in self.rules.items()}

    def allowed(self, flow: Flow) -> bool:
        client, server, protocol, port = flow
        return self.memory.judge(client=client, server=server, protocol=protocol, port=port).allowed

    def is_held(self, *ends: net.Address) -> bool:
        known = {address for item in self.state.endpoints.values() for address in item.addresses}
        return any(end in held for held in self.state.held_ranges for end in ends if end not in known)

    def compare(self, flow: Flow) -> None:
        client, server, protocol, port = flow
        model = self.models[net.family_of(client)]
        expected, local = (
            self.memory.judge(client=client, server=server, protocol=protocol, port=port, hook=hook).allowed
            for hook in (memory.Hook.FORWARD, memory.Hook.LOCAL_IN)
        )
        for original in (packet(flow), dataclasses.replace(packet(flow), state="ESTABLISHED")):
            outcome = model.hook("FORWARD", original, Table.FILTER, Table.SECURITY)
            assert outcome.passed is expected, (flow, outcome)
            assert outcome.mark == (0 if expected else outcome.mark)
            ours = {client, server} & {address for item in self.state.endpoints.values() for address in item.addresses}
            reported = {prefix.Note.ALLOWED} if ours and original.state == "NEW" else set()
            assert set(outcome.notes) == (reported if expected else {prefix.Note.DENIED})
            outcome = model.hook("INPUT", original, Table.FILTER, Table.SECURITY)
            assert outcome.passed is local, (flow, outcome)
        outcome = model.hook("FORWARD", reply(flow), Table.FILTER, Table.SECURITY)
        assert outcome.passed is expected, (flow, outcome)
        assert outcome.notes == (() if expected else (prefix.Note.REPLY_DENIED,))
        assert model.hook("INPUT", reply(flow), Table.FILTER, Table.SECURITY).passed


def packet(flow: Flow) -> interpreter.Packet:
    client, server, protocol, port = flow
    return interpreter.Packet(
        source=client,
        destination=server,
        protocol=protocol,
        source_port=CLIENT_PORT if protocol in {6, 17, 132} else 0,
        destination_port=port,
        icmp_type=128 if protocol == net.Protocol.ICMPV6.value else 0,
        original_source=client,
        reply_source=server,
    )


def reply(flow: Flow) -> interpreter.Packet:
    client, server, protocol, port = flow
    return interpreter.Packet(
        source=server,
        destination=client,
        protocol=protocol,
        source_port=port,
        destination_port=CLIENT_PORT if protocol in {6, 17, 132} else 0,
        icmp_type=129 if protocol == net.Protocol.ICMPV6.value else 0,
        original_source=client,
        reply_source=server,
        state="ESTABLISHED",
        reply=True,
    )


def random_flows(dice: random.Random, of: desired.DesiredState, count: int) -> Iterator[Flow]:
    return (random_state.flow(dice, of) for _ in range(count))


def compare_state(seed: int) -> Subject:
    dice = random.Random(seed)
    subject = Subject(random_state.state(dice))
    for flow in random_flows(dice, subject.state, FLOWS):
        subject.compare(flow)
    return subject


def compare_cluster(seed: int) -> Subject:
    cluster = random_cluster.cluster(seed, hold_mode=endpoint.HoldMode.AUTO)
    subject = Subject(compiler.compile_node(cluster.snapshot, cluster.views["node-0"]).state)
    for attempt in random_cluster.attempts(cluster, FLOWS):
        subject.compare((attempt.client, attempt.server, attempt.protocol.value, attempt.port))
    return subject


def test_random_states_are_judged_as_the_memory_datapath_does() -> None:
    for seed in range(STATES):
        compare_state(seed)


def test_how_single_ports_are_written_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "EXACT_PIECES", 0)
    for seed in range(STATES // 4):
        compare_state(seed)


def test_random_clusters_are_judged_as_the_memory_datapath_does() -> None:
    for seed in range(CLUSTERS):
        compare_cluster(seed)


def test_emptying_any_chain_lets_nothing_unjudged_pass() -> None:
    """In filter a denied packet stays unmarked; with the security table behind, it does not pass either."""
    denied = 0
    for seed in range(EMPTIED):
        dice = random.Random(seed)
        subject = Subject(random_state.state(dice))
        enforced = enforced_ends(subject.state)
        flows = [
            flow
            for flow in random_flows(dice, subject.state, FLOWS)
            if enforced & set(flow[:2]) and not subject.allowed(flow)
        ]
        for family, rules in subject.rules.items():
            of_family = [flow for flow in flows if net.family_of(flow[0]) is family]
            denied += len(of_family)
            for table, chains in rules.chains.items():
                for chain in chains:
                    model = subject.models[family].emptied(table, chain)
                    for each in (side(flow) for flow in of_family for side in (packet, reply)):
                        judged = model.hook("FORWARD", each, Table.FILTER)
                        assert not (judged.passed and judged.mark & JUDGED), (seed, chain, each)
                        assert not model.hook("FORWARD", each).passed, (seed, chain, each)
    assert denied > EMPTIED


def test_a_foreign_accept_before_ours_lets_nothing_of_an_enforced_endpoint_pass() -> None:
    for seed in range(STATES // 4):
        dice = random.Random(seed)
        subject = Subject(random_state.state(dice))
        enforced = enforced_ends(subject.state)
        for flow in random_flows(dice, subject.state, FLOWS):
            model = subject.models[net.family_of(flow[0])]
            for each in (packet(flow), reply(flow)):
                outcome = model.hook("FORWARD", each, Table.SECURITY)
                concerns = bool(enforced & {each.source, each.destination}) or subject.is_held(*flow[:2])
                assert outcome.passed is not concerns
                assert outcome.notes == ((prefix.Note.UNJUDGED,) if concerns else ())


def test_what_the_node_itself_hears_survives_a_foreign_accept_before_ours() -> None:
    subject = Subject(isolated())
    model = subject.models[net.Family.IPV4]
    flow = (POD, NODE, 6, 80)
    assert not model.hook("INPUT", packet(flow), Table.SECURITY).passed
    answer = reply((NODE, POD, 6, 80))
    assert model.hook("INPUT", answer, Table.SECURITY).passed
    assert model.hook("INPUT", dataclasses.replace(packet(flow), interface="lo"), Table.SECURITY).passed


def test_a_mark_that_others_set_does_not_count() -> None:
    subject = Subject(isolated())
    marked = dataclasses.replace(packet((POD, NODE, 6, 80)), mark=JUDGED)
    for hook in ("FORWARD", "INPUT"):
        assert not subject.models[net.Family.IPV4].hook(hook, marked).passed


def test_other_bits_of_the_mark_are_kept() -> None:
    subject = Subject(isolated())
    marked = dataclasses.replace(packet((NODE, OTHER, 6, 80)), mark=0xF000)
    outcome = subject.models[net.Family.IPV4].hook("FORWARD", marked)
    assert (outcome.passed, outcome.mark) == (True, 0xE000)


def test_an_error_from_a_pod_about_a_packet_that_was_not_for_it_is_dropped() -> None:
    """Of this node or another: both are known as pods."""
    remote = ipaddress.ip_address("10.9.9.9")
    state = dataclasses.replace(isolated(), hosts={**isolated().hosts, remote: identity.NumericIdentity(300)})
    model = Subject(state).models[net.Family.IPV4]
    outside = ipaddress.ip_address("203.0.113.1")
    for source, about, passed in (
        (POD, POD, True),
        (POD, NODE, False),
        (remote, remote, True),
        (remote, POD, False),
        (outside, POD, True),
    ):
        for is_reply, hook in itertools.product((False, True), ("FORWARD", "INPUT")):
            error = interpreter.Packet(
                source=source,
                destination=OTHER,
                protocol=1,
                icmp_type=3,
                state="RELATED",
                quoted=about,
                reply=is_reply,
            )
            outcome = model.hook(hook, error, Table.FILTER, Table.SECURITY)
            assert outcome.passed is passed
            assert outcome.notes == (() if passed else (prefix.Note.ERROR_FORGED,))


def test_only_errors_pass_as_related() -> None:
    """What a helper of conntrack expects is a connection, and judged."""
    flow = (POD, OTHER, 6, 20)
    related = dataclasses.replace(packet(flow), state="RELATED")
    assert not Subject(isolated()).models[net.Family.IPV4].hook("FORWARD", related).passed


def test_only_the_first_packet_of_a_connection_is_reported() -> None:
    """A datagram that nobody answers is NEW to conntrack however many came before."""
    model = Subject(isolated()).models[net.Family.IPV4]
    first = packet((NODE, OTHER, 17, 53))
    assert model.hook("FORWARD", first, Table.FILTER).notes == (prefix.Note.ALLOWED,)
    assert model.hook("FORWARD", dataclasses.replace(first, confirmed=True), Table.FILTER).notes == ()


def test_discovery_passes_only_as_far_as_it_is_from_the_link() -> None:
    model = Subject(isolated()).models[net.Family.IPV6]
    pod, other, local = (ipaddress.ip_address(text) for text in ("fd00::2", "ff02::1", "fe80::1"))
    cases = [
        *((pod, kind, 255, True) for kind in range(133, 138)),
        *((pod, kind, 254, False) for kind in range(133, 138)),
        (pod, 128, 255, False),
        *((pod, kind, 1, False) for kind in (130, 131, 132, 143)),
    ]
    for source, kind, hops, passed in cases:
        each = interpreter.Packet(source=source, destination=other, protocol=58, icmp_type=kind, hop_limit=hops)
        for hook in ("FORWARD", "INPUT"):
            assert model.hook(hook, each, Table.FILTER, Table.SECURITY).passed is passed, (kind, hops)
    report = interpreter.Packet(source=local, destination=other, protocol=58, icmp_type=143, hop_limit=1)
    outcome = model.hook("FORWARD", report, Table.FILTER)
    assert outcome.passed
    assert outcome.mark == JUDGED


def test_the_gateway_in_a_held_range_is_not_held() -> None:
    """A bridge with br_netfilter shows FORWARD what goes to the node's own address."""
    state = desired.DesiredState(held_ranges=frozenset({ipaddress.ip_network("10.0.0.0/24")}))
    rules = render.render(state, net.Family.IPV4, {}, 1)
    flow = (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("10.0.0.1"), 6, 80)
    for local, passed in ((frozenset[net.Address](), False), (frozenset({flow[1]}), True)):
        model = interpreter.Model(rules, local)
        for each in (packet(flow), reply(flow)):
            assert model.hook("FORWARD", each, Table.FILTER).passed is passed


def test_denials_are_refused_aloud_only_in_mode_reject() -> None:
    for mode in endpoint.DenyMode:
        state = dataclasses.replace(isolated(), deny_mode=mode)
        for family, other in ((net.Family.IPV4, "icmp-admin-prohibited"), (net.Family.IPV6, "icmp6-adm-prohibited")):
            rules = render.render(state, family, INTERFACES, 1).chains[Table.FILTER]["NW-DENY"]
            refused = [rule.words[-1] for rule in rules if "REJECT" in rule.words]
            assert refused == (["tcp-reset", other] if mode is endpoint.DenyMode.REJECT else [])
            assert rules[-1].words == ("-j", "DROP")


def test_a_policy_set_that_is_missing_denies() -> None:
    state = dataclasses.replace(isolated(), sets={})
    assert not Subject(state).models[net.Family.IPV4].hook("FORWARD", packet((POD, OTHER, 6, 80))).passed


def isolated() -> desired.DesiredState:
    """Return a state in which the first pod may do nothing and the second anything."""
    dice = random.Random(1)
    nothing = random_state.policy_set(dice, 601, net.Direction.EGRESS, rows=0)
    pods = [
        dataclasses.replace(
            random_state.endpoint(dice, 900 + index, random_state.LOCAL[index::3]),
            egress_set=0 if index else nothing.id,
            ingress_set=0,
            held=False,
        )
        for index in range(2)
    ]
    return desired.DesiredState(endpoints={pod.id: pod for pod in pods}, sets={nothing.id: nothing})


def enforced_ends(state: desired.DesiredState) -> set[net.Address]:
    enforced = (item for item in state.endpoints.values() if item.held or item.ingress_set or item.egress_set)
    return {address for item in enforced for address in item.addresses}
