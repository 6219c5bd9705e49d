"""Policy sets of hand-made tiers: Admin, NetworkPolicy and Baseline, as later dialects will make them."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from agent import desired
from agent.model import identity, labels, net, resources, verdict
from agent.policy import rows, selectors, sets, tiers

TCP, UDP = net.Protocol.TCP, net.Protocol.UDP
INGRESS, EGRESS = net.Direction.INGRESS, net.Direction.EGRESS
ALLOW, DENY, PASS = tiers.Action.ALLOW, tiers.Action.DENY, tiers.Action.PASS
PORTS = (79, 80, 81, 8080)


def facts(app: str, *ports: resources.ContainerPort) -> identity.Facts:
    return identity.Facts(namespace="x", labels=labels.Labels({"app": app}), ports=ports)


IDENTITIES = tuple(
    identity.Identity(id=identity.NumericIdentity(256 + place), facts=each)
    for place, each in enumerate(
        (
            facts("a", resources.ContainerPort(80, TCP, "web")),
            facts("b", resources.ContainerPort(8080, TCP, "web"), resources.ContainerPort(81, TCP, "web")),
            facts("c"),
            identity.Facts(),
        )
    )
)
A, B, C, BARE = (each.id for each in IDENTITIES)
INDEX = selectors.Index(IDENTITIES)


def app(*values: str) -> tiers.Peer:
    requirement = labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset(values))
    return tiers.PodsPeer(pods=labels.LabelSelector((requirement,)), namespace="x")


def rule(
    action: tiers.Action, *peers: tiers.Peer, ports: tuple[resources.PortMatch, ...] | None = None, index: int = 0
) -> tiers.Rule:
    return tiers.Rule(action=action, index=index, peers=peers or None, ports=ports)


def port(number: int | str) -> tuple[resources.PortMatch]:
    found = number if isinstance(number, str) else net.PortRange(number, number)
    return (resources.PortMatch(protocol=TCP, port=found),)


def tier(name: str, *rules: tiers.Rule, kind: str = "NetworkPolicy") -> tiers.Tier:
    numbered = tuple(dataclasses.replace(each, index=index) for index, each in enumerate(rules))
    policy = tiers.Policy(
        ref=resources.ObjectRef(kind, "x", name),
        namespace="x",
        subject=labels.EVERYTHING,
        directions=frozenset(net.Direction),
        ingress=numbered,
        egress=numbered,
    )
    plain = kind == "NetworkPolicy"
    end = tiers.EndOfTier.DENY if plain else tiers.EndOfTier.NEXT_TIER
    return tiers.Tier(name=name, end=end, policies=(policy,), ordered=not plain)


def compiled(
    *stack: tiers.Tier, direction: net.Direction = EGRESS, ports: tuple[resources.ContainerPort, ...] = ()
) -> tuple[desired.PolicySet, dict[int, verdict.RuleRef]]:
    selection = sets.select([(each, each.policies) for each in stack], direction, labels.NO_LABELS, ports)
    assert selection is not None
    found, rules, _ = sets.build([selection], INDEX)
    return found[selection], rules


def judge(policy_set: desired.PolicySet, peer: int, protocol: int, number: int) -> desired.Row:
    for who in (peer, identity.ANY):
        keys = [desired.RowKey(who, protocol, number >> 16 - bits << 16 - bits, bits) for bits in range(16, -1, -1)]
        for key in (*keys, desired.RowKey(who, 0, 0, 0)):
            if key in policy_set.rows:
                return policy_set.rows[key]
    return rows.DEFAULT_DENY


def allowed(policy_set: desired.PolicySet, peer: int, number: int = 80) -> bool:
    return judge(policy_set, peer, TCP.value, number).action is desired.Action.ALLOW


def test_admin_deny_holds_whatever_network_policy_allows() -> None:
    admin = tier("admin", rule(DENY, app("a")), kind="ClusterNetworkPolicy")
    policy_set, rules = compiled(admin, tier("open", rule(ALLOW)))
    assert not allowed(policy_set, A)
    assert allowed(policy_set, B)
    denying = judge(policy_set, A, TCP.value, 80)
    assert rules[denying.rule].policy.kind == "ClusterNetworkPolicy"


def test_admin_allow_holds_whatever_network_policy_isolates() -> None:
    admin = tier("admin", rule(ALLOW, app("a"), ports=port(80)), kind="ClusterNetworkPolicy")
    policy_set, _ = compiled(admin, tier("deny"))
    assert (allowed(policy_set, A), allowed(policy_set, A, 81), allowed(policy_set, B)) == (True, False, False)


def test_admin_pass_leaves_one_peer_to_network_policy() -> None:
    admin = tier("admin", rule(PASS, app("a")), rule(ALLOW), kind="ClusterNetworkPolicy")
    policy_set, _ = compiled(admin, tier("deny"))
    assert not allowed(policy_set, A)
    assert allowed(policy_set, B)
    assert judge(policy_set, A, 1, 0) == rows.DEFAULT_DENY


def test_baseline_deny_holds_only_where_no_network_policy_isolates() -> None:
    baseline = tier("baseline", rule(DENY, app("a")), kind="ClusterNetworkPolicy")
    alone, _ = compiled(baseline)
    assert not allowed(alone, A)
    assert allowed(alone, B), "nothing isolates, so the rest is allowed"
    below, _ = compiled(tier("open", rule(ALLOW, app("a"))), baseline)
    assert allowed(below, A)
    assert not allowed(below, B), "isolated"


def test_a_port_name_means_each_peers_own_number_in_egress() -> None:
    """Rules A31, A32, A33."""
    policy_set, _ = compiled(tier("named", rule(ALLOW, ports=port("web"))))
    assert [number for number in PORTS if allowed(policy_set, A, number)] == [80]
    assert [number for number in PORTS if allowed(policy_set, B, number)] == [81, 8080]
    assert not any(allowed(policy_set, who, number) for who in (C, BARE) for number in PORTS)


def test_a_port_name_means_the_subjects_number_in_ingress() -> None:
    """Rule A31."""
    named = tier("named", rule(ALLOW, app("a", "b"), ports=port("web")))
    ports = (resources.ContainerPort(81, TCP, "web"), resources.ContainerPort(79, UDP, "web"))
    policy_set, _ = compiled(named, direction=INGRESS, ports=ports)
    assert [(who, number) for who in (A, B, C) for number in PORTS if allowed(policy_set, who, number)] == [
        (A, 81),
        (B, 81),
    ]
    other, _ = compiled(named, direction=INGRESS, ports=(resources.ContainerPort(80, TCP, "web"),))
    assert other.id != policy_set.id
    noise = (*ports, resources.ContainerPort(9, TCP, "metrics"))
    assert compiled(named, direction=INGRESS, ports=noise)[0] == policy_set


def test_where_any_peer_is_allowed_no_identity_has_a_row() -> None:
    policy_set, _ = compiled(tier("p", rule(ALLOW, app("a"), ports=port(80)), rule(ALLOW, ports=port(80))))
    assert {key.identity for key in policy_set.rows} == {identity.ANY}


def test_peers_and_ports_that_are_given_but_empty_match_nothing() -> None:
    """Rule A50: what could not be read must not widen."""
    nobody = tiers.Rule(action=ALLOW, index=0, peers=(), ports=None)
    nowhere = tiers.Rule(action=ALLOW, index=1, peers=None, ports=())
    policy_set, _ = compiled(tier("p", nobody, nowhere))
    assert policy_set.rows == {}
    assert policy_set.isolating == (resources.ObjectRef("NetworkPolicy", "x", "p"),)


def test_the_number_names_what_the_policies_say() -> None:
    base, _ = compiled(tier("p", rule(ALLOW, app("a"))))
    assert compiled(tier("p", rule(ALLOW, app("a"))))[0].id == base.id
    for other in (
        tier("q", rule(ALLOW, app("a"))),
        tier("p", rule(ALLOW, app("b"))),
        tier("p", rule(DENY, app("a"))),
        tier("p", rule(ALLOW, app("a"), ports=port(80))),
        tier("p", rule(ALLOW)),
    ):
        assert compiled(other)[0].id != base.id
    assert compiled(tier("p", rule(ALLOW, app("a"))), direction=INGRESS)[0].id != base.id


def interpret(stack: list[tiers.Tier], peer: identity.Identity, protocol: net.Protocol, number: int) -> bool:
    """Read egress of the tiers one rule after the other."""
    index = INDEX.members
    for each in stack:
        hits = []
        for policy in each.policies:
            for one in policy.egress:
                peers = one.peers is None or any(peer.id in index(INDEX.peer(item)) for item in one.peers)
                ports = one.ports is None or any(matches(item, peer, protocol, number) for item in one.ports)
                if peers and ports and one.action is not tiers.Action.LOG:
                    hits.append(one.action)
        if not each.ordered:
            hits.sort(key=(DENY, ALLOW, PASS).index)
        if hits and hits[0] is not PASS:
            return hits[0] is ALLOW
        if not hits and each.end is tiers.EndOfTier.DENY:
            return False
    return True


def matches(entry: resources.PortMatch, peer: identity.Identity, protocol: net.Protocol, number: int) -> bool:
    if entry.protocol is not protocol:
        return False
    if isinstance(entry.port, str):
        declared = {each.number for each in peer.facts.ports if (each.name, each.protocol) == (entry.port, protocol)}
        return number in declared
    return entry.port is None or number in entry.port


@pytest.mark.parametrize("seed", range(150))
def test_sets_of_random_tiers_say_what_the_tiers_say(seed: int) -> None:
    rng = random.Random(seed)

    def draw_rule() -> tiers.Rule:
        peers = tuple(app(*rng.sample("abc", rng.randint(1, 2))) for _ in range(rng.choice((0, 1, 1, 2))))
        ports = rng.choice(
            (None, port(80), port("web"), (*port("web"), *port(79)), (resources.PortMatch(protocol=UDP),))
        )
        return rule(rng.choice((*tiers.Action, ALLOW)), *peers, ports=ports)

    stack = [
        tier(
            f"tier-{place}",
            *(draw_rule() for _ in range(rng.randint(0, 4))),
            kind=rng.choice(("NetworkPolicy", "Other")),
        )
        for place in range(rng.randint(1, 3))
    ]
    policy_set, _ = compiled(*stack)
    for peer, protocol, number in itertools.product(IDENTITIES, (TCP, UDP), PORTS):
        row = judge(policy_set, peer.id, protocol.value, number)
        assert (row.action is desired.Action.ALLOW) == interpret(stack, peer, protocol, number)
