"""A judgement with its look-ups kept is the judgement, and a row that differs shows where it was looked at."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from typing import Any, cast

import pytest

from agent import desired
from agent.datapath import judge, lookups, plan, tracing, walk, words
from agent.fqdn import classes, patterns
from agent.model import identity, net, verdict
from tests.states import pictures

QUESTIONS = 12
SOME = tuple(pictures.NAMES)[::6]
ELSEWHERE = tuple(map(ipaddress.ip_address, ("198.51.100.7", "10.0.1.200", "2001:db8::7")))
A, B = ipaddress.ip_address("10.0.1.2"), ipaddress.ip_address("10.0.1.3")
LAYERS = frozenset(verdict.Layer)


@pytest.mark.parametrize("name", SOME)
def test_what_is_recorded_decides_as_the_state_does(name: str) -> None:
    state = pictures.named(name)
    rng = random.Random(name)
    by_state = judge.Judge(lookups.InState(state))
    addresses = [*state.hosts, *(network[-1] for network in state.cidrs), *ELSEWHERE]
    for _ in range(QUESTIONS):
        client = rng.choice(addresses)
        server = rng.choice([address for address in addresses if address.version == client.version])
        flow = judge.Flow(client, server, rng.choice((1, 6, 17)), rng.choice((0, 80, 81, 8080)))
        recording = walk.Recording(walk.of_state(state, client, server))
        for hook in judge.Hook:
            assert judge.Judge(recording).packet(flow, hook) == by_state.packet(flow, hook)
        for item in (one for one in state.endpoints.values() if client in one.addresses):
            asked = (item.netns_cookie, server, flow.protocol, flow.port)
            assert judge.Judge(recording).connect(*asked) == by_state.connect(*asked)


def state() -> desired.DesiredState:
    return pictures.named("isolated")


def question(flow: judge.Flow) -> tracing.Question:
    return tracing.Question(flow=flow, hook=judge.Hook.FORWARD)


def test_what_dns_has_said_is_put_to_the_state_too_and_shown_as_rows_of_names() -> None:
    drawn = state()
    endpoint = next(item for item in drawn.endpoints.values() if A in item.addresses)
    pattern = patterns.parse_cilium_name("api.example.com")
    known = classes.build([[pattern]])
    (number,) = known.of("api.example.com")
    row = desired.Row(desired.Action.ALLOW, 1, 0)
    named = desired.PolicySet(
        id=77,
        digest=b"",
        direction=net.Direction.EGRESS,
        rows={desired.RowKey(number, 6, 443, 16): row},
        isolating=(),
    )
    isolated = dataclasses.replace(endpoint, egress_set=77, egress_audit=0)
    drawn = dataclasses.replace(
        drawn, endpoints={isolated.id: isolated}, sets={**drawn.sets, 77: named}, names=known, hosts={}, cidrs={}
    )
    asked = question(judge.Flow(A, ELSEWHERE[0], 6, 443))
    for learned, allowed in ({}, False), ({(isolated.id, ELSEWHERE[0]): (number,)}, True):
        place = walk.InTables(plan.at_rest(drawn), learned)
        (layer,) = tracing.by_look_ups(place, asked, drawn, LAYERS)
        assert (layer.compiled.allowed, layer.loaded.allowed, layer.differences) == (allowed, allowed, ())
        shown = [look.key for look in layer.loaded.lookups if "api.example.com" in look.key]
        assert shown == ([f"set 77, egress, names {number} (api.example.com), 443/TCP"] if allowed else [])


def test_the_entry_that_answered_is_the_longest_prefix() -> None:
    key = plan.PolicyKey(7, 300, net.Direction.EGRESS, 6, 443, 16)
    rows = {
        plan.PolicyKey(7, 300, net.Direction.EGRESS, 6, 440, 13): desired.Row(desired.Action.ALLOW, 1),
        plan.PolicyKey(7, 300, net.Direction.EGRESS, 0, 0, 0): desired.Row(desired.Action.DENY, 2),
    }
    place = walk.InTables(plan.Tables(policy=rows))
    assert place.look(plan.Table.POLICY, key) == walk.Found(*next(iter(rows.items())))
    other = place.look(plan.Table.POLICY, key._replace(port=80))
    assert other is not None
    assert other.entry.protocol == desired.ANY_PROTOCOL
    assert place.look(plan.Table.POLICY, key._replace(set=8)) is None
    assert len(list(walk.entries(plan.Table.POLICY, key))) == 18
    nets = {ipaddress.ip_network("10.0.0.0/8"): (5, 5), ipaddress.ip_network("10.0.1.0/24"): (6, 0)}
    assert walk.InTables(plan.Tables(ipcache_cidr=nets)).look(plan.Table.IPCACHE_CIDR, A) == walk.Found(
        ipaddress.ip_network("10.0.1.0/24"), 6
    )


def test_a_slot_that_does_not_count_answers_nothing() -> None:
    tables = plan.Tables(generation=1, ep_by_ip={A: (5, 0)})
    assert walk.InTables(tables).look(plan.Table.EP_BY_IP, A) is None
    assert walk.InTables(dataclasses.replace(tables, generation=2)).look(plan.Table.EP_BY_IP, A) == walk.Found(A, 5)


def traced(tables: plan.Tables, known: desired.DesiredState, flow: judge.Flow) -> tracing.Layer:
    (found,) = tracing.by_look_ups(walk.InTables(tables), question(flow), known, LAYERS)
    return found


@pytest.mark.parametrize("name", SOME)
def test_tables_that_are_as_compiled_differ_nowhere(name: str) -> None:
    known = pictures.named(name)
    for client in known.hosts:
        for server in known.hosts:
            if client.version == server.version:
                layer = traced(plan.at_rest(known), known, judge.Flow(client, server, 6, 80))
                assert layer.differences == ()
                assert layer.compiled == layer.loaded


def test_each_row_that_was_taken_away_is_named_with_its_map() -> None:
    known = pictures.named("allowed by port name")
    tables = plan.at_rest(known)
    flow = next(
        judge.Flow(client, server, 6, 80)
        for client in known.hosts
        for server in known.hosts
        if client != server and traced(tables, known, judge.Flow(client, server, 6, 80)).loaded.reason == "rule_allowed"
    )
    whole = traced(tables, known, flow)
    for looked in whole.loaded.lookups:
        if not looked.entry:
            continue
        table = next(one for one in plan.Table if looked.table.rstrip("46") == one.value)
        says = words.Words(known)
        left = {key: value for key, value in tables.content(table).items() if says.key(table, key) != looked.entry}
        layer = traced(dataclasses.replace(tables, **cast("dict[str, Any]", {table.value: left})), known, flow)
        first = layer.differences[0]
        assert (first.table, first.row, first.found) == (looked.table, looked.key, tracing.NOTHING)
        assert first.expected.startswith(looked.value)


def test_the_socket_layer_is_asked_with_the_service_that_is_dialled() -> None:
    known = state()
    endpoint = next(iter(known.endpoints.values()))
    frontend = desired.Frontend(ipaddress.ip_address("10.96.0.1"), 80, 6)
    flow = judge.Flow(endpoint.addresses[0], B, 6, 8080)
    asked = tracing.Question(flow=flow, hook=judge.Hook.FORWARD, netns_cookie=endpoint.netns_cookie, dialled=frontend)
    socket, packet = tracing.by_look_ups(walk.InTables(plan.at_rest(known)), asked, known, LAYERS)
    assert (socket.hook, packet.hook) == ("connect", "forward")
    assert not any("8080" in look.key for look in socket.loaded.lookups)
    only = tracing.by_look_ups(walk.InTables(plan.at_rest(known)), asked, known, frozenset({verdict.Layer.SOCKET}))
    assert [one.layer for one in only] == [verdict.Layer.SOCKET]


def test_numbers_nobody_compiled_are_shown_bare() -> None:
    says = words.Words(desired.DesiredState())
    assert says.endpoint(5) == "endpoint 5 (unknown)"
    assert says.identity(300) == "identity 300 (unknown)"
    assert says.identity(identity.WORLD) == "identity 2 (world)"
    assert says.policy_set(0) == "not isolated"
    assert says.policy_set(9) == "set 9 (unknown)"
    assert says.rule(4) == "rule 4 (unknown)"
    pair = (plan.EndpointSlot(ingress_set=9, egress_set=0, held=True), None)
    value = plan.EndpointValue(slots=pair, ingress_ifindex=3)
    text = says.entry(plan.Table.ENDPOINTS, value)
    assert text == "slot 0: ingress: set 9 (unknown), egress: not isolated, held; slot 1: empty"


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ((0, 0, 0), "any protocol"),
        ((6, 0, 0), "TCP"),
        ((6, 443, 16), "443/TCP"),
        ((17, 8080, 13), "8080-8087/UDP"),
        ((1, 0, 16), "ICMP"),
        ((47, 0, 0), "47"),
    ],
)
def test_ports_are_written_as_people_do(row: tuple[int, int, int], text: str) -> None:
    assert words.ports(*row) == text


def test_rows_are_chosen_by_endpoint_or_set() -> None:
    known = state()
    endpoint = next(item for item in known.endpoints.values() if item.ingress_set)
    tables = plan.at_rest(known)
    for wanted in (tracing.Wanted(endpoint=endpoint), tracing.Wanted(policy_set=endpoint.ingress_set)):
        chosen = [
            key for key, value in tables.policy.items() if tracing.is_wanted(plan.Table.POLICY, key, value, wanted)
        ]
        assert all(key.set in walk.sets_of(endpoint) for key in chosen)
        of_endpoints = {
            key
            for key, value in tables.endpoints.items()
            if tracing.is_wanted(plan.Table.ENDPOINTS, key, value, wanted)
        }
        assert endpoint.id in of_endpoints
    wanted = tracing.Wanted(endpoint=endpoint)
    hosts = [key for key in tables.ipcache_host if tracing.is_wanted(plan.Table.IPCACHE_HOST, key, (1, 1), wanted)]
    assert hosts == list(endpoint.addresses)
    assert tracing.is_wanted(plan.Table.HELD, ipaddress.ip_network("10.0.0.0/8"), (1, 1), wanted)
    assert not tracing.is_wanted(plan.Table.FRONTEND, desired.Frontend(A, 80, 6), (1, 1), wanted)
