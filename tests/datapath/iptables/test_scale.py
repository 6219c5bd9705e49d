"""What a node costs in rules, what one packet costs in rules, and what a change leaves alone."""

from __future__ import annotations

import dataclasses
import ipaddress
import random

from agent import desired
from agent.datapath.iptables import interpreter, render, ruleset
from agent.model import identity, net
from tests.support import random_state

ALLOW = desired.Action.ALLOW
FAMILY = net.Family.IPV4
Table = ruleset.Table
IDENTITIES = 500
FIRST = int(ipaddress.IPv4Address("10.0.0.0"))


def address(index: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(FIRST + index)


def policy_set(number: int, direction: net.Direction, *, policies: int) -> desired.PolicySet:
    """Allow each of so many peers a port of its own."""
    dice = random.Random(number)
    rows = {
        desired.RowKey(256 + dice.randrange(IDENTITIES), 6, 1000 + dice.randrange(2000), 16): desired.Row(ALLOW, 1)
        for _ in range(policies)
    }
    return desired.PolicySet(id=number, digest=b"", direction=direction, rows=rows, isolating=())


def node(pods: int, sets: int, *, policies: int = 20) -> desired.DesiredState:
    """Return a node with as many egress sets as ingress sets, spread over its pods."""
    half = sets // 2
    made = [policy_set(1000 + number, net.Direction.EGRESS, policies=policies) for number in range(half)]
    made += [policy_set(5000 + number, net.Direction.INGRESS, policies=policies) for number in range(half)]
    endpoints = [
        desired.Endpoint(
            id=1 + index,
            namespace="x",
            pod=f"p{index}",
            uid=f"u{index}",
            labels={},
            netns_cookie=index + 1,
            veth_ifindex=10 + index,
            ingress_ifindex=10 + index,
            addresses=(address(index),),
            egress_set=1000 + index % half,
            ingress_set=5000 + index % half,
        )
        for index in range(pods)
    ]
    return desired.DesiredState(
        endpoints={item.id: item for item in endpoints},
        sets={each.id: each for each in made},
        hosts={address(index): identity.NumericIdentity(256 + index % IDENTITIES) for index in range(pods)},
    )


def rules_of(state: desired.DesiredState) -> ruleset.Ruleset:
    return render.render(state, FAMILY, interfaces(state), 1)


def interfaces(state: desired.DesiredState) -> dict[int, str]:
    return {
        item.veth_ifindex: f"veth{item.veth_ifindex * 2654435761 % (1 << 32):08x}" for item in state.endpoints.values()
    }


def count(rules: ruleset.Ruleset) -> int:
    return sum(len(found) for chains in rules.chains.values() for found in chains.values())


def most_visited(state: desired.DesiredState, rules: ruleset.Ruleset) -> int:
    """Return the rules that the unluckiest of some packets meets on its whole way through the node."""
    model = interpreter.Model(rules)
    dice = random.Random(1)
    names = interfaces(state)
    most = 0
    for item in dice.sample(list(state.endpoints.values()), 60):
        packet = interpreter.Packet(
            source=item.addresses[0],
            destination=dice.choice(list(state.hosts)),
            protocol=6,
            source_port=dice.randrange(1, 4000),
            destination_port=dice.randrange(1, 4000),
            interface=names[item.veth_ifindex],
        )
        for reply in (False, True):
            before = model.hook("PREROUTING", packet)
            assert before.passed
            after = model.hook("FORWARD", dataclasses.replace(packet, reply=reply, state="ESTABLISHED"))
            most = max(most, before.visited + after.visited)
    return most


def test_rules_grow_with_policy_sets_and_pods_and_not_with_policies_or_peers() -> None:
    few, many = (count(rules_of(node(110, 200, policies=policies))) for policies in (20, 100))
    assert many - few < 10
    assert many < 110 * 8 + 200 * 6 + 100


def test_a_packet_meets_few_rules() -> None:
    state = node(110, 200)
    assert most_visited(state, rules_of(state)) < 100


def test_a_packet_meets_hardly_more_rules_among_four_thousand_pods() -> None:
    state = node(4000, 20)
    assert most_visited(state, rules_of(state)) < 180


def test_policy_sets_with_the_same_peers_share_sets() -> None:
    peers = {desired.RowKey(256 + number, 6, 80, 16): desired.Row(ALLOW, 1) for number in range(50)}
    state = node(110, 200)
    sets = {number: dataclasses.replace(each, rows=peers) for number, each in state.sets.items()}
    assert len([name for name in rules_of(dataclasses.replace(state, sets=sets)).sets if "-N-" in name]) == 1


def test_names_are_as_short_as_the_kernel_wants_them() -> None:
    for seed in range(30):
        state = random_state.state(random.Random(seed))
        for family in net.Family:
            rules = render.render(state, family, {}, 1)
            chains = [name for found in rules.chains.values() for name in found]
            assert all(len(name) <= 28 and name.startswith(ruleset.CHAIN_PREFIX) for name in chains)
            assert all(len(name) <= 30 and name.startswith(ruleset.SET_PREFIX) for name in rules.sets)


def test_everything_a_rule_refers_to_is_there_and_nothing_else_is() -> None:
    for seed in range(30):
        state = random_state.state(random.Random(seed))
        for family in net.Family:
            rules = render.render(state, family, {900: "veth900"}, 1)
            all_rules = [rule for chains in rules.chains.values() for found in chains.values() for rule in found]
            assert {name for rule in all_rules for name in rule.sets} == set(rules.sets)
            for table, chains in rules.chains.items():
                wanted = {
                    rule.words[-1] for found in chains.values() for rule in found if rule.words[-2] in {"-g", "-j"}
                }
                entered = {jump.chain for jump in rules.jumps[table]}
                assert {name for name in wanted if name.startswith(ruleset.CHAIN_PREFIX)} <= set(chains)
                assert all(name in wanted or name in entered for name in chains), set(chains) - wanted - entered


def test_no_set_holds_everything_as_one_prefix_and_none_is_empty() -> None:
    for seed in range(60):
        state = random_state.state(random.Random(seed))
        for family in net.Family:
            for content in render.render(state, family, {}, 1).sets.values():
                assert content.members
                assert all(member.network.prefixlen for member in content.members)
                assert {net.family_of(member.network) for member in content.members} == {family}


def test_the_same_state_gives_the_same_rules_whatever_the_order_and_the_past() -> None:
    cache = render.Cache()
    for seed in range(40):
        state = random_state.state(random.Random(seed))
        turned = dataclasses.replace(
            state,
            endpoints=dict(list(state.endpoints.items())[::-1]),
            sets=dict(list(state.sets.items())[::-1]),
            hosts=dict(list(state.hosts.items())[::-1]),
            cidrs=dict(list(state.cidrs.items())[::-1]),
        )
        for family in net.Family:
            expected = render.render(state, family, {900: "veth900"}, 1)
            assert render.render(turned, family, {900: "veth900"}, 1) == expected
            assert render.render(state, family, {900: "veth900"}, 1, cache) == expected


def test_with_a_cache_what_has_not_changed_is_the_same_object() -> None:
    cache = render.Cache()
    state = node(110, 20, policies=100)
    first = render.render(state, FAMILY, {}, 1, cache)
    hosts = {**state.hosts, address(5000): identity.NumericIdentity(300)}
    second = render.render(dataclasses.replace(state, hosts=hosts), FAMILY, {}, 2, cache)
    changed = {name for name in second.sets if second.sets[name] != first.sets.get(name)}
    assert 0 < len(changed) < len(second.sets)
    kept = [name for name in second.sets if "-P-" in name and name not in changed]
    assert all(second.sets[name] is first.sets[name] for name in kept)


def test_a_new_generation_changes_only_the_rules_that_log() -> None:
    for family in net.Family:
        state = random_state.state(random.Random(3))
        first, second = (render.render(state, family, {900: "veth900"}, generation) for generation in (1, 2))
        assert first.sets == second.sets
        for table, chains in first.chains.items():
            changed = {name for name, rules in chains.items() if rules != second.chains[table][name]}
            log = {"NW-LOG", "NW-DENY", "NW-DENY-R", "NW-BLAME", "NW-FORGED", "NW-UNJUDGED"}
            assert changed <= log


def test_a_policy_edit_changes_its_own_chains_and_sets_only() -> None:
    state = node(110, 200)
    edited = dataclasses.replace(state, sets={**state.sets, 1003: policy_set(1003, net.Direction.EGRESS, policies=21)})
    first, second = rules_of(state), rules_of(edited)
    for table, chains in first.chains.items():
        changed = {name for name, rules in second.chains[table].items() if rules != chains.get(name)}
        assert changed <= {"NW-SET-000003eb", "NW-SET-000003eb-R"}
        assert chains.keys() == second.chains[table].keys()
    gone, come = first.sets.keys() - second.sets.keys(), second.sets.keys() - first.sets.keys()
    assert (len(gone), len(come)) == (1, 1)
    assert all(second.sets[name] == content for name, content in first.sets.items() if name not in gone)


def test_a_pod_that_comes_changes_few_chains() -> None:
    state = node(2000, 20)
    endpoints = dict(state.endpoints)
    del endpoints[1000]
    first, second = rules_of(dataclasses.replace(state, endpoints=endpoints)), rules_of(state)
    for table, chains in first.chains.items():
        changed = {name for name, rules in second.chains[table].items() if rules != chains.get(name)}
        assert len(changed) <= 6
