"""A query in a traced flow: by the policies, by the compiled filters, by those that are loaded (rule E17)."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from typing import Any

import pytest

from agent import errors
from agent.datapath import plan, tracing, walk
from agent.fqdn import patterns
from agent.model import audit, net, resources
from agent.rpc import kernel, traces
from tests.rpc import test_kernel
from tests.states import pictures

DNS = "53/UDP"
ADMITTED, OTHER = "one.example", "two.example"
TO_53 = resources.PortMatch(
    protocol=net.Protocol.UDP, port=net.PortRange(53, 53), asks=(patterns.parse_cilium_name(ADMITTED),)
)
ASKING = resources.NetworkPolicy(
    namespace="x",
    name="asking",
    kind="CiliumNetworkPolicy",
    directions=frozenset({net.Direction.EGRESS}),
    egress=(resources.PolicyRule(peers=(pictures.block("10.0.0.0/8"),), ports=(TO_53,)),),
)
RESOLVER = resources.Service(
    namespace="x",
    name="dns",
    cluster_addresses=(ipaddress.ip_address("10.96.0.53"),),
    ports=(resources.ServicePort(port=53, protocol=net.Protocol.UDP, target=53),),
    selector=pictures.SERVICE.selector,
)


@pytest.fixture
def agent() -> test_kernel.Agent:
    return test_kernel.Agent.of(test_kernel.cluster(ASKING, RESOLVER))


def asked(flow: traces.FlowTrace) -> tracing.Layer:
    (layer,) = (layer for layer in flow.layers if layer.hook == tracing.QUERY)
    return layer


@pytest.mark.parametrize("destination", ["y/b", "198.51.100.7", "service/x/dns"])
def test_a_query_is_admitted_or_refused_by_all_three(agent: test_kernel.Agent, destination: str) -> None:
    for name, allowed in ((ADMITTED, True), (OTHER, destination == "198.51.100.7")):
        flow = agent.trace("x/a", destination, DNS, name)
        assert flow.query is not None
        layer = asked(flow)
        assert [flow.query.allowed, layer.compiled.allowed, layer.loaded.allowed] == [allowed] * 3
        assert (flow.disagreements, layer.differences) == ((), ())
        assert layer.loaded.lookups[0].table == tracing.NAMES_MAP
    assert flow.allowed is False, "refused, or, where no filter is, denied"


def test_the_rule_that_restricts_is_named_by_both(agent: test_kernel.Agent) -> None:
    flow = agent.trace("x/a", "y/b", DNS, OTHER)
    assert flow.query is not None
    rule = "CiliumNetworkPolicy x/asking egress[0]"
    assert rule in flow.query.because
    assert asked(flow).loaded.why.endswith(f"by {rule}")
    assert asked(flow).loaded.why.startswith("the name is not in filter ")
    assert asked(agent.trace("x/a", "y/b", DNS, ADMITTED)).loaded.why.startswith("the name is in filter ")


def test_without_a_name_nothing_is_said_of_queries(agent: test_kernel.Agent) -> None:
    flow = agent.trace("x/a", "y/b", DNS)
    assert flow.query is None
    assert all(layer.hook != tracing.QUERY for layer in flow.layers)


def test_who_has_no_veth_here_asks_by_no_hook_of_ours(agent: test_kernel.Agent) -> None:
    flow = agent.trace("y/b", "x/a", DNS, OTHER)
    assert flow.query is not None
    assert flow.query.allowed
    assert all(layer.hook != tracing.QUERY for layer in flow.layers)


def test_a_row_of_a_filter_that_was_tampered_with_is_named(agent: test_kernel.Agent) -> None:
    tables = agent.datapath.tables
    rows = {key: row for key, row in tables.policy.items() if key.direction is not plan.Asking.ASK}
    agent.datapath.tables = dataclasses.replace(tables, policy=rows)
    flow = agent.trace("x/a", "y/b", DNS, ADMITTED)
    assert not flow.allowed
    assert [line for line in flow.disagreements if kernel.KERNEL in line and "query" in line]
    (difference,) = asked(flow).differences
    assert (difference.table, difference.found) == ("policy", tracing.NOTHING)


def test_a_name_that_the_loaded_maps_take_for_another_is_a_difference(agent: test_kernel.Agent) -> None:
    agent.datapath._classes = dataclasses.replace(agent.datapath._classes, rows={})
    flow = agent.trace("x/a", "y/b", DNS, ADMITTED)
    (difference,) = asked(flow).differences
    assert (difference.table, difference.row, difference.found) == (tracing.NAMES_MAP, ADMITTED, tracing.NOTHING)
    assert not flow.allowed


def test_where_nobody_reads_queries_all_is_denied_without_a_disagreement(
    agent: test_kernel.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No policy knows whether a veth refuses programs."""
    assert agent.enforcement is not None
    state = agent.enforcement.state
    veths = frozenset(item.veth_ifindex for item in state.endpoints.values())
    agent.datapath.tables = dataclasses.replace(
        plan.at_rest(state, unread=frozenset(state.endpoints)), generation=agent.datapath.tables.generation
    )
    looking: Any = tracing.by_look_ups

    def blind(place: walk.InTables, *others: Any) -> object:
        place._unread = veths
        return looking(place, *others, veths)

    monkeypatch.setattr(tracing, "by_look_ups", blind)
    flow = agent.trace("x/a", "y/b", DNS, ADMITTED)
    assert flow.disagreements == ()
    assert not flow.allowed
    assert asked(flow).loaded.reason == tracing.UNREAD
    assert {layer.loaded.reason for layer in flow.layers if layer.hook != tracing.QUERY} == {tracing.UNREAD}
    assert "nobody reads what this pod asks for" in flow.layers[-1].loaded.why


def test_what_is_in_audit_passes_and_tells_what_it_would_refuse() -> None:
    """Rule A51."""
    in_audit = audit.Audit(commands=frozenset({audit.Target("x")}))
    agent = test_kernel.Agent.of(test_kernel.cluster(ASKING), in_audit)
    flow = agent.trace("x/a", "y/b", DNS, OTHER)
    assert flow.query is not None
    assert (flow.allowed, flow.query.allowed, flow.query.would_refuse) == (True, True, True)
    assert asked(flow).loaded.why.startswith("in audit, would be refused: the name is not in filter")
    assert flow.disagreements == ()


@pytest.mark.parametrize(("name", "port"), [("not a name", DNS), (".", DNS), (ADMITTED, "53/TCP"), (ADMITTED, "ICMP")])
def test_what_cannot_be_asked_is_refused(agent: test_kernel.Agent, name: str, port: str) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        agent.trace("x/a", "y/b", port, name)
    assert raised.value.field == "--asks"


def test_over_the_wire_nothing_of_a_query_is_lost(agent: test_kernel.Agent) -> None:
    from agent.api.nodewall.agent.v1 import agent_pb2 as pb  # noqa: PLC0415 - here alone
    from agent.rpc import mirror  # noqa: PLC0415 - likewise

    sent = asyncio.run(agent.kernel().trace("x/a", "service/x/dns", DNS, OTHER))
    assert mirror.value(mirror.message(sent, pb.TraceFlowResponse), traces.Traced) == sent
