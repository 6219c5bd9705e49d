"""The memory datapath keeps the contract, and judges as `bpf/include/types.h` says."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import desired
from agent.datapath import base, memory, plan
from agent.model import endpoint, identity, net, verdict
from tests.datapath import contract
from tests.states import pictures

XA, XB, YA, YB = (pod.addresses[0] for pod in pictures.PODS)
NODE = pictures.NODES[0].addresses[0]
WORLD = ipaddress.ip_address("198.51.100.1")
VIP = ipaddress.ip_address("10.96.0.1")
TCP = net.Protocol.TCP.value
Reason = verdict.Reason
INGRESS, EGRESS = net.Direction.INGRESS, net.Direction.EGRESS


class TestMemoryDatapath(contract.DatapathContract):
    """The contract."""

    @pytest.fixture
    def datapath(self) -> base.Datapath:
        datapath = memory.MemoryDatapath()
        datapath.open()
        return datapath

    def read(self, datapath: base.Datapath) -> plan.Tables:
        assert isinstance(datapath, memory.MemoryDatapath)
        return datapath.tables


def enforcing(state: desired.DesiredState) -> memory.MemoryDatapath:
    datapath = memory.MemoryDatapath()
    datapath.apply(state)
    return datapath


def say(
    state: desired.DesiredState,
    client: net.Address,
    server: net.Address,
    port: int = 80,
    *,
    hook: memory.Hook = memory.Hook.FORWARD,
) -> tuple[bool, verdict.Reason, net.Direction]:
    found = enforcing(state).judge(client=client, server=server, protocol=TCP, port=port, hook=hook)
    return found.allowed, found.reason, found.direction


def connect(state: desired.DesiredState, address: net.Address, port: int = 80) -> tuple[bool, verdict.Reason]:
    cookie = min(each.netns_cookie for each in state.endpoints.values())  # x/a
    found = enforcing(state).judge_connect(cookie, address, TCP, port)
    return found.allowed, found.reason


def test_isolation_denies_each_end_by_itself() -> None:
    """Rules A15, A16."""
    state = pictures.named("isolated")
    assert say(state, XA, YB) == (False, Reason.POLICY_DENIED, EGRESS)
    assert say(state, YB, XA) == (False, Reason.POLICY_DENIED, INGRESS)
    assert say(state, YA, YB) == (True, Reason.NOT_ISOLATED, INGRESS)


def test_a_rule_allows_its_peers_and_ports_only() -> None:
    state = pictures.named("allowed by label")
    assert say(state, XA, YA) == (True, Reason.RULE_ALLOWED, EGRESS)
    assert say(state, XA, YA, 81)[0] is False
    assert say(state, XA, XB) == (False, Reason.POLICY_DENIED, EGRESS)
    assert say(state, XB, YA) == (True, Reason.RULE_ALLOWED, EGRESS)


def test_on_the_way_to_the_own_node_only_egress_is_judged() -> None:
    """Rule A37: hold and ingress of the node's address have no say."""
    state = pictures.named("isolated")
    assert say(state, XA, NODE, hook=memory.Hook.LOCAL_IN) == (False, Reason.POLICY_DENIED, EGRESS)
    assert say(state, YA, XB, hook=memory.Hook.LOCAL_IN) == (True, Reason.NOT_ISOLATED, EGRESS)


def test_the_longest_prefix_decides_who_an_address_is() -> None:
    """Rules A22, A23."""
    state = pictures.named("nested blocks")
    assert connect(state, XB) == (True, Reason.RULE_ALLOWED)
    assert say(state, XA, XB) == (False, Reason.POLICY_DENIED, INGRESS), "x/a is in the except"
    assert say(state, XA, YA) == (False, Reason.POLICY_DENIED, EGRESS)
    assert say(state, XA, YB)[0] is True
    assert say(state, XA, WORLD)[0] is False


def test_unknown_addresses_of_a_held_range_are_held_and_endpoints_in_it_are_not() -> None:
    """Rule A45."""
    state = pictures.named("held")
    stranger = ipaddress.ip_address("10.0.1.99")
    assert say(state, stranger, WORLD) == (False, Reason.ENDPOINT_HELD, EGRESS)
    assert say(state, WORLD, stranger) == (False, Reason.ENDPOINT_HELD, INGRESS)
    assert say(state, YA, YB)[0] is True


