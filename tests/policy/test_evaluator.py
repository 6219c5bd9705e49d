"""The evaluator by its rules, where a truth table cannot say it: reasons, bare addresses, ICMP, a pod and itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import random
from collections.abc import Iterable

from agent import snapshot
from agent.model import labels, net, resources, verdict
from agent.policy import evaluator

BOTH = frozenset(net.Direction)
INGRESS = frozenset({net.Direction.INGRESS})
EGRESS = frozenset({net.Direction.EGRESS})
ANY_RULE = (resources.PolicyRule(),)

NODE_1 = resources.Node(
    name="node-1", addresses=(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1"))
)
NODE_2 = resources.Node(name="node-2", addresses=(ipaddress.ip_address("192.0.2.2"),))


def pod(name: str, address: str, *more: str, node: str = "node-1", app: str = "") -> resources.Pod:
    namespace, _, short = name.partition("/")
    return resources.Pod(
        namespace=namespace,
        name=short,
        uid=name,
        labels=labels.Labels({"app": app or short}),
        node=node,
        addresses=tuple(ipaddress.ip_address(text) for text in (address, *more)),
        ports=(resources.ContainerPort(8080, net.Protocol.TCP, "http"),),
    )


A = pod("x/a", "10.0.1.1", "fd00::1")
B = pod("x/b", "10.0.2.1", "fd00::2", node="node-2")


def app(value: str) -> labels.LabelSelector:
    requirement = labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({value}))
    return labels.LabelSelector((requirement,))


def policy(
    name: str,
    *,
    subject: labels.LabelSelector = labels.EVERYTHING,
    directions: frozenset[net.Direction] = INGRESS,
    ingress: tuple[resources.PolicyRule, ...] = (),
    egress: tuple[resources.PolicyRule, ...] = (),
    namespace: str = "x",
) -> resources.NetworkPolicy:
    return resources.NetworkPolicy(
        namespace=namespace, name=name, subject=subject, directions=directions, ingress=ingress, egress=egress
    )


def peers(*wanted: resources.Peer) -> tuple[resources.PolicyRule, ...]:
    return (resources.PolicyRule(peers=wanted),)


def block(cidr: str) -> resources.IPBlock:
    return resources.IPBlock(cidr=ipaddress.ip_network(cidr))


def cluster(*policies: resources.NetworkPolicy, pods: Iterable[resources.Pod] = (A, B)) -> snapshot.Snapshot:
    return snapshot.build([NODE_1, NODE_2, *pods, *policies])


def flow(source: evaluator.Party | str, destination: evaluator.Party | str, port: int = 80) -> evaluator.Flow:
    """Build a flow between parties, or from or to bare addresses; the first addresses of the parties."""
    source_address = ipaddress.ip_address(source) if isinstance(source, str) else _first(source)
    destination_address = ipaddress.ip_address(destination) if isinstance(destination, str) else _first(destination)
    return evaluator.Flow(
        source=None if isinstance(source, str) else source,
        destination=None if isinstance(destination, str) else destination,
        source_address=source_address,
        destination_address=destination_address,
        protocol=net.Protocol.TCP,
        port=port,
    )


def _first(party: evaluator.Party) -> net.Address:
    assert party is not None
    return party.addresses[0]


def test_without_a_policy_everything_is_allowed_and_the_reason_says_so() -> None:
    """Rule A15."""
    decision = evaluator.evaluate(cluster(), flow(A, B))
    assert decision.allowed
    assert decision.ingress.isolating == ()
    assert "no policy selects x/b for ingress" in decision.ingress.because
    assert "(A15)" in decision.ingress.because


def test_each_side_is_judged_at_its_own_pod_and_both_are_reported() -> None:
    """Rules A14, A16."""
    deny = policy("closed", subject=app("b"))
    decision = evaluator.evaluate(cluster(deny), flow(A, B))
    assert decision.egress.allowed
    assert decision.egress.subject == resources.ObjectRef("Pod", "x", "a")
    assert not decision.ingress.allowed
    assert decision.ingress.subject == resources.ObjectRef("Pod", "x", "b")
    assert not decision.allowed
    assert evaluator.evaluate(cluster(deny), flow(B, A)).allowed


def test_a_denial_names_the_policies_that_isolate_and_no_rule() -> None:
    """Rule A15: nothing denies but the absence of an allow."""
    decision = evaluator.evaluate(cluster(policy("two"), policy("one")), flow(A, B))
    names = [ref.name for ref in decision.ingress.isolating]
    assert names == ["one", "two"]
    assert decision.ingress.rule is None


def test_the_rule_that_is_named_is_the_first_by_policy_name_and_place() -> None:
    """Rule A15: which of several rules is named must not depend on the order of the input."""
    nobody = resources.PolicyRule(peers=())
    wide = policy("wide", ingress=(nobody, *ANY_RULE))
    narrow = policy("narrow", ingress=(nobody, nobody, *peers(resources.PodPeer(pods=app("a")))))
    for order in itertools.permutations((wide, narrow, policy("deny"))):
        rule = evaluator.evaluate(cluster(*order), flow(A, B)).ingress.rule
        assert rule == verdict.RuleRef(narrow.ref, net.Direction.INGRESS, 2)


def test_nodes_hosts_and_unknown_addresses_are_never_subjects() -> None:
    """Rule A18."""
    host = resources.Host(name="far", addresses=(ipaddress.ip_address("198.51.100.1"),))
    everything = cluster(policy("deny", directions=BOTH))
    for party in (NODE_2, host, "203.0.113.9"):
        decision = evaluator.evaluate(everything, flow(party, NODE_2))
        assert decision.allowed
        assert decision.egress.subject is None
        assert "(A18)" in decision.egress.because


def test_a_block_matches_an_address_nobody_is_known_to_have() -> None:
    """Rules A21, A22."""
    outside = flow("203.0.113.9", B)
    everybody = resources.PodPeer(namespaces=labels.EVERYTHING)
    assert evaluator.evaluate(cluster(policy("p", ingress=peers(block("203.0.113.0/24")))), outside).allowed
    assert not evaluator.evaluate(cluster(policy("p", ingress=peers(everybody))), outside).allowed


def test_ipv4_mapped_addresses_are_judged_as_ipv4() -> None:
    """Rule A24: a dual-stack socket must not slip past an IPv4 block, nor be kept out by one that names it."""
    allow_a = cluster(policy("p", ingress=peers(block("10.0.1.1/32"))))
    mapped = dataclasses.replace(
        flow(A, B),
        source_address=ipaddress.ip_address("::ffff:10.0.1.1"),
        destination_address=ipaddress.ip_address("::ffff:10.0.2.1"),
    )
    assert evaluator.evaluate(allow_a, mapped).allowed
    everything_v6 = cluster(policy("p", ingress=peers(block("::/0"))))
    assert not evaluator.evaluate(everything_v6, mapped).allowed


def test_an_undeclared_port_is_allowed_by_its_number() -> None:
    """Rules A30, A34: declarations matter to names alone."""
    entry = resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(9999, 9999))
    only = cluster(policy("p", ingress=(resources.PolicyRule(ports=(entry,)),)))
    assert evaluator.evaluate(only, flow(A, B, 9999)).allowed
    assert not evaluator.evaluate(only, flow(A, B, 8080)).allowed


def test_a_port_name_is_looked_up_at_the_destination_in_both_directions() -> None:
    """Rules A31, A32."""
    entry = resources.PortMatch(protocol=net.Protocol.TCP, port="http")
    rule = (resources.PolicyRule(ports=(entry,)),)
    both = cluster(policy("p", directions=BOTH, ingress=rule, egress=rule))
    assert evaluator.evaluate(both, flow(A, B, 8080)).allowed
    assert not evaluator.evaluate(both, flow(A, B, 80)).allowed
    assert not evaluator.evaluate(both, flow(A, "203.0.113.9", 8080)).allowed


def test_a_finished_pod_is_neither_subject_nor_peer() -> None:
    """Rule A27."""
    done = dataclasses.replace(A, phase=resources.PodPhase.SUCCEEDED)
    allow_a = cluster(policy("p", ingress=peers(resources.PodPeer(pods=app("a")))), pods=(done, B))
    assert not evaluator.evaluate(allow_a, flow(done, B)).allowed
    assert evaluator.evaluate(allow_a, flow(B, done)).allowed


def test_an_address_that_two_pods_claim_is_the_running_ones() -> None:
    """Rule A27."""
    pending = dataclasses.replace(pod("x/aa", "10.0.1.1"), phase=resources.PodPhase.PENDING)
    done = dataclasses.replace(pod("w/done", "10.0.1.1"), phase=resources.PodPhase.FAILED)
    claimed = cluster(pods=(pending, done, A))
    assert evaluator.party_at(claimed, ipaddress.ip_address("10.0.1.1")) == A
    assert evaluator.party_at(claimed, ipaddress.ip_address("::ffff:10.0.1.1")) == A
    assert evaluator.party_at(claimed, ipaddress.ip_address("192.0.2.2")) == NODE_2
    assert evaluator.party_at(claimed, ipaddress.ip_address("203.0.113.9")) is None


def test_a_pods_own_node_always_reaches_it_by_name_address_or_host_network() -> None:
    """Rules A37, A26: either family, the node itself or a hostNetwork pod of it."""
    closed = cluster(policy("deny", directions=BOTH))
    agent = dataclasses.replace(pod("x/agent", "192.0.2.1"), host_network=True)
    by_ipv6 = dataclasses.replace(flow("2001:db8::1", A), destination_address=A.addresses[1])
    for inbound in (flow(NODE_1, A), flow(agent, A), flow("192.0.2.1", A), by_ipv6):
        decision = evaluator.evaluate(closed, inbound)
        assert decision.allowed
        assert "(A37)" in decision.ingress.because
    for inbound in (flow(NODE_2, A), flow("192.0.2.2", A), flow(dataclasses.replace(agent, node="node-2"), A)):
        assert not evaluator.evaluate(closed, inbound).allowed
    assert not evaluator.evaluate(closed, flow(A, NODE_1)).allowed


def test_a_pod_always_reaches_itself_at_its_own_addresses_and_loopback() -> None:
    """Rule A40."""
    closed = cluster(policy("deny", directions=BOTH))
    other_address = dataclasses.replace(flow(A, A), destination_address=A.addresses[1])
    for own in (flow(A, A), other_address, flow("127.0.0.1", "127.0.0.1")):
        decision = evaluator.evaluate(closed, own)
        assert decision.allowed
        assert "(A40)" in decision.egress.because


def test_a_pod_that_reaches_itself_through_a_service_is_judged() -> None:
    """Rule A40."""
    hairpin = dataclasses.replace(flow(A, A), via_service=True)
    own = peers(resources.PodPeer(pods=app("a")))
    assert not evaluator.evaluate(cluster(policy("deny", directions=BOTH)), hairpin).allowed
    assert not evaluator.evaluate(cluster(policy("deny", directions=EGRESS)), hairpin).allowed
    assert evaluator.evaluate(cluster(policy("p", directions=BOTH, ingress=own, egress=own)), hairpin).allowed


def test_icmp_is_allowed_by_rules_for_every_port_only() -> None:
    """Rule A41."""
    ping = dataclasses.replace(flow(A, B, 0), protocol=net.Protocol.ICMP)
    every_port = tuple(resources.PortMatch(protocol=protocol) for protocol in net.Protocol if protocol.value in (6, 17))
    assert evaluator.evaluate(cluster(), ping).allowed
    assert evaluator.evaluate(cluster(policy("p", ingress=ANY_RULE)), ping).allowed
    limited = policy("p", ingress=(resources.PolicyRule(ports=every_port),))
    assert not evaluator.evaluate(cluster(limited), ping).allowed


def test_masqueraded_traffic_is_judged_by_the_nodes_address_it_arrives_with() -> None:
    """Rule A43."""
    masqueraded = flow("192.0.2.2", A)
    everybody = resources.PodPeer(namespaces=labels.EVERYTHING)
    assert not evaluator.evaluate(cluster(policy("p", ingress=peers(everybody))), masqueraded).allowed
    assert evaluator.evaluate(cluster(policy("p", ingress=peers(block("192.0.2.2/32")))), masqueraded).allowed


def test_a_multicast_group_is_nobodys_pod() -> None:
    """Rule A44: only an ipBlock names it."""
    group = flow(A, "224.0.0.251", 5353)
    everybody = resources.PodPeer(namespaces=labels.EVERYTHING)
    assert not evaluator.evaluate(cluster(policy("p", directions=EGRESS, egress=peers(everybody))), group).allowed
    assert evaluator.evaluate(
        cluster(policy("p", directions=EGRESS, egress=peers(block("224.0.0.0/4")))), group
    ).allowed


def test_the_walk_shows_every_policy_rule_peer_and_port_and_ends_in_the_same_decision() -> None:
    """Rules A11, A6, A17: also what came after the match, and policies that do not count."""
    entry = resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(80, 80))
    rules = (
        resources.PolicyRule(peers=(resources.PodPeer(pods=app("c")), block("10.0.1.0/24")), ports=(entry,)),
        resources.PolicyRule(peers=()),
    )
    found = cluster(
        policy("allow", subject=app("b"), ingress=rules),
        policy("elsewhere", subject=app("z")),
        policy("out", directions=EGRESS),
        policy("foreign", namespace="y"),
    )
    walk = evaluator.walk(found, flow(A, B))
    assert walk.decision == evaluator.evaluate(found, flow(A, B))
    (tier,) = walk.ingress.tiers
    allow, elsewhere, out = tier.policies
    assert [rule.matches for rule in allow.rules] == [True, False]
    assert [finding.matches for finding in allow.rules[0].peers] == [False, True]
    assert "app=a, wanted one of 'c'" in allow.rules[0].peers[0].because
    assert allow.rules[1].peers == ()
    assert not elsewhere.isolates
    assert "app=b, wanted one of 'z'" in elsewhere.because
    assert not out.isolates
    assert "(A6, A7)" in out.because


def test_splitting_a_policy_by_rule_and_changing_the_order_change_no_decision() -> None:
    """Rule A15: a union has no order and no grouping."""
    drawn = random.Random(20261121)
    choices = (
        *peers(resources.PodPeer(pods=app("a"))),
        *peers(block("10.0.1.0/24")),
        resources.PolicyRule(ports=(resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(80, 443)),)),
        resources.PolicyRule(peers=()),
    )
    for _ in range(50):
        rules = tuple(drawn.choices(choices, k=3))
        subject = drawn.choice((app("b"), labels.EVERYTHING))
        whole = cluster(policy("p", subject=subject, ingress=rules))
        parts = [policy(f"p{i}", subject=subject, ingress=(rule,)) for i, rule in enumerate(rules)]
        drawn.shuffle(parts)
        for one in (flow(A, B), flow(B, A), flow("203.0.113.9", B), flow(A, B, 8080)):
            assert evaluator.evaluate(whole, one).allowed is evaluator.evaluate(cluster(*parts), one).allowed
