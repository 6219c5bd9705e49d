"""Filters in what is looked into: queries are judged alike by a state and by its tables, and told in words (E17)."""

from __future__ import annotations

import ipaddress
import itertools

from agent import desired
from agent.datapath import judge, lookups, memory, plan, tracing, walk, words
from agent.model import net
from agent.policy import compiler
from tests.support import random_asking, random_cluster

SEEDS = range(100, 106)


def _states(seed: int) -> list[desired.DesiredState]:
    cluster, _ = random_asking.cluster(seed)
    return [compiler.compile_node(cluster.snapshot, view).state for view in cluster.views.values()]


def test_a_state_judges_queries_as_the_tables_that_are_made_of_it() -> None:
    asked = 0
    for state in (state for seed in SEEDS for state in _states(seed)):
        in_state, in_tables = lookups.InState(state), lookups.InTables(plan.at_rest(state))
        endpoints = [item for item in state.endpoints.values() if item.addresses]
        for item, server, port in itertools.product(endpoints, list(state.hosts)[:8], random_cluster.NUMBERS):
            flow = judge.Flow(item.addresses[0], server, net.Protocol.UDP.value, port)
            recording = walk.Recording(walk.of_state(state, flow.client, flow.server))
            for name in random_asking.NAMES[:4]:
                classes = state.names.of(name)
                said = [judge.Judge(found_in).query(flow, classes) for found_in in (in_state, in_tables, recording)]
                assert said[0] == said[1] == said[2], (flow, name)
                asked += said[0].asks != desired.ASKS_ANYTHING
        for filter_, admitted in state.filters.items():
            assert all(in_tables.admits(filter_, each) and in_state.admits(filter_, each) for each in admitted)
            assert not in_tables.admits(filter_, 1)
            assert not in_state.admits(filter_, 1)
    assert asked


def test_rows_say_in_words_what_may_be_asked_for() -> None:
    state = next(state for seed in SEEDS for state in _states(seed) if state.filters)
    number, patterns = next((number, found) for number, found in state.filter_patterns.items() if found)
    says = words.Words(state)
    named = f"filter {number} ({', '.join(sorted(map(str, patterns)))})"
    row = desired.Row(desired.Action.ALLOW, 0, asks=number)
    assert says.value(plan.Table.POLICY, row) == f"allow, DNS queries alone, as {named} says"
    mixed = plan.ClassValue(desired.ServiceClass.MIXED, 0, number)
    assert says.value(plan.Table.SERVICE_CLASS, mixed) == f"mixed of its backends, DNS queries alone, as {named} says"
    class_ = min(state.filters[number])
    assert says.key(plan.Table.POLICY, plan.filter_key(number, class_)).startswith(f"{named}, names {class_} (")
    assert says.filter(3) == "filter 3 (unknown)"
    assert words.Words(desired.DesiredState(filter_patterns={1: frozenset()})).filter(1) == "filter 1 (no name)"


def test_rows_of_filters_are_not_taken_for_those_of_a_set_with_the_same_number() -> None:
    key = plan.filter_key(7, 1 << 31)
    assert not tracing.is_wanted(plan.Table.POLICY, key, None, tracing.Wanted(policy_set=7))
    row = plan.PolicyKey(7, 1, net.Direction.EGRESS, 0, 0, 0)
    assert tracing.is_wanted(plan.Table.POLICY, row, None, tracing.Wanted(policy_set=7))


def test_what_policies_leave_unrestricted_is_admitted_without_a_look_at_the_name() -> None:
    datapath = memory.MemoryDatapath()
    state = next(state for seed in SEEDS for state in _states(seed) if state.endpoints)
    datapath.apply(state)
    server = next(iter(state.hosts))
    found = datapath.judge_query(client=server, server=server, port=9, name="a.example")
    assert found.admission is judge.Admission.ADMITTED


def _answers(judging: judge.Judge, flow: judge.Flow, cookie: int) -> tuple[judge.Judgement, ...]:
    hooks = (judging.packet(flow, hook) for hook in judge.Hook)
    return (*hooks, judging.connect(cookie, flow.server, flow.protocol, flow.port))


def test_where_nobody_reads_queries_what_a_filter_restricts_is_denied_and_nothing_else_changes() -> None:
    """Rule A50: a pod whose veth has no program of ours never reaches more than one that has."""
    denied = 0
    for state in (state for seed in SEEDS for state in _states(seed) if state.filters):
        blind = lookups.InState(state, reads=lambda _: False)
        tables = lookups.InTables(plan.at_rest(state, unread=frozenset(state.endpoints)))
        veths = frozenset(item.veth_ifindex for item in state.endpoints.values())
        reading = judge.Judge(lookups.InState(state))
        endpoints = [item for item in state.endpoints.values() if item.addresses]
        servers = (*list(state.hosts)[:8], *{frontend.address for frontend in state.frontends})
        for item, server, port in itertools.product(endpoints, servers, random_cluster.NUMBERS):
            if server.version != item.addresses[0].version:
                continue
            flow = judge.Flow(item.addresses[0], server, net.Protocol.UDP.value, port)
            recording = walk.Recording(walk.of_state(state, flow.client, flow.server, unread=veths))
            said = [_answers(judge.Judge(where), flow, item.netns_cookie) for where in (blind, tables, recording)]
            assert said[0] == said[1] == said[2], flow
            for seen, unseen in zip(_answers(reading, flow, item.netns_cookie), said[0], strict=True):
                assert unseen == seen or (seen.allowed and unseen.verdict is not seen.verdict), flow
                assert seen.allowed or not unseen.allowed, flow
                denied += unseen.unread
            names = state.names.of(random_asking.NAMES[0])
            assert judge.Judge(blind).query(flow, names).admission is judge.Admission.ADMITTED
    assert denied


def test_what_is_no_datagram_is_refused_where_a_filter_holds() -> None:
    """As the program has it: a stream can be cut so that nobody can tell what it asks."""
    key, number = plan.PolicyKey(7, 0, net.Direction.EGRESS, 0, 0, 0), 0x0F000001
    slot = plan.EndpointSlot(ingress_set=0, egress_set=7, held=False, egress_asks=True)
    tables = plan.Tables(
        policy={
            key: desired.Row(desired.Action.ALLOW, 0, asks=number),
            plan.filter_key(number, 9): desired.Row(desired.Action.ALLOW, 0),
        },
        endpoints={5: plan.EndpointValue(slots=(slot, slot), ingress_ifindex=0)},
        ep_by_ifindex={3: (5, 5)},
    )
    judging = judge.Judge(lookups.InTables(tables))
    client, server = (ipaddress.ip_address(f"10.0.0.{number}") for number in (1, 2))
    for protocol, admission in ((17, judge.Admission.ADMITTED), (6, judge.Admission.REFUSED)):
        flow = judge.Flow(client, server, protocol, 53)
        assert judging.query(flow, [9], interface=3).admission is admission
        assert judging.query(flow, [9]).admission is judge.Admission.ADMITTED, "the address is no pod's"
