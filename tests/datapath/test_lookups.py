"""Looking into a state and looking into its tables are one and the same."""

from __future__ import annotations

import ipaddress
import random

import pytest

from agent import desired
from agent.datapath import judge, lookups, plan
from agent.model import net
from tests.states import pictures

QUESTIONS = 60
ELSEWHERE = tuple(map(ipaddress.ip_address, ("198.51.100.7", "10.0.1.200", "2001:db8::7", "0.0.0.0", "::")))
PROTOCOLS = (1, 6, 17, 58, 132)
PORTS = (0, 53, 80, 81, 8080, 65535)


@pytest.mark.parametrize("name", pictures.NAMES)
def test_a_state_answers_as_the_tables_that_are_made_of_it(name: str) -> None:
    state = pictures.named(name)
    rng = random.Random(name)
    in_state, in_tables = lookups.InState(state), lookups.InTables(plan.at_rest(state))
    addresses = [*state.hosts, *(network[-1] for network in state.cidrs), *ELSEWHERE]
    for address in rng.choices(addresses, k=QUESTIONS):
        assert in_state.endpoint_of_address(address) == in_tables.endpoint_of_address(address)
        assert in_state.identity_of(address) == in_tables.identity_of(address)
        assert in_state.is_held(address) == in_tables.is_held(address)
    for item in (*state.endpoints.values(), None):
        number, cookie = (item.id, item.netns_cookie) if item else (0, 0)
        assert _seen(in_state.endpoint(number)) == _seen(in_tables.endpoint(number))
        assert in_state.endpoint_of_netns(cookie) == in_tables.endpoint_of_netns(cookie)
    for frontend in (*state.frontends, desired.Frontend(ELSEWHERE[0], 80, 6)):
        assert in_state.service_at(frontend) == in_tables.service_at(frontend)
        for number in (*state.sets, 1):
            service = in_state.service_at(frontend)
            assert in_state.service_class(number, service) == in_tables.service_class(number, service)


@pytest.mark.parametrize("name", pictures.NAMES)
def test_a_judge_says_the_same_by_either(name: str) -> None:
    state = pictures.named(name)
    rng = random.Random(name)
    by_state, by_tables = (
        judge.Judge(found_in) for found_in in (lookups.InState(state), lookups.InTables(plan.at_rest(state)))
    )
    addresses = [*state.hosts, *(network[-1] for network in state.cidrs), *ELSEWHERE]
    for _ in range(QUESTIONS):
        client = rng.choice(addresses)
        server = rng.choice([address for address in addresses if address.version == client.version])
        flow = judge.Flow(client, server, rng.choice(PROTOCOLS), rng.choice(PORTS))
        for hook in judge.Hook:
            assert by_state.packet(flow, hook) == by_tables.packet(flow, hook), (flow, hook)
        for item in state.endpoints.values():
            asked = (item.netns_cookie, server, flow.protocol, flow.port)
            assert by_state.connect(*asked) == by_tables.connect(*asked), asked


def test_rows_of_one_direction_say_nothing_of_the_other() -> None:
    state = pictures.named("allowed by port name")
    in_state, in_tables = lookups.InState(state), lookups.InTables(plan.at_rest(state))
    for number, policy_set in state.sets.items():
        for key in policy_set.rows:
            for direction in net.Direction:
                asked = (number, key.identity, direction, key.protocol, key.port)
                found = in_state.row(*asked)
                assert found == in_tables.row(*asked)
                assert (found is not None) == (direction is policy_set.direction)


def test_an_endpoint_is_found_by_its_veth() -> None:
    state = pictures.named("isolated")
    in_state = lookups.InState(state)
    for item in state.endpoints.values():
        assert not item.veth_ifindex or in_state.endpoint_of_interface(item.veth_ifindex) == item.id
    assert in_state.endpoint_of_interface(0) == 0


def _seen(subject: lookups.Subject | None) -> tuple[int, int, bool] | None:
    return None if subject is None else (subject.ingress_set, subject.egress_set, subject.held)
