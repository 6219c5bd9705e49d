"""Filters in what is looked into: queries are judged alike by a state and by its tables, and told in words (E17)."""

from __future__ import annotations

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
