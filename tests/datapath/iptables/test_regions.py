"""Regions say port by port what the longest match says."""

from __future__ import annotations

import random

from agent import desired
from agent.datapath import memory, plan
from agent.datapath.iptables import regions
from agent.model import net
from tests.support import random_state

TCP, UDP, ICMP, GRE = 6, 17, 1, 47
SEEDS = 150


def of(lines: list[regions.Line], below: regions.Region = regions.NOTHING) -> regions.Region:
    return regions.of_lines(lines, below)


def test_a_longer_prefix_wins_whatever_the_order() -> None:
    lines = [(TCP, 80, 16, False), (TCP, 80, 13, True), (TCP, 0, 0, False)]
    for order in (lines, lines[::-1]):
        assert of(order) == regions.Region(base=False, protocols=((TCP, ((81, 87),)),))


def test_neighbouring_ports_are_one_span() -> None:
    lines = [(TCP, port, 16, True) for port in (80, 82, 81, 0, 65535)]
    assert of(lines).spans(TCP) == ((0, 0), (80, 82), (65535, 65535))


def test_a_row_for_any_protocol_hides_what_lies_below() -> None:
    below = of([(UDP, 53, 16, True)])
    assert of([(desired.ANY_PROTOCOL, 0, 0, False)], below) == regions.NOTHING
    assert of([(desired.ANY_PROTOCOL, 0, 0, True)], below) == regions.EVERYTHING
    assert of([(TCP, 80, 16, True)], below).spans(UDP) == ((53, 53),)


def test_what_says_nothing_new_leaves_no_trace() -> None:
    assert of([(TCP, 0, 0, True)], regions.EVERYTHING) == regions.EVERYTHING
    assert of([(TCP, 0, 0, False)]) == regions.NOTHING
    halves = [(TCP, 0, 1, True), (TCP, 32768, 1, True), (desired.ANY_PROTOCOL, 0, 0, True)]
    assert of(halves) == regions.EVERYTHING


def test_protocols_without_ports_are_all_or_nothing() -> None:
    assert of([(ICMP, 0, 0, True), (GRE, 0, 0, False)], regions.NOTHING).protocols == ((ICMP, regions.EVERY_PORT),)


def test_covering_is_asked_for_every_protocol() -> None:
    web, dns = of([(TCP, 80, 16, True)]), of([(UDP, 53, 16, True)])
    all_but_web = of([(TCP, 80, 16, False)], regions.EVERYTHING)
    both = of([(TCP, 80, 16, True)], dns)
    assert both.covers(web)
    assert not web.covers(both)
    assert not all_but_web.covers(web)
    assert all_but_web.covers(dns)
    assert not both.covers(all_but_web)
    assert regions.EVERYTHING.covers(all_but_web)
    assert web.covers(regions.NOTHING)


def test_random_sets_say_what_the_memory_datapath_finds() -> None:
    seen = set()
    for seed in range(SEEDS):
        dice = random.Random(seed)
        policy_set = random_state.policy_set(dice, 601, net.Direction.EGRESS, rows=dice.randint(0, 40))
        rows = {
            plan.PolicyKey(601, key.identity, net.Direction.EGRESS, key.protocol, key.port, key.port_bits): row
            for key, row in policy_set.rows.items()
        }
        found = regions.of_set(policy_set)
        for _ in range(40):
            who, protocol = dice.choice((*random_state.IDENTITIES[1:], 999)), dice.choice(random_state.PROTOCOLS)
            port = random_state.port(dice, protocol)
            expected = look_up(rows, who, protocol, port)
            assert found.of(who).allows(protocol, port) is expected, (seed, who, protocol, port)
            seen.add(expected)
    assert seen == {True, False}


def look_up(rows: dict[plan.PolicyKey, desired.Row], who: int, protocol: int, port: int) -> bool:
    """Ask the memory datapath, for which the server has identity `who`."""
    client, server = random_state.LOCAL[0], random_state.REMOTE[0]
    slot = plan.EndpointSlot(ingress_set=0, egress_set=601, held=False)
    tables = plan.Tables(
        policy=rows,
        endpoints={9: plan.EndpointValue(slots=(slot, slot), ingress_ifindex=0)},
        ep_by_ip={client: (9, 9)},
        ipcache_host={server: (who, who)},
    )
    asked = memory.MemoryDatapath(tables)
    return asked.judge(client=client, server=server, protocol=protocol, port=port).allowed
