"""Policy kinds that are refused isolate all the same (rule A50, and E.2 of the dialects)."""

from __future__ import annotations

from typing import Any

import pytest

from agent import decode
from agent.model import labels, net, resources
from tests.decode import samples

INGRESS, EGRESS = net.Direction.INGRESS, net.Direction.EGRESS
BOTH = frozenset(net.Direction)
WEB = labels.LabelSelector((labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({"web"})),))


def _decode(document: dict[str, Any]) -> tuple[resources.NetworkPolicy, list[str]]:
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    assert decoded.resource.ingress == decoded.resource.egress == ()
    return decoded.resource, [problem.path for problem in decoded.problems]


def test_a_layer_7_rule_of_cilium_isolates_and_is_named_by_its_path_e17() -> None:
    rule = {"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"method": "GET"}]}}]}
    policy, paths = _decode(samples.cilium_policy(ingress=[rule]))
    assert policy.ref == resources.ObjectRef("CiliumNetworkPolicy", "x", "c")
    assert policy.subject == WEB
    assert policy.directions == {INGRESS}
    assert paths == ["", "spec.ingress[0].toPorts[0].rules.http"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        ({"ingress": None, "egress": []}, set()),
        ({"ingress": [{}]}, {INGRESS}),
        ({"egressDeny": [{}]}, {EGRESS}),
        ({"ingress": "x"}, {INGRESS}),
        ({"ingres": [{}]}, {INGRESS, EGRESS}),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": False}}, set()),
        ({"ingressDeny": [{}], "enableDefaultDeny": {"ingress": False}}, {INGRESS}),
        ({"ingress": [{}], "enableDefaultDeny": "no"}, {INGRESS}),
    ],
)
def test_cilium_isolates_by_sections_with_a_rule_e2_e3(spec: dict[str, Any], expected: set[net.Direction]) -> None:
    assert _decode(samples.cilium_policy(**spec))[0].directions == expected


def test_label_sources_of_cilium_are_stripped_and_foreign_ones_isolate_more_e8() -> None:
    keys = {"k8s:app": "web", "any:tier": "front", "reserved:host": "", "k8s:io.kubernetes.pod.namespace": "x"}
    policy, paths = _decode(samples.cilium_policy(endpointSelector={"matchLabels": keys}, ingress=[{}]))
    assert {requirement.key for requirement in policy.subject.requirements} == {"app", "tier"}
    assert paths == ["", "spec.endpointSelector", "spec.endpointSelector"]


@pytest.mark.parametrize("selector", [None, "x", {"matchLabel": {"app": "web"}}, {"matchLabels": {"app": True}}])
def test_a_subject_of_cilium_that_cannot_be_read_isolates_the_namespace_a50(selector: object) -> None:
    assert _decode(samples.cilium_policy(endpointSelector=selector, ingress=[{}]))[0].subject == labels.EVERYTHING


def test_specs_of_one_subject_are_united_and_of_several_isolate_the_namespace_e1() -> None:
    spec = samples.cilium_policy()["spec"]
    document = samples.cilium_policy(ingress=[{}])
    document["specs"] = [{**spec, "egress": [{}]}]
    policy, _ = _decode(document)
    assert (policy.subject, policy.directions) == (WEB, BOTH)
    document["specs"] = [{"endpointSelector": {"matchLabels": {"app": "db"}}, "egress": [{}]}]
    assert _decode(document)[0].subject == labels.EVERYTHING


@pytest.mark.parametrize("spec", ["x", {}, None, []])
def test_a_spec_of_cilium_that_cannot_be_read_isolates_everything_a50(spec: object) -> None:
    policy, paths = _decode({**samples.cilium_policy(), "spec": spec})
    assert (policy.subject, policy.directions) == (labels.EVERYTHING, BOTH)
    assert paths == ["", "spec"]


def test_a_policy_of_cilium_for_nodes_concerns_no_pod_e19() -> None:
    decoded = decode.decode({**samples.cilium_policy(), "spec": {"nodeSelector": {}, "ingress": [{}]}})
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["", "spec.nodeSelector"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {INGRESS}),
        ({"egress": [{}]}, {EGRESS}),
        ({"ingress": [{}], "egress": [{}]}, {INGRESS, EGRESS}),
        ({"types": ["Egress"], "ingress": [{}]}, {EGRESS}),
        ({"types": ["egress"]}, {INGRESS, EGRESS}),
        ({"typs": ["Egress"]}, {INGRESS, EGRESS}),
    ],
)
def test_calico_isolates_by_types_or_by_its_rules_f4(spec: dict[str, Any], expected: set[net.Direction]) -> None:
    assert _decode(samples.calico_policy(**spec))[0].directions == expected


@pytest.mark.parametrize(
    ("selector", "keys"),
    [
        (None, []),
        ("all()", []),
        ("app == 'web'", ["app"]),
        ('app == "web" && has(tier)', ["app", "tier"]),
        ("app != 'web'", []),
        ("app == 'a' || app == 'b'", []),
        ("!has(app)", []),
        (7, []),
    ],
)
def test_a_selector_of_calico_is_read_if_simple_and_else_isolates_the_namespace_f6(
    selector: object, keys: list[str]
) -> None:
    policy, _ = _decode(samples.calico_policy(selector=selector))
    assert [requirement.key for requirement in policy.subject.requirements] == keys


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy"),
        ("projectcalico.org/v3", "GlobalNetworkPolicy"),
        ("crd.projectcalico.org/v1", "GlobalNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy"),
        ("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy"),
    ],
)
def test_a_cluster_wide_policy_is_a_problem_that_says_why(version: str, kind: str) -> None:
    decoded = decode.decode({"apiVersion": version, "kind": kind, "metadata": {"name": "w"}, "spec": {}})
    assert decoded.resource is None
    (problem,) = decoded.problems
    assert problem.ref == resources.ObjectRef(kind, "", "w")
    assert "no namespace" in problem.reason


def test_a_network_policy_of_an_unknown_group_is_a_problem() -> None:
    decoded = decode.decode({**samples.policy(), "apiVersion": "crd.antrea.io/v1beta1"})
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["apiVersion"]
