"""Filters: their numbers, the classes they admit, and what a node makes of rules that restrict names (rule E17)."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable

from agent import desired, snapshot
from agent.fqdn import patterns
from agent.model import endpoint, fqdn, identity, net, resources
from agent.policy import compiler, filters, rows, tiers

A, B, DEEP = (patterns.parse_cilium_pattern(text) for text in ("a.example", "b.example", "**.example"))
CLIENT = resources.Pod(namespace="x", name="client", uid="1", node="n1", addresses=(ipaddress.ip_address("10.0.0.1"),))
VIEW = endpoint.NodeView(
    name="n1",
    hold_mode=endpoint.HoldMode.PERMISSIVE,
    learns_names=True,
    filters_queries=True,
    sandboxes=(
        endpoint.Sandbox(
            namespace="x",
            pod="client",
            uid="1",
            netns_cookie=1,
            veth_ifindex=1,
            ingress_ifindex=1,
            addresses=CLIENT.addresses,
        ),
    ),
)


def _policy(*asked: Iterable[fqdn.NamePattern] | None, name: str = "p", port: int = 53) -> resources.NetworkPolicy:
    ports = (
        resources.PortMatch(
            protocol=net.Protocol.UDP, port=net.PortRange(port, port), asks=None if asks is None else tuple(asks)
        )
        for asks in asked
    )
    return resources.NetworkPolicy(
        namespace="x",
        name=name,
        kind="CiliumNetworkPolicy",
        directions=frozenset({net.Direction.EGRESS}),
        egress=tuple(resources.PolicyRule(ports=(each,)) for each in ports),
    )


def _compiled(*policies: resources.NetworkPolicy, view: endpoint.NodeView = VIEW) -> compiler.Compiled:
    return compiler.compile_node(snapshot.build([CLIENT, *policies]), view)


def _only_filter(state: desired.DesiredState) -> int:
    (number,) = state.filters
    return number


def test_what_says_the_same_has_one_number_and_is_never_that_of_no_name() -> None:
    number = filters.number([frozenset({A, B}), frozenset({B, A}), frozenset({A})])
    assert len(number) == 2
    assert not {0, desired.ASKS_NOTHING} & set(number.values())
    assert filters.number([frozenset({A})])[frozenset({A})] == number[frozenset({A})]


def test_a_filter_admits_every_class_with_one_of_its_patterns() -> None:
    classes = {7: frozenset({A}), 8: frozenset({A, DEEP}), 9: frozenset({B})}
    assert filters.admitted({2: frozenset({A}), 3: frozenset({DEEP}), 4: frozenset()}, classes) == {
        2: {7, 8},
        3: {8},
        4: frozenset(),
    }


def test_rules_that_allow_one_flow_unite_what_may_be_asked_for_and_one_without_names_restricts_nothing() -> None:
    state = _compiled(_policy([A], [B])).state
    assert set(state.filter_patterns.values()) == {frozenset({A, B})}
    (policy_set,) = state.sets.values()
    (row,) = policy_set.rows.values()
    assert row.asks == _only_filter(state)
    assert state.names.of("a.example") != state.names.of("b.example")
    assert state.filters[row.asks] == {*state.names.of("a.example"), *state.names.of("b.example")}
    unrestricted = _compiled(_policy([A], None)).state
    assert {row.asks for each in unrestricted.sets.values() for row in each.rows.values()} == {desired.ASKS_ANYTHING}
    assert unrestricted.filters == {}


def test_a_filter_keeps_its_number_beside_other_policies_and_a_set_changes_its_own_with_the_names() -> None:
    alone = _compiled(_policy([A])).state
    beside = _compiled(_policy([A]), _policy([B], name="q", port=5353)).state
    assert _only_filter(alone) in beside.filters
    other = _compiled(_policy([B])).state
    assert set(alone.sets).isdisjoint(other.sets)


def test_names_that_are_only_asked_for_have_classes_and_no_rows() -> None:
    state = _compiled(_policy([A])).state
    keys = {key.identity for each in state.sets.values() for key in each.rows}
    assert keys == {identity.ANY}
    assert set(state.names.contents.values()) == {frozenset({A})}


def test_where_queries_are_not_read_what_restricts_them_is_denied_and_says_so() -> None:
    """Rule A50: whoever cannot tell what is asked for lets nothing be asked."""
    compiled = _compiled(_policy([A], name="p"), view=dataclasses.replace(VIEW, filters_queries=False))
    (policy_set,) = compiled.state.sets.values()
    assert policy_set.rows == {}
    assert compiled.state.filters == {}
    (problem,) = compiled.problems
    assert (problem.ref.name, problem.path) == ("p", "spec.egress[0].toPorts")
    assert "not filtered on this node" in problem.reason


def test_a_pattern_that_the_automaton_has_no_room_for_admits_nothing_and_says_so() -> None:
    wide = [patterns.parse_cilium_pattern(f"*a{number}*b{number}*.example") for number in range(60)]
    compiled = _compiled(_policy([A, *wide]))
    (admitted,) = compiled.state.filters.values()
    assert admitted == set(compiled.state.names.of("a.example"))
    assert {problem.path for problem in compiled.problems} == {"spec.egress[0].toPorts"}


def test_no_rule_restricts_where_nobody_would_look() -> None:
    """Decoding makes no such rule; were one made, it would allow nothing."""
    asking = resources.PortMatch(protocol=net.Protocol.UDP, port=None, asks=(A,))
    empty = resources.PortMatch(protocol=net.Protocol.UDP, port=None, asks=())
    names = (resources.NamesPeer(patterns=(B,)),)
    rules = (resources.PolicyRule(peers=names, ports=(asking,)), resources.PolicyRule(ports=(empty,)))
    policy = dataclasses.replace(
        _policy(), directions=frozenset(net.Direction), egress=rules, ingress=(resources.PolicyRule(ports=(asking,)),)
    )
    rows_ = [row for each in _compiled(policy).state.sets.values() for row in each.rows.values()]
    assert {row.action for row in rows_} <= {desired.Action.DENY}


def test_the_layer_below_serves_only_for_what_may_be_asked_for_there_too() -> None:
    span = (net.Protocol.UDP, net.PortRange(53, 53))
    stage = [
        rows.Stage(
            tiers.EndOfTier.DENY, ordered=False, clauses=(rows.Clause(tiers.Action.ALLOW, 5, (span,), asks=asks),)
        )
        for asks in ((), (1,))
    ]
    anything, restricted = (rows.flatten([each]) for each in stage)
    assert rows.cover(restricted, restricted) == {}
    assert {row.asks for row in rows.cover(restricted, anything).values()} == {1}
    assert {row.asks for row in rows.cover(anything, restricted).values()} == {0}
