"""ClusterNetworkPolicy is read rule by rule; what cannot be honoured is made up for in its place (rules D1 to D14)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agent import decode
from agent.decode import cluster, policies
from agent.model import fqdn, labels, resources
from tests.decode import samples

ALLOW, DENY, PASS = resources.RuleAction.ALLOW, resources.RuleAction.DENY, resources.RuleAction.PASS
ANYBODY = resources.PodPeer(namespaces=labels.EVERYTHING)
EVERYBODY: dict[str, Any] = {"namespaces": {}}


def _decode(**spec: Any) -> tuple[resources.NetworkPolicy, list[str]]:
    decoded = decode.decode(samples.cluster_policy(**spec))
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    return decoded.resource, [problem.path for problem in decoded.problems]


def _rule(action: str = "Accept", **rule: Any) -> tuple[resources.PolicyRule, list[str]]:
    policy, paths = _decode(egress=[{"action": action, "to": [EVERYBODY], **rule}])
    (found,) = policy.egress
    return found, paths


def test_tier_priority_and_subject_are_read_d1_d7() -> None:
    policy, paths = _decode(tier="Baseline", priority=7, subject={"pods": {"namespaceSelector": {}, "podSelector": {}}})
    assert (policy.tier, policy.priority, paths) == (resources.Tier.BASELINE, 7, [])
    assert (policy.subject, policy.subject_namespaces) == (labels.EVERYTHING, labels.EVERYTHING)
    assert (policy.directions, policy.ref) == (frozenset(), resources.ObjectRef("ClusterNetworkPolicy", "", "w"))


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"tier": "admin"}, "spec.tier"),
        ({"tier": None}, "spec.tier"),
        ({"priority": 1001}, "spec.priority"),
        ({"priority": None}, "spec.priority"),
        ({"subject": {}}, "spec.subject"),
        ({"subject": {"pods": {"podSelector": {}}}}, "spec.subject.pods.namespaceSelector"),
        ({"subject": {"namespaces": {}, "pods": {"podSelector": {}, "namespaceSelector": {}}}}, "spec.subject"),
        ({"unknown": 1}, "spec.unknown"),
    ],
)
def test_a_policy_that_may_be_meant_otherwise_only_denies_and_does_so_first_a50(wrong: Any, path: str) -> None:
    rules = [{"action": action, "from": [EVERYBODY]} for action in ("Accept", "Deny", "Pass")]
    policy, paths = _decode(ingress=rules, **wrong)
    assert paths == [path]
    assert policy.ingress == (
        policies.NO_MATCH,
        resources.PolicyRule(peers=(ANYBODY,), action=DENY),
        cluster.DENY_ALL,
    )
    assert (policy.tier, policy.priority) == (resources.Tier.ADMIN, 0)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"namespaces": {}}, ANYBODY),
        (
            {"pods": {"namespaceSelector": {}, "podSelector": {}}},
            resources.PodPeer(pods=labels.EVERYTHING, namespaces=labels.EVERYTHING),
        ),
        ({"networks": ["10.0.0.0/8"]}, resources.IPBlock(cidr=ipaddress.ip_network("10.0.0.0/8"))),
        (
            {"domainNames": ["*.Example.com."]},
            resources.NamesPeer(patterns=(fqdn.NamePattern(fqdn.Dialect.CLUSTER_NETWORK_POLICY, "*.example.com"),)),
        ),
    ],
)
def test_each_peer_has_one_field_d8(peer: Any, expected: resources.Peer) -> None:
    assert _rule(to=[peer]) == (resources.PolicyRule(peers=(expected,)), [])


@pytest.mark.parametrize(
    ("peer", "path"),
    [
        ({}, ""),
        ({"services": {}}, ".services"),
        ({"namespaces": {}, "networks": ["10.0.0.0/8"]}, ""),
        ({"nodes": {}}, ".nodes"),
        ({"networks": []}, ".networks"),
        ({"networks": ["x"]}, ".networks[0]"),
        ({"domainNames": ["a.example"] * 26}, ".domainNames"),
        ({"domainNames": ["example"]}, ".domainNames[0]"),
        ({"domainNames": ["[.example"]}, ".domainNames[0]"),
        ({"pods": {"podSelector": {}}}, ".pods.namespaceSelector"),
        (None, ""),
    ],
)
def test_a_peer_that_is_not_understood_accepts_nobody_and_else_denies_all_d9(peer: Any, path: str) -> None:
    rule, paths = _rule(to=[peer, EVERYBODY])
    assert (rule, paths) == (resources.PolicyRule(peers=(ANYBODY,)), [f"spec.egress[0].to[0]{path}"])
    for action in ("Deny", "Pass"):
        assert _rule(action, to=[EVERYBODY, peer])[0] == cluster.DENY_ALL


@pytest.mark.parametrize("rule", [{"action": "Log"}, {"action": None}, {"unknown": 1}, {"to": []}, {"to": None}])
def test_a_rule_that_cannot_be_read_accepts_nobody_or_denies_all_d9(rule: Any) -> None:
    found, paths = _rule(**rule)
    assert found == (cluster.DENY_ALL if "action" in rule else policies.NO_MATCH)
    assert len(paths) == 1
    assert _rule(**{"action": "Deny", **rule})[0] == cluster.DENY_ALL


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"tcp": {"destinationPort": {"number": 80}}}, (samples.tcp(80),)),
        ({"tcp": {"destinationPort": {"range": {"start": 1, "end": 65535}}}}, None),
        ({"destinationNamedPort": "web"}, None),
    ],
)
def test_protocols_are_ports_of_one_transport_or_a_name_d12(entry: Any, expected: Any) -> None:
    rule, paths = _rule(protocols=[entry])
    assert paths == []
    assert rule.ports
    assert expected is None or rule.ports == expected


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"tcp": {}},
        {"tcp": {"destinationPort": {"number": 0}}},
        {"tcp": {"destinationPort": {"range": {"start": 80, "end": 80}}}},
        {"tcp": {"destinationPort": {"number": 1, "range": {"start": 1, "end": 2}}}},
        {"icmp": {}},
        {"destinationNamedPort": "WEB"},
    ],
)
def test_an_entry_of_protocols_that_cannot_be_read_accepts_nothing_or_denies_all_d12(entry: Any) -> None:
    rule, paths = _rule(protocols=[entry, {"tcp": {"destinationPort": {"number": 1}}}])
    assert (rule.ports, len(paths)) == ((samples.tcp(1),), 1)
    assert _rule("Deny", protocols=[entry])[0] == cluster.DENY_ALL
    assert _rule("Pass", protocols=[])[0] == cluster.DENY_ALL


def test_a_port_name_stands_beside_pods_only_d13() -> None:
    named = [{"destinationNamedPort": "web"}]
    rule, paths = _rule(to=[{"networks": ["10.0.0.0/8"]}, EVERYBODY], protocols=named)
    assert (rule.peers, paths) == ((ANYBODY,), ["spec.egress[0].to[0].networks"])


def test_names_only_accept_in_the_admin_tier_and_for_egress_d14() -> None:
    names = {"domainNames": ["a.example"]}
    assert _rule("Deny", to=[names])[0] == cluster.DENY_ALL
    policy, paths = _decode(
        tier="Baseline", egress=[{"action": "Accept", "to": [names]}], ingress=[{"action": "Accept", "from": [names]}]
    )
    assert (policy.egress[0].peers, policy.ingress[0].peers) == ((), ())
    assert paths == ["spec.ingress[0].from[0].domainNames", "spec.egress[0].to[0].domainNames"]


def test_too_many_rules_or_none_that_can_be_listed_deny_the_direction_d8() -> None:
    for wrong in ("x", [{"action": "Accept", "to": [EVERYBODY]}] * 26):
        policy, paths = _decode(egress=wrong)
        assert (policy.egress, paths) == ((cluster.DENY_ALL,), ["spec.egress"])


def test_a_policy_without_a_spec_is_named_and_not_read() -> None:
    decoded = decode.decode({**samples.cluster_policy(), "spec": None})
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["spec"]
