"""Policies in words: what is written is said, and what could not be honoured allows nothing."""

from __future__ import annotations

import ipaddress

import pytest

from agent.model import labels, net, resources
from agent.policy import words
from tests.support import served

IN, NOT_IN = labels.Operator.IN, labels.Operator.NOT_IN
EXISTS, ABSENT = labels.Operator.EXISTS, labels.Operator.DOES_NOT_EXIST


def selector(*requirements: tuple[str, labels.Operator, frozenset[str]]) -> labels.LabelSelector:
    return labels.LabelSelector(
        tuple(labels.Requirement(key=key, operator=operator, values=values) for key, operator, values in requirements)
    )


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (labels.EVERYTHING, "any labels"),
        (selector(("app", IN, frozenset({"a"}))), "app=a"),
        (selector(("app", IN, frozenset({"b", "a"}))), "app in (a, b)"),
        (selector(("app", NOT_IN, frozenset({"b", "a"}))), "app not in (a, b)"),
        (selector(("a", EXISTS, frozenset()), ("b", ABSENT, frozenset())), "a label a and no label b"),
    ],
)
def test_a_selector_is_said_as_people_say_it(wanted: labels.LabelSelector, said: str) -> None:
    assert words.selector_text(wanted) == said


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (resources.PodPeer(pods=served.SELECT_A), "pods with app=a in x"),
        (resources.PodPeer(pods=labels.EVERYTHING), "every pod in x"),
        (resources.PodPeer(namespaces=labels.EVERYTHING), "every pod in any namespace"),
        (resources.PodPeer(namespaces=served.SELECT_B), "every pod in namespaces with app=b"),
        (
            resources.PodPeer(pods=served.SELECT_A, namespaces=served.SELECT_B),
            "pods with app=a in namespaces with app=b",
        ),
        (served.BLOCK, "203.0.113.0/24 except 203.0.113.128/25"),
        (resources.IPBlock(cidr=ipaddress.ip_network("::/0")), "::/0"),
    ],
)
def test_a_peer_is_said_with_its_namespaces_as_rule_a20_has_them(peer: resources.Peer, said: str) -> None:
    assert words.peer_text(peer, "x") == said


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (resources.PolicyRule(), "from anybody on every port"),
        (resources.PolicyRule(peers=()), "from nobody, as none of its peers can be honoured (A50) on every port"),
        (resources.PolicyRule(ports=()), "from anybody on no port, as none of them can be honoured (A50)"),
        (
            resources.PolicyRule(ports=(resources.PortMatch(protocol=net.Protocol.UDP),)),
            "from anybody on every UDP port",
        ),
        (
            resources.PolicyRule(
                ports=(
                    resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(80, 80)),
                    resources.PortMatch(protocol=net.Protocol.SCTP, port="sig"),
                )
            ),
            "from anybody on TCP 80, SCTP sig",
        ),
    ],
)
def test_a_rule_without_peers_or_ports_says_everything_and_one_whose_are_bad_nothing(
    rule: resources.PolicyRule, said: str
) -> None:
    assert words.rule_text(rule, net.Direction.INGRESS, "x") == said


def test_a_rule_of_a_direction_the_policy_does_not_speak_of_says_that_it_is_without_effect() -> None:
    policy = resources.NetworkPolicy(
        namespace="x",
        name="p",
        directions=frozenset({net.Direction.INGRESS}),
        egress=(resources.PolicyRule(),),
    )
    ((rule),) = words.rules(policy)
    assert rule.text == "to anybody on every port (without effect: policyTypes lacks Egress, A7)"
    assert words.whole_subject(policy) == "every pod in x; isolates ingress; allows no ingress"


def test_a_policy_that_closes_both_ways_says_so() -> None:
    both = resources.NetworkPolicy(namespace="x", name="p", directions=frozenset(net.Direction))
    assert words.isolation(both) == "isolates ingress and egress; allows no ingress and no egress"
    assert words.isolation(resources.NetworkPolicy(namespace="x", name="p")) == "isolates in no direction"
