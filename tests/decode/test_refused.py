"""Policy kinds that are refused isolate all the same (rule A50, and E.2 of the dialects)."""

from __future__ import annotations

from typing import Any

import pytest

from agent import decode
from agent.model import net, resources
from tests.decode import samples

INGRESS, EGRESS = net.Direction.INGRESS, net.Direction.EGRESS


def _decode(document: dict[str, Any]) -> tuple[resources.NetworkPolicy, list[str]]:
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    assert decoded.resource.ingress == decoded.resource.egress == ()
    return decoded.resource, [problem.path for problem in decoded.problems]


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
        ("policy.networking.k8s.io/v1alpha3", "ClusterNetworkPolicy"),
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