def test_a_held_endpoint_reaches_nobody_but_itself() -> None:
    state = pictures.named("no policy")
    held = {number: dataclasses.replace(each, held=True) for number, each in state.endpoints.items()}
    state = dataclasses.replace(state, endpoints=held)
    assert say(state, XA, WORLD) == (False, Reason.ENDPOINT_HELD, EGRESS)
    assert say(state, WORLD, XA) == (False, Reason.ENDPOINT_HELD, INGRESS)
    assert connect(state, WORLD) == (False, Reason.ENDPOINT_HELD)
    assert connect(state, XA)[0] is True


def test_connect_passes_to_loopback_own_addresses_and_from_unknown_namespaces() -> None:
    """Rule A40; a namespace nobody knows is not ours."""
    state = pictures.named("isolated")
    for address in (XA, ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")):
        assert connect(state, address) == (True, Reason.NOT_ISOLATED)
    assert connect(state, XB) == (False, Reason.POLICY_DENIED)
    assert enforcing(state).judge_connect(424242, XB, TCP, 80).allowed


def test_connect_normalises_mapped_addresses() -> None:
    """Rule A24."""
    state = pictures.named("nested blocks")
    assert connect(state, ipaddress.ip_address(f"::ffff:{XB}")) == (True, Reason.RULE_ALLOWED)


def test_connect_to_a_service_follows_its_class() -> None:
    assert connect(pictures.named("service"), VIP) == (True, Reason.RULE_ALLOWED)
    assert connect(pictures.named("service denied"), VIP) == (False, Reason.SERVICE_DENIED)
    mixed = dataclasses.replace(pictures.named("service"), classes={})
    assert connect(mixed, VIP)[0] is True


def judge_rows(rows: dict[desired.RowKey, desired.Row], peer: int, protocol: int, port: int) -> memory.Judgement:
    state = contract.some_state()
    (policy_set,) = state.sets.values()
    changed = dataclasses.replace(
        state,
        sets={policy_set.id: dataclasses.replace(policy_set, rows=rows)},
        hosts={YB: identity.NumericIdentity(peer)},
    )
    return enforcing(changed).judge(client=contract.ADDRESS, server=YB, protocol=protocol, port=port)


def test_an_identitys_rows_come_before_those_of_any_and_longer_ones_before_shorter() -> None:
    allow, deny = desired.Action.ALLOW, desired.Action.DENY
    rows = {
        desired.RowKey(0, 6, 80, 16): desired.Row(deny, 1),
        desired.RowKey(0, 0, 0, 0): desired.Row(deny, 2),
        desired.RowKey(300, 0, 0, 0): desired.Row(allow, 3),
        desired.RowKey(300, 6, 0, 0): desired.Row(allow, 4),
        desired.RowKey(300, 6, 64, 10): desired.Row(deny, 5),
        desired.RowKey(300, 6, 80, 16): desired.Row(allow, 6),
    }
    assert [judge_rows(rows, 300, 6, port).rule for port in (80, 81, 128)] == [6, 5, 4]
    assert judge_rows(rows, 300, 17, 80).rule == 3
    assert [judge_rows(rows, 301, 6, port).rule for port in (80, 81)] == [1, 2]


def test_an_explicit_denial_names_its_rule_and_a_default_one_does_not() -> None:
    deny = desired.Action.DENY
    explicit = judge_rows({desired.RowKey(300, 0, 0, 0): desired.Row(deny, 5)}, 300, 6, 80)
    assert (explicit.reason, explicit.rule) == (Reason.POLICY_DENY, 5)
    default = judge_rows({desired.RowKey(300, 0, 0, 0): desired.Row(deny, 0)}, 300, 6, 80)
    assert (default.reason, default.rule) == (Reason.POLICY_DENIED, 0)
    assert judge_rows({}, 300, 6, 80).reason is Reason.POLICY_DENIED


def test_an_agent_that_adopts_the_tables_judges_on() -> None:
    datapath = enforcing(pictures.named("isolated"))
    adopted = memory.MemoryDatapath(datapath.tables)
    assert not adopted.judge(client=XA, server=YB, protocol=TCP, port=80).allowed
    adopted.uninstall()
    assert adopted.judge(client=XA, server=YB, protocol=TCP, port=80).allowed
    assert adopted.tables == plan.Tables()


def test_drop_mode_does_not_change_what_is_denied() -> None:
    state = pictures.named("silent")
    assert state.deny_mode is endpoint.DenyMode.DROP
    assert say(state, XA, YB) == say(pictures.named("isolated"), XA, YB)
