"""What the rules say of a query, in words and as a document (rule E17)."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import snapshot
from agent.fqdn import patterns
from agent.model import labels, net, resources
from agent.policy import evaluator, explain, queries, words

ONE, TWO = patterns.parse_cilium_name("one.example"), patterns.parse_cilium_pattern("*.two.example")
CLIENT, SERVER = (
    resources.Pod(
        namespace=namespace, name="pod", uid=namespace, node="n1", addresses=(ipaddress.ip_address(f"10.0.0.{number}"),)
    )
    for number, namespace in ((1, "x"), (2, "dns"))
)
TO_53 = resources.PortMatch(protocol=net.Protocol.UDP, port=net.PortRange(53, 53))
FLOW = evaluator.Flow(
    source=CLIENT,
    destination=SERVER,
    source_address=CLIENT.addresses[0],
    destination_address=SERVER.addresses[0],
    protocol=net.Protocol.UDP,
    port=53,
)


def _policy(name: str, *ports: resources.PortMatch, kind: str = "CiliumNetworkPolicy") -> resources.NetworkPolicy:
    peers = (resources.PodPeer(namespaces=labels.EVERYTHING),)
    return resources.NetworkPolicy(
        namespace="x",
        name=name,
        kind=kind,
        directions=frozenset({net.Direction.EGRESS}),
        egress=(resources.PolicyRule(peers=peers, ports=ports or None),),
    )


def _asking(name: str, *asks: str) -> resources.NetworkPolicy:
    parsed = tuple(map(patterns.parse_cilium_pattern, asks))
    return _policy(name, resources.PortMatch(protocol=TO_53.protocol, port=TO_53.port, asks=parsed))


def _cluster(*policies: resources.NetworkPolicy) -> snapshot.Snapshot:
    return snapshot.build([CLIENT, SERVER, *policies])


def test_a_query_is_answered_for_a_name_that_any_rule_has_and_says_which_do() -> None:
    cluster = _cluster(_asking("one", "one.example"), _asking("two", "*.two.example"))
    answer = queries.evaluate(cluster, FLOW, "a.two.example")
    assert answer.allowed
    assert answer.because == (
        "DNS queries for *.two.example or one.example and nothing else, by "
        "CiliumNetworkPolicy x/one egress[0], CiliumNetworkPolicy x/two egress[0] (E17)"
    )
    assert not queries.evaluate(cluster, FLOW, "two.example").allowed


def test_a_rule_without_names_lets_a_pod_ask_for_any() -> None:
    for other in (_policy("any", TO_53), _policy("any"), _policy("any", TO_53, kind="NetworkPolicy")):
        answer = queries.evaluate(_cluster(_asking("one", "one.example"), other), FLOW, "b.example")
        assert (answer.allowed, answer.restriction) == (True, None)
        assert answer.because.endswith("it may ask for any name (E17)")


def test_a_query_that_is_denied_as_a_flow_says_what_denies_the_flow() -> None:
    answer = queries.evaluate(_cluster(_policy("none", TO_53)), dataclasses.replace(FLOW, port=54), "a.b")
    assert (answer.allowed, answer.restriction) == (False, None)
    assert "isolated for egress" in answer.because


def test_who_restricts_is_in_the_explanation_and_in_the_document() -> None:
    walk = evaluator.walk(_cluster(_asking("one", "one.example")), FLOW)
    said = [line.text for line in explain.lines(walk)]
    restricts = "DNS queries for one.example and nothing else, by CiliumNetworkPolicy x/one egress[0] (E17)"
    assert f"it is for {restricts}" in said
    assert "port: port 53 is 53 (A9, A34), for DNS queries for one.example alone (E17)" in said
    egress = explain.document(walk)["egress"]
    assert isinstance(egress, dict)
    assert egress["queries"] == {"names": ["one.example"], "rules": ["CiliumNetworkPolicy x/one egress[0]"]}
    unrestricted = explain.document(evaluator.walk(_cluster(_policy("any")), FLOW))["egress"]
    assert isinstance(unrestricted, dict)
    assert unrestricted["queries"] is None


SECOND = dataclasses.replace(FLOW, destination_address=ipaddress.ip_address("10.0.0.3"))
"""To another backend, of which nothing is known but its address."""


def test_a_service_may_be_asked_for_what_each_backend_that_is_allowed_may_be_asked_for() -> None:
    cluster = _cluster(_asking("one", "one.example"))
    both = dataclasses.replace(FLOW, source_address=SECOND.destination_address)
    for flows in ([FLOW], [FLOW, both], [FLOW, SECOND]):
        assert queries.asked_of(cluster, flows, "one.example").allowed
        refused = queries.asked_of(cluster, flows, "two.example")
        assert not refused.allowed
        assert refused.because.startswith("DNS queries for one.example and nothing else")


def test_where_backends_differ_a_service_may_be_asked_for_nothing() -> None:
    anybody = _policy("world", TO_53)
    peers = (resources.IPBlock(cidr=ipaddress.ip_network("10.0.0.3/32")),)
    anybody = dataclasses.replace(anybody, egress=(resources.PolicyRule(peers=peers, ports=(TO_53,)),))
    answer = queries.asked_of(_cluster(_asking("one", "one.example"), anybody), [FLOW, SECOND], "one.example")
    assert not answer.allowed
    assert answer.because.startswith("no DNS query, as what may be asked for differs by backend, by Cilium")


def test_what_is_denied_has_no_filter_for_it_is_for_others_to_drop() -> None:
    elsewhere = dataclasses.replace(FLOW, port=54)
    answer = queries.asked_of(_cluster(_asking("one", "one.example")), [elsewhere], "two.example")
    assert (answer.allowed, answer.restriction) == (True, None)


def test_a_query_is_told_in_lines_and_as_a_document() -> None:
    answer = queries.asked_of(_cluster(_asking("one", "one.example")), [FLOW], "two.example")
    heading, because = explain.query_lines("two.example", answer)
    assert (heading.text, heading.good) == ("a DNS query for two.example: refused", False)
    assert because.text == answer.because
    document = explain.query_document("two.example", answer)
    assert (document["name"], document["allowed"], document["would_refuse"]) == ("two.example", False, False)


def test_a_rule_reads_in_words_as_what_it_restricts() -> None:
    (rule,) = words.rules(_asking("one", "one.example", "*.two.example"))
    assert rule.text.endswith("on UDP 53 for DNS queries for one.example or *.two.example alone")
