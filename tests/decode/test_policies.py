"""NetworkPolicy: rules A1 to A11 and A50, one sentence a test."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agent import decode
from agent.decode import fields
from agent.model import labels, net, resources
from tests.decode import samples

INGRESS = frozenset({net.Direction.INGRESS})
EGRESS = frozenset({net.Direction.EGRESS})
BOTH = INGRESS | EGRESS
NO_MATCH = resources.PolicyRule(peers=(), ports=())


def _decode(document: dict[str, Any]) -> tuple[resources.NetworkPolicy, list[str]]:
    """Decode a policy; return it and the paths of its problems."""
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    return decoded.resource, [problem.path for problem in decoded.problems]


def _policy(**spec: Any) -> tuple[resources.NetworkPolicy, list[str]]:
    return _decode(samples.policy(**spec))


def _peers(*peers: object) -> tuple[tuple[resources.Peer, ...] | None, list[str]]:
    """Decode one ingress rule with these peers."""
    policy, paths = _policy(ingress=[{"from": list(peers)}])
    return policy.ingress[0].peers, paths


def _ports(*ports: object) -> tuple[tuple[resources.PortMatch, ...] | None, list[str]]:
    """Decode one ingress rule with these ports."""
    policy, paths = _policy(ingress=[{"ports": list(ports)}])
    return policy.ingress[0].ports, paths


def test_every_field_of_the_api_is_read_without_a_problem() -> None:
    policy, paths = _decode(samples.full_policy())
    assert paths == []
    assert policy.ref == resources.ObjectRef("NetworkPolicy", "x", "p")
    assert policy.uid == "u-1"
    assert policy.subject == labels.LabelSelector(
        (
            labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({"web"})),
            labels.Requirement(key="tier", operator=labels.Operator.NOT_IN, values=frozenset({"back"})),
        )
    )
    assert policy.directions == BOTH
    assert [len(rule.peers or ()) for rule in policy.ingress] == [4, 0]
    assert policy.ingress[1].peers is None
    assert policy.egress[1] == resources.PolicyRule()


@pytest.mark.parametrize("spec", [{}, {"podSelector": None}, {"podSelector": {}}])
def test_a_subject_that_is_missing_null_or_empty_selects_every_pod_a1(spec: dict[str, Any]) -> None:
    policy, paths = _policy(**spec)
    assert policy.subject == labels.EVERYTHING
    assert paths == []


def test_an_empty_selector_of_a_peer_selects_everything_and_a_missing_one_is_not_given_a2() -> None:
    assert _peers({"podSelector": {}, "namespaceSelector": None}) == ((resources.PodPeer(pods=labels.EVERYTHING),), [])


@pytest.mark.parametrize("peer", [{}, {"podSelector": None}, {"ipBlock": None}, None])
def test_a_peer_that_names_none_matches_nothing_a2(peer: object) -> None:
    assert _peers(peer) == ((), ["spec.ingress[0].from[0]"])


@pytest.mark.parametrize("rules", [None, []])
def test_rules_that_are_missing_null_or_empty_are_no_rule_a3(rules: object) -> None:
    assert _policy(ingress=rules, egress=rules, policyTypes=["Ingress", "Egress"])[0].rules(net.Direction.INGRESS) == ()
    assert _policy(policyTypes=["Ingress", "Egress"])[0].directions == BOTH


def test_an_empty_rule_allows_everything_a4() -> None:
    assert _policy(ingress=[{}])[0].ingress == (resources.PolicyRule(peers=None, ports=None),)


@pytest.mark.parametrize("value", [None, []])
def test_peers_and_ports_that_are_null_or_empty_are_any_a5(value: object) -> None:
    policy, paths = _policy(ingress=[{"from": value, "ports": value}])
    assert policy.ingress == (resources.PolicyRule(),)
    assert paths == []


@pytest.mark.parametrize("types", [None, []])
@pytest.mark.parametrize(
    ("egress", "expected"), [(None, INGRESS), ([], INGRESS), ([{}], BOTH), ([None], BOTH), ("x", BOTH), ({}, BOTH)]
)
def test_without_policy_types_egress_isolates_only_if_it_has_an_item_a6(
    types: object, egress: object, expected: frozenset[net.Direction]
) -> None:
    assert _policy(policyTypes=types, egress=egress)[0].directions == expected


def test_policy_types_are_authoritative_a7() -> None:
    assert _policy(policyTypes=["Egress"], ingress=[{}])[0].directions == EGRESS
    assert _policy(policyTypes=["Ingress", "Ingress"], egress=[{}])[0].directions == INGRESS


@pytest.mark.parametrize("types", ["Ingress", ["ingress"], [None], ["Ingress", 1], ["Ingress"] * 3, {}, True])
def test_malformed_policy_types_isolate_both_ways_a50(types: object) -> None:
    policy, paths = _policy(policyTypes=types, ingress=[{}], egress=[{}])
    assert policy.directions == BOTH
    assert policy.egress == (NO_MATCH,)
    assert policy.ingress == (
        (resources.PolicyRule(),) if isinstance(types, list) and "Ingress" in types else (NO_MATCH,)
    )
    assert paths[0].startswith("spec.policyTypes")


def test_policy_types_given_twice_isolate_both_ways_a50() -> None:
    policy, paths = _policy(policyTypes=fields.Repeated(9), egress=[{}])
    assert policy.directions == BOTH
    assert policy.egress == (NO_MATCH,)
    assert paths == ["spec.policyTypes"]


def test_the_protocol_of_a_port_defaults_to_tcp_and_a_missing_port_is_every_port_a8() -> None:
    assert _ports({}, {"protocol": "SCTP"}, {"protocol": None, "port": None}) == (
        (
            resources.PortMatch(protocol=net.Protocol.TCP),
            resources.PortMatch(protocol=net.Protocol.SCTP),
            resources.PortMatch(protocol=net.Protocol.TCP),
        ),
        [],
    )


@pytest.mark.parametrize("protocol", ["ICMP", "tcp", "", 6, True, ["TCP"]])
def test_other_protocols_match_nothing_a8(protocol: object) -> None:
    assert _ports({"protocol": protocol, "port": 80}) == ((), ["spec.ingress[0].ports[0].protocol"])


@pytest.mark.parametrize("port", [0, -1, 65536, True, 80.0, "80", "Web", "", "a" * 16, "a--b", "-a", "a-", "٣a", [80]])
def test_ports_that_are_no_number_and_no_name_match_nothing_a8(port: object) -> None:
    assert _ports({"port": port}) == ((), ["spec.ingress[0].ports[0].port"])


@pytest.mark.parametrize("port", ["a", "serve-80-tcp", "8080x", "a" * 15])
def test_port_names_are_kept_a8(port: str) -> None:
    assert _ports({"port": port}) == ((resources.PortMatch(protocol=net.Protocol.TCP, port=port),), [])


@pytest.mark.parametrize(("end", "last"), [(80, 80), (90, 90), (65535, 65535), (None, 80)])
def test_a_range_includes_both_ends_a9(end: int | None, last: int) -> None:
    match = resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(80, last))
    assert _ports({"port": 80, "endPort": end}) == ((match,), [])


@pytest.mark.parametrize("port", [{"endPort": 90}, {"port": "web", "endPort": 90}, {"port": 80, "endPort": 79}])
def test_an_end_port_needs_a_number_before_it_a9(port: object) -> None:
    assert _ports(port) == ((), ["spec.ingress[0].ports[0].endPort"])


@pytest.mark.parametrize(
    ("cidr", "expected"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("010.001.0.0/016", "10.1.0.0/16"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::/0", "::/0"),
        ("2001:db8::1/32", "2001:db8::/32"),
    ],
)
def test_sloppy_prefixes_are_normalised_without_a_problem_a10_a24(cidr: str, expected: str) -> None:
    assert _peers({"ipBlock": {"cidr": cidr}}) == ((resources.IPBlock(cidr=ipaddress.ip_network(expected)),), [])


@pytest.mark.parametrize(
    "cidr", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::%eth0/64", "٣.0.0.0/8", "", None, 10, "x/8", "/8"]
)
def test_a_malformed_prefix_matches_nothing_a10(cidr: object) -> None:
    assert _peers({"ipBlock": {"cidr": cidr}}) == ((), ["spec.ingress[0].from[0].ipBlock.cidr"])


@pytest.mark.parametrize(
    "except_", ["10.0.0.0/8", "0.0.0.0/0", "11.0.0.0/16", "2001:db8::/32", "10.1.0.0", None, 1, "10.255.0.0/7"]
)
def test_an_except_that_is_no_strict_subset_gives_up_the_whole_peer_a10(except_: object) -> None:
    peers, paths = _peers({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", except_]}})
    assert peers == ()
    assert paths == ["spec.ingress[0].from[0].ipBlock.except[1]"]


def test_an_ip_block_excludes_selectors_a10() -> None:
    assert _peers({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}) == ((), ["spec.ingress[0].from[0].ipBlock"])


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "NotIn", "values": []},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a", "operator": "in", "values": ["x"]},
        {"key": "a", "operator": "In", "values": [True]},
        {"key": "a", "operator": "In", "values": "x"},
        {"key": "", "operator": "Exists"},
        {"operator": "Exists"},
        {"key": "a", "operator": "Exists", "value": "x"},
        None,
    ],
)
def test_a_malformed_expression_of_a_peer_makes_the_peer_match_nothing_a11(expression: object) -> None:
    peers, paths = _peers({"podSelector": {"matchExpressions": [expression]}})
    assert peers == ()
    assert len(paths) == 1
    assert paths[0].startswith("spec.ingress[0].from[0].podSelector.matchExpressions[0]")


def test_a_label_that_yaml_reads_as_a_truth_value_is_named_a11() -> None:
    assert _peers({"podSelector": {"matchLabels": {"on": True}}})[1] == [
        "spec.ingress[0].from[0].podSelector.matchLabels[on]"
    ]
    assert _peers({"podSelector": {"matchLabels": {True: "x"}}})[1] == [
        "spec.ingress[0].from[0].podSelector.matchLabels"
    ]


def test_a_match_label_with_an_empty_or_null_value_needs_the_key_a11() -> None:
    for value in ("", None):
        (peer,) = _peers({"podSelector": {"matchLabels": {"a": value}}})[0] or ()
        assert isinstance(peer, resources.PodPeer)
        assert peer.pods is not None
        assert not peer.pods.selects({})
        assert peer.pods.selects({"a": ""})


def test_a_malformed_requirement_of_the_subject_isolates_more_and_allows_nothing_a50() -> None:
    policy, paths = _policy(
        podSelector={
            "matchLabels": {"app": "web", "on": True},
            "matchExpressions": [{"key": "x", "operator": "Exist"}, {"key": "y", "operator": "Exists"}],
        },
        ingress=[{}],
    )
    assert policy.subject.selects({"app": "web", "y": ""})
    assert not policy.subject.selects({"app": "web"})
    assert policy.ingress == (NO_MATCH,)
    assert paths == ["spec.podSelector.matchLabels[on]"]


@pytest.mark.parametrize("subject", ["web", [], 1, {"matchLables": {"a": "b"}}, {"matchLabels": ["a"]}])
def test_a_subject_that_cannot_be_read_isolates_the_namespace_a50(subject: object) -> None:
    policy, paths = _policy(podSelector=subject, ingress=[{}])
    assert policy.subject == labels.EVERYTHING
    assert policy.directions >= INGRESS
    assert policy.ingress == (NO_MATCH,)
    assert paths


def test_malformed_peers_and_ports_are_dropped_and_their_neighbours_stay_a50() -> None:
    peers, paths = _peers({"podSelector": {}}, {"podSelectors": {}}, "x", {"ipBlock": {"cidr": "10.0.0.0/8"}})
    assert len(peers or ()) == 2
    assert paths == ["spec.ingress[0].from[1].podSelectors", "spec.ingress[0].from[2]"]
    ports, paths = _ports({"port": 80}, {"port": 81, "ports": 1}, None, {"port": 82})
    assert len(ports or ()) == 2
    assert paths == ["spec.ingress[0].ports[1].ports", "spec.ingress[0].ports[2]"]


def test_a_malformed_rule_keeps_its_place_and_matches_nothing_a50() -> None:
    policy, paths = _policy(ingress=[None, {"to": []}, {"from": {}}, {"ports": 80}, "x", {}])
    assert policy.ingress == (*([NO_MATCH] * 5), resources.PolicyRule())
    assert paths == [
        "spec.ingress[0]",
        "spec.ingress[1].to",
        "spec.ingress[2].from",
        "spec.ingress[3].ports",
        "spec.ingress[4]",
    ]


def test_an_unknown_field_of_the_policy_allows_nothing_and_may_be_a_misspelt_egress_a50() -> None:
    policy, paths = _policy(ingress=[{}], egres=[{}])
    assert policy.directions == BOTH
    assert policy.ingress == (NO_MATCH,)
    assert paths == ["spec.egres"]


@pytest.mark.parametrize("spec", ["x", [], 0, fields.Repeated(3)])
def test_a_spec_that_cannot_be_read_isolates_everything_a50(spec: object) -> None:
    policy, paths = _decode({**samples.policy(), "spec": spec})
    assert (policy.directions, policy.subject, policy.ingress) == (BOTH, labels.EVERYTHING, ())
    assert paths == ["spec"]


def test_a_misspelt_spec_isolates_everything_a50() -> None:
    document = samples.policy()
    document["sepc"] = document.pop("spec")
    policy, paths = _decode(document)
    assert policy.directions == BOTH
    assert paths == ["sepc"]


def test_a_missing_spec_is_an_empty_one_a1_a6() -> None:
    document = samples.policy()
    del document["spec"]
    assert _decode(document)[0].directions == INGRESS


@pytest.mark.parametrize("version", ["networking.k8s.io/v1beta1", "extensions/v1beta1", "v1", None, 1])
def test_another_version_isolates_and_allows_nothing_a50(version: object) -> None:
    policy, paths = _decode({**samples.policy(ingress=[{}]), "apiVersion": version})
    assert policy.directions >= INGRESS
    assert policy.ingress == (NO_MATCH,)
    assert paths == ["apiVersion"]


def test_policies_without_a_name_are_told_apart_by_content_and_isolate_a50() -> None:
    names = set()
    for port in (80, 81):
        document = samples.policy(ingress=[{"ports": [{"port": port}]}])
        document["metadata"] = {"namespace": "x"}
        policy, paths = _decode(document)
        assert paths == ["metadata.name"]
        names.add(policy.name)
    assert len(names) == 2


def test_the_namespace_defaults_to_default_and_without_one_nothing_can_be_isolated() -> None:
    document = samples.policy()
    document["metadata"] = {"name": "p"}
    assert _decode(document)[0].namespace == "default"
    document["metadata"] = {"name": "p", "namespace": 12}
    decoded = decode.decode(document)
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["metadata.namespace"]


def test_the_problems_of_one_object_are_bounded() -> None:
    decoded = decode.decode(samples.policy(ingress=[None] * 1000))
    assert len(decoded.problems) == fields.PROBLEMS_MAX + 1
    assert "936 more" in decoded.problems[-1].reason
