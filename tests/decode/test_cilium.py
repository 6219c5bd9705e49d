"""CiliumNetworkPolicy is read as far as it needs no proxy; the rest isolates, denies and is named (rules E1 to E18)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agent import decode
from agent.decode import policies
from agent.model import fqdn, labels, net, resources
from tests.decode import samples

INGRESS, EGRESS = net.Direction.INGRESS, net.Direction.EGRESS
BOTH = frozenset(net.Direction)
TCP, UDP, SCTP = net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP
ALLOW, DENY = resources.RuleAction.ALLOW, resources.RuleAction.DENY
WEB = labels.LabelSelector((labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({"web"})),))
DENY_ALL = resources.PolicyRule(action=DENY)
WEB_PEER = resources.PodPeer(pods=WEB)
TO_WEB = {"toEndpoints": [{"matchLabels": {"app": "web"}}]}
PORT_80 = [{"ports": [{"port": "80", "protocol": "TCP"}]}]


def _decode(document: dict[str, Any]) -> tuple[resources.NetworkPolicy, list[str]]:
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    return decoded.resource, [problem.path for problem in decoded.problems]


def _rule(section: str, rule: object) -> tuple[resources.PolicyRule, list[str]]:
    policy, paths = _decode(samples.cilium_policy(**{section: [rule]}))
    (found,) = (*policy.ingress, *policy.egress)
    return found, paths


def _ports(ports: list[dict[str, object]]) -> tuple[tuple[resources.PortMatch, ...] | None, list[str]]:
    rule, paths = _rule("egress", {**TO_WEB, "toPorts": [{"ports": ports}]})
    return rule.ports, paths


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
        ({"ingressDeny": [{}], "enableDefaultDeny": {"ingress": False}}, set()),
        ({"ingress": [{}], "enableDefaultDeny": {"ingress": False, "egres": False}}, {INGRESS}),
        ({"ingress": [{}], "enableDefaultDeny": "no"}, {INGRESS}),
    ],
)
def test_sections_with_a_rule_isolate_e2_e3(spec: dict[str, Any], expected: set[net.Direction]) -> None:
    assert _decode(samples.cilium_policy(**spec))[0].directions == expected


def test_label_sources_are_stripped_and_foreign_ones_isolate_more_and_allow_nothing_e7_e8() -> None:
    keys = {"k8s:app": "web", "any:tier": "front", "k8s:io.kubernetes.pod.namespace": "x"}
    policy, paths = _decode(samples.cilium_policy(endpointSelector={"matchLabels": keys}, egress=[TO_WEB]))
    assert ({requirement.key for requirement in policy.subject.requirements}, paths) == ({"app", "tier"}, [])
    assert policy.egress != (policies.NO_MATCH,)
    for foreign in (
        {"reserved:host": ""},
        {"k8s:io.kubernetes.pod.namespace": "y"},
        {"io.cilium.k8s.policy.cluster": "c"},
    ):
        spec = {"endpointSelector": {"matchLabels": keys | foreign}, "egress": [TO_WEB], "egressDeny": [TO_WEB]}
        policy, paths = _decode(samples.cilium_policy(**spec))
        assert ([rule.action for rule in policy.egress], policy.egress[0]) == ([ALLOW, DENY], policies.NO_MATCH)
        assert policy.egress[1].peers
        assert paths == ["spec.endpointSelector"]


@pytest.mark.parametrize("selector", [None, "x", {"matchLabel": {"app": "web"}}, {"matchLabels": {"app": True}}])
def test_a_subject_that_cannot_be_read_isolates_the_namespace_and_allows_nothing_a50(selector: object) -> None:
    policy, _ = _decode(samples.cilium_policy(endpointSelector=selector, ingress=[{"fromEntities": ["all"]}]))
    assert (policy.subject, policy.ingress) == (labels.EVERYTHING, (policies.NO_MATCH,))


def test_specs_of_one_subject_are_united_and_of_several_isolate_the_namespace_e1() -> None:
    spec = samples.cilium_policy()["spec"]
    document = samples.cilium_policy(ingress=[{}])
    document["specs"] = [{**spec, "egress": [TO_WEB]}]
    policy, paths = _decode(document)
    assert (policy.subject, policy.directions, len(policy.egress), paths) == (WEB, BOTH, 1, [])
    document["specs"] = [{"endpointSelector": {"matchLabels": {"app": "db"}}, "egress": [TO_WEB]}]
    policy, paths = _decode(document)
    assert (policy.subject, policy.egress, paths) == (labels.EVERYTHING, (policies.NO_MATCH,), ["specs"])


@pytest.mark.parametrize("spec", ["x", {}, None, []])
def test_a_spec_that_cannot_be_read_isolates_everything_a50(spec: object) -> None:
    policy, paths = _decode({**samples.cilium_policy(), "spec": spec})
    assert (policy.subject, policy.directions) == (labels.EVERYTHING, BOTH)
    assert paths == ["spec"]


def test_a_version_that_is_not_known_isolates_and_denies_and_allows_nothing_a50() -> None:
    document = samples.cilium_policy(egress=[TO_WEB], egressDeny=[TO_WEB])
    policy, paths = _decode({**document, "apiVersion": "cilium.io/v3"})
    assert (policy.egress[0].peers, paths) == ((), ["apiVersion"])
    assert policy.egress[1].action is DENY
    assert policy.directions == {EGRESS}


def test_a_policy_for_nodes_concerns_no_pod_e19() -> None:
    decoded = decode.decode({**samples.cilium_policy(), "spec": {"nodeSelector": {}, "ingress": [{}]}})
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["spec.nodeSelector"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, policies.NO_MATCH),
        ({"toEndpoints": []}, resources.PolicyRule(peers=())),
        ({"toEndpoints": None, "toPorts": PORT_80}, resources.PolicyRule(ports=(samples.tcp(80),))),
        ({"toEntities": ["none"]}, resources.PolicyRule(peers=())),
    ],
)
def test_what_is_empty_allows_nothing_and_what_is_absent_any_peer_e3_e4(
    rule: dict[str, Any], expected: resources.PolicyRule
) -> None:
    assert _rule("egress", rule) == (expected, [])


def test_peers_are_of_the_policys_namespace_unless_they_name_one_e7() -> None:
    named = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "y", "k8s:app": "web"}}
    rule, _ = _rule("ingress", {"fromEndpoints": [{}, named]})
    own, other = rule.peers or ()
    assert own == resources.PodPeer(pods=labels.EVERYTHING)
    assert isinstance(other, resources.PodPeer)
    assert other.pods == WEB
    assert other.namespaces is not None
    assert other.namespaces.selects({"kubernetes.io/metadata.name": "y"})


@pytest.mark.parametrize(
    "key",
    ["io.cilium.k8s.namespace.labels.team", "k8s:io.cilium.k8s.policy.serviceaccount", "reserved:world", "cidr:a"],
)
def test_labels_that_are_no_pods_match_nobody_or_deny_everybody_e8(key: str) -> None:
    peers = [{"matchLabels": {key: "x"}}, {"matchLabels": {"app": "web"}}]
    rule, paths = _rule("ingress", {"fromEndpoints": peers})
    assert rule.peers == (resources.PodPeer(pods=WEB),)
    assert paths == ["spec.ingress[0].fromEndpoints[0]"]
    denied, paths = _rule("ingressDeny", {"fromEndpoints": peers, "toPorts": PORT_80})
    assert denied == resources.PolicyRule(ports=(samples.tcp(80),), action=DENY)
    assert paths == ["spec.ingressDeny[0].fromEndpoints[0]"]


def test_prefixes_mean_nobody_in_the_cluster_e11() -> None:
    rule, paths = _rule("egress", {"toCIDR": ["203.0.113.7", "2001:db8::/32", "x"]})
    texts = ("203.0.113.7/32", "2001:db8::/32")
    assert rule.peers == tuple(resources.IPBlock(cidr=ipaddress.ip_network(text), outside=True) for text in texts)
    assert paths == ["spec.egress[0].toCIDR[2]"]
    holes = [
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
        {"cidrGroupRef": "g"},
        {"cidr": "10.0.0.0/8", "except": ["::/0"]},
    ]
    rule, paths = _rule("egress", {"toCIDRSet": holes})
    assert [str(peer.excepts[0]) for peer in rule.peers or () if isinstance(peer, resources.IPBlock)] == ["10.1.0.0/16"]
    assert paths == ["spec.egress[0].toCIDRSet[1].cidrGroupRef", "spec.egress[0].toCIDRSet[2].except[0]"]


def test_entities_of_ciliums_own_are_nobody_and_unknown_ones_deny_everybody_e10() -> None:
    rule, paths = _rule("egress", {"toEntities": ["health", "world", "nobody"]})
    assert rule.peers == (resources.EntityPeer(entity=resources.Entity.WORLD),)
    assert paths == ["spec.egress[0].toEntities[0]", "spec.egress[0].toEntities[2]"]
    assert _rule("egressDeny", {"toEntities": ["health"]})[0] == resources.PolicyRule(peers=(), action=DENY)
    assert _rule("egressDeny", {"toEntities": ["health", "nobody"]})[0] == DENY_ALL


def test_names_are_read_each_on_its_own_e15() -> None:
    selectors = [{"matchName": "API.example.com."}, {"matchPattern": "*.example.com"}, {"matchName": "*"}, {}]
    rule, paths = _rule("egress", {"toFQDNs": selectors})
    texts = ("api.example.com", "*.example.com")
    wanted = tuple(fqdn.NamePattern(fqdn.Dialect.CILIUM, text) for text in texts)
    assert rule.peers == (resources.NamesPeer(patterns=wanted),)
    assert paths == ["spec.egress[0].toFQDNs[2].matchName", "spec.egress[0].toFQDNs[3]"]
    assert _rule("egress", {"toFQDNs": [{}]})[0].peers == ()


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({"port": "80"}, {(TCP, "80-80"), (UDP, "80-80"), (SCTP, "80-80")}),
        ({"port": "80", "endPort": 90, "protocol": "UDP"}, {(UDP, "80-90")}),
        ({"port": "0", "protocol": "tcp"}, {(TCP, "None")}),
        ({"port": "WEB", "endPort": 3, "protocol": "SCTP"}, {(SCTP, "web")}),
        ({"port": "80", "endPort": 0, "protocol": "TCP"}, {(TCP, "80-80")}),
    ],
)
def test_ports_are_numbers_ranges_names_or_all_of_every_protocol_e13(
    port: dict[str, object], expected: set[tuple[net.Protocol, str]]
) -> None:
    found, paths = _ports([port])
    assert {(one.protocol, samples.port_text(one.port)) for one in found or ()} == expected
    assert paths == []


@pytest.mark.parametrize(
    "port",
    [
        {"port": 80},
        {"protocol": "TCP"},
        {"port": "65536"},
        {"port": "80", "endPort": 79},
        {"port": "0", "endPort": 79},
        {"port": "80", "protocol": "ICMP"},
        {"port": "80", "endport": 90},
        {"port": "no name"},
    ],
)
def test_a_port_that_cannot_be_read_matches_nothing_or_denies_every_port_e13(port: dict[str, object]) -> None:
    found, paths = _ports([port, {"port": "1", "protocol": "TCP"}])
    assert (found, len(paths)) == ((samples.tcp(1),), 1)
    denied, paths = _rule("egressDeny", {**TO_WEB, "toPorts": [{"ports": [port]}]})
    assert (denied.ports, len(paths)) == (None, 1)
    assert denied.peers


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"rules": {"http": [{"method": "GET"}]}}, "rules.http"),
        ({"rules": {"dns": []}}, "rules.dns"),
        ({"serverNames": ["a.example"]}, "serverNames"),
        ({"terminatingTLS": {}}, "terminatingTLS"),
        ({"rules": {"dns": [], "unknown": {}}}, "rules.unknown"),
        ({"unknown": {}}, "unknown"),
    ],
)
def test_what_needs_a_proxy_allows_nothing_and_denies_its_ports_e17(entry: dict[str, Any], path: str) -> None:
    rule, paths = _rule("egress", {**TO_WEB, "toPorts": [{**PORT_80[0], **entry}]})
    assert (rule.ports, paths) == ((), [f"spec.egress[0].toPorts[0].{path}"])
    denied, paths = _rule("egressDeny", {**TO_WEB, "toPorts": [{**PORT_80[0], **entry}]})
    assert (denied.ports, paths) == ((samples.tcp(80),), [f"spec.egressDeny[0].toPorts[0].{path}"])


def test_dns_that_is_only_watched_restricts_nothing_e17() -> None:
    dns = {
        "ports": [{"port": "53", "protocol": "TCP"}],
        "rules": {"dns": [{"matchName": "a.b"}, {"matchPattern": "*"}]},
    }
    assert _rule("egress", {**TO_WEB, "toPorts": [dns]}) == (
        resources.PolicyRule(peers=(WEB_PEER,), ports=(samples.tcp(53),)),
        [],
    )
    spoiled = {**dns, "rules": {"dns": [{"matchPattern": "**."}, {"matchName": "*"}]}}
    rule, paths = _rule("egress", {**TO_WEB, "toPorts": [spoiled]})
    assert (rule.ports, paths) == ((samples.tcp(53),), ["spec.egress[0].toPorts[0].rules.dns[1].matchName"])
    assert _rule("ingress", {"toPorts": [dns]})[0].ports == (samples.tcp(53),)


def _asking(entry: dict[str, Any]) -> tuple[tuple[resources.PortMatch, ...] | None, list[resources.Problem]]:
    decoded = decode.decode(samples.cilium_policy(egress=[{**TO_WEB, "toPorts": [entry]}]))
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    return decoded.resource.egress[0].ports, list(decoded.problems)


def test_names_that_may_be_asked_for_are_kept_with_their_ports_e17() -> None:
    dns = [{"matchName": "A.example."}, {"matchPattern": "*.b.example"}, {"matchName": "a.example"}]
    found, problems = _asking(
        {"ports": [{"port": "53", "protocol": "UDP"}, {"port": "DNS", "protocol": "UDP"}], "rules": {"dns": dns}}
    )
    asks = (
        fqdn.NamePattern(fqdn.Dialect.CILIUM, "a.example"),
        fqdn.NamePattern(fqdn.Dialect.CILIUM, "*.b.example"),
    )
    assert found == (
        resources.PortMatch(protocol=UDP, port=net.PortRange(53, 53), asks=asks),
        resources.PortMatch(protocol=UDP, port="dns", asks=asks),
    )
    assert problems == []


@pytest.mark.parametrize(
    ("protocols", "kept", "said"),
    [
        (["UDP", "TCP"], 1, "TCP"),
        (["ANY"], 1, "TCP"),
        ([None], 1, "TCP"),
        (["TCP"], 0, "TCP"),
        (["SCTP", "UDP"], 1, "SCTP"),
    ],
)
def test_streams_of_an_entry_that_restricts_names_match_nothing_and_that_is_said_e17(
    protocols: list[str | None], kept: int, said: str
) -> None:
    ports = [{"port": "53", **({"protocol": each} if each else {})} for each in protocols]
    found, (problem,) = _asking({"ports": ports, "rules": {"dns": [{"matchName": "a.example"}]}})
    assert [match.protocol for match in found or ()] == [UDP] * kept
    assert problem.path == "spec.egress[0].toPorts[0].rules.dns"
    assert problem.reason.startswith(f"queries by {said} are not filtered and are denied")


@pytest.mark.parametrize(
    "item", [{}, {"matchName": "a.b", "matchPattern": "a.b"}, {"matchName": "*.b"}, {"matchRegex": "a"}, 3]
)
def test_what_is_no_name_may_not_be_asked_for_and_without_any_the_entry_matches_nothing_e17(item: object) -> None:
    entry = {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [item, {"matchName": "c.d"}]}}
    found, problems = _asking(entry)
    assert [match.asks for match in found or ()] == [(fqdn.NamePattern(fqdn.Dialect.CILIUM, "c.d"),)]
    assert len(problems) == 1
    found, problems = _asking({**entry, "rules": {"dns": [item]}})
    assert (found, len(problems)) == ((), 2)


@pytest.mark.parametrize(
    ("section", "peers"), [("ingress", {}), ("egress", {"toFQDNs": [{"matchName": "dns.example"}]})]
)
def test_names_are_not_restricted_in_ingress_nor_towards_names_so_the_entry_matches_nothing_e17(
    section: str, peers: dict[str, Any]
) -> None:
    entry = {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchName": "a.example"}]}}
    rule, paths = _rule(section, {**peers, "toPorts": [entry]})
    assert (rule.ports, paths) == ((), [f"spec.{section}[0].toPorts[0].rules.dns"])


def test_a_rule_that_denies_denies_the_whole_port_where_it_restricts_names_e17() -> None:
    entry = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"dns": [{"matchName": "a.example"}]}}
    denied, paths = _rule("egressDeny", {**TO_WEB, "toPorts": [entry]})
    assert (denied.ports, paths) == ((samples.tcp(80),), ["spec.egressDeny[0].toPorts[0].rules.dns"])


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ({"toServices": [{}]}, "toServices"),
        ({"toGroups": [{}]}, "toGroups"),
        ({"toEntities": ["all"]}, "toEntities"),
        ({"icmps": [{}]}, "icmps"),
        ({"authentication": {"mode": "required"}}, "authentication"),
        ({"toEndpoint": [{}]}, "toEndpoint"),
    ],
)
def test_a_rule_that_asks_for_more_allows_nothing_and_denies_all_peers_e5_e14_e16_e18(
    extra: dict[str, Any], path: str
) -> None:
    rule, paths = _rule("egress", {**TO_WEB, "toPorts": PORT_80, **extra})
    assert (rule, paths) == (policies.NO_MATCH, [f"spec.egress[0].{path}"])
    denied, paths = _rule("egressDeny", {**TO_WEB, "toPorts": PORT_80, **extra})
    assert denied == resources.PolicyRule(ports=(samples.tcp(80),), action=DENY)
    assert paths == [f"spec.egressDeny[0].{path}"]


def test_authentication_that_is_disabled_asks_for_nothing_e18() -> None:
    assert _rule("egress", {**TO_WEB, "authentication": {"mode": "disabled"}})[1] == []


def test_a_denial_by_name_is_refused_and_denies_everybody_e6() -> None:
    rule, paths = _rule("egressDeny", {"toFQDNs": [{"matchName": "a.example"}], "toPorts": PORT_80})
    assert rule == resources.PolicyRule(ports=(samples.tcp(80),), action=DENY)
    assert paths == ["spec.egressDeny[0].toFQDNs"]


@pytest.mark.parametrize(("section", "expected"), [("egress", ()), ("egressDeny", (DENY_ALL,))])
def test_a_section_that_is_no_list_allows_nothing_and_denies_all(
    section: str, expected: tuple[resources.PolicyRule, ...]
) -> None:
    policy, paths = _decode(samples.cilium_policy(**{section: "x"}))
    assert (policy.egress, paths) == (expected, [f"spec.{section}"])


def test_an_empty_denial_denies_nobody_and_isolates_e3() -> None:
    rule, paths = _rule("egressDeny", {})
    assert (rule.peers, rule.action, paths) == ((), DENY, [])
