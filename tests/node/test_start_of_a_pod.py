"""What each datapath makes of a pod's first and last moments, from the node's reading to the judgement."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import desired, snapshot
from agent.datapath import memory
from agent.datapath.iptables import render
from agent.model import endpoint, net, resources, verdict
from agent.node import holds
from agent.policy import compiler
from tests.node import test_holds
from tests.support import agents

UNKNOWN, IDENTITY, POD = test_holds.HELD, test_holds.IDENTITY, test_holds.POD
SERVER = ipaddress.ip_address("10.0.0.3")
TCP = net.Protocol.TCP.value
ONLY_80 = resources.NetworkPolicy(
    namespace="x",
    name="only-80",
    directions=frozenset({net.Direction.EGRESS}),
    egress=(
        resources.PolicyRule(
            ports=(resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(first=80, last=80)),)
        ),
    ),
)
KNOWN = resources.Pod(namespace="x", name="a", uid="u", node="n1")


def state(
    *sandboxes: endpoint.Sandbox, pods: tuple[resources.Pod, ...] = (KNOWN,), mode: str = "strict"
) -> desired.DesiredState:
    view = endpoint.NodeView(name="n1", sandboxes=sandboxes, hold_mode=endpoint.HoldMode(mode))
    return compiler.compile_node(snapshot.build((ONLY_80, *pods)), view).state


def connects(enforced: desired.DesiredState, port: int) -> tuple[bool, verdict.Reason]:
    datapath = memory.MemoryDatapath()
    datapath.apply(enforced)
    found = datapath.judge_connect(POD.netns_cookie, SERVER, TCP, port)
    return found.allowed, found.reason


def test_a_pod_is_held_then_judged_and_never_unknown_in_between() -> None:
    """Rules A45 and A49, in the order in which a runtime works."""
    held = (False, verdict.Reason.ENDPOINT_HELD)
    assert connects(state(UNKNOWN), 80) == held
    assert connects(state(IDENTITY, pods=()), 80) == held, "whose it is is known, what policies say of it is not"
    for sandbox in (IDENTITY, POD, IDENTITY):
        assert connects(state(sandbox), 80) == (True, verdict.Reason.RULE_ALLOWED)
        assert connects(state(sandbox), 81) == (False, verdict.Reason.POLICY_DENIED)


def test_permissive_makes_an_endpoint_of_a_namespace_alone_while_it_may_be_a_pod_s_that_a_policy_selects() -> None:
    """Rule A45: isolated before its first container runs; a pod that the cluster does not know passes."""
    assert state(UNKNOWN, mode="permissive", pods=()).endpoints == {}
    assert connects(state(UNKNOWN, mode="permissive"), 80) == (False, verdict.Reason.ENDPOINT_HELD)
    programmed = state(UNKNOWN, dataclasses.replace(POD, netns_cookie=9), mode="permissive")
    assert [item.pod for item in programmed.endpoints.values()] == ["a"]


def test_an_engine_that_knows_nobody_by_cookie_is_none_the_wiser() -> None:
    """Iptables judges by address: until there is one, only the node's pod range can be held."""
    for family in net.Family:
        assert render.render(state(UNKNOWN), family, {}, 1) == render.render(state(), family, {}, 1)


def test_the_address_of_a_sandbox_that_cni_has_taken_down_is_its_next_owners() -> None:
    """Rule A49: DEL frees the address before the namespace is gone."""
    before = holds.follow(holds.Ledger(), test_holds.explained(POD), now_ns=0)
    heir = dataclasses.replace(agents.sandbox("b", POD.addresses[0], 99), uid="uid-b")
    (left,) = holds.follow(before.ledger, test_holds.BOUND, now_ns=1).sandboxes
    owned = {item.pod: item.addresses for item in state(left, heir, pods=()).endpoints.values()}
    assert owned == {"a": (), "b": POD.addresses}
