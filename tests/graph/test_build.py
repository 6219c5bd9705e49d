"""The graph tells who may, who did, and who was turned away."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from agent import snapshot
from agent.flows import records
from agent.graph import build, model, seen
from agent.model import audit as audit_
from agent.policy import evaluator, reachability
from tests.graph import town


def graph_of(manifests: list[dict[str, Any]] | None, lines: list[str] | None = None, **asked: Any) -> model.Graph:
    read = records.read(line.encode() for line in lines or ())
    known = town.snapshot(manifests) if manifests is not None else None
    return build.build(known, filter(None, map(seen.of_record, read)), asked=build.Asked(**asked))


def edges(graph: model.Graph) -> dict[tuple[str, str], model.Edge]:
    return {(graph.nodes[one.source].key.name, graph.nodes[one.target].key.name): one for one in graph.edges}


@pytest.fixture(scope="module")
def demo_lines() -> list[str]:
    return list(town.demo_lines())


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": labels},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", "image": "one", "ports": [{"containerPort": 80}]}],
        },
    }


def test_the_demo_shows_what_is_used_what_is_denied_and_what_nobody_uses(demo_lines: list[str]) -> None:
    found = edges(graph_of(town.demo_documents(), demo_lines))
    assert {ends: edge.state for ends, edge in found.items()} == {
        ("ingress", "backend"): model.State.DENIED,
        ("ingress", "frontend"): model.State.SEEN,
        ("frontend", "backend"): model.State.SEEN,
        ("intruder", "backend"): model.State.DENIED,
        ("intruder", "frontend"): model.State.DENIED,
        ("customer", "ingress"): model.State.SEEN,
        ("world", "ingress"): model.State.UNSEEN,
    }
    assert found["intruder", "backend"].lanes[0].policies == ("NetworkPolicy shop/default-deny",)
    assert found["frontend", "backend"].forwarded == 36, "counted once, though both ends told of it"


def test_verdicts_that_were_kept_back_are_counted(demo_lines: list[str]) -> None:
    lines = [json.loads(line) for line in demo_lines]
    denied = next(one for one in lines if one["flow"]["verdict"] == "DROPPED")["flow"]
    way = denied["traffic_direction"].lower()
    before = graph_of(None, demo_lines)
    denied["aggregate"] = {f"{way}_flow_count": 2883}
    after = graph_of(None, [json.dumps(one) for one in lines])
    counted = [sum(edge.denied for edge in graph.edges) for graph in (before, after)]
    assert counted[1] - counted[0] == after.verdicts - before.verdicts == 2882


def test_what_is_allowed_is_what_the_evaluator_allows_for_each_pair() -> None:
    known = town.snapshot(town.demo_documents())
    drawn = graph_of(town.demo_documents(), everything=True, expand=True)
    shown = {
        (drawn.nodes[edge.source].key.name, drawn.nodes[edge.target].key.name, lane.port)
        for edge in drawn.edges
        for lane in edge.lanes
        if "world" not in (drawn.nodes[edge.source].key.name, drawn.nodes[edge.target].key.name)
    }
    wanted = set()
    for one in reachability.reach(known, reachability.declared(known)):
        if one.decision.allowed:
            wanted.add((one.source.rpartition("/")[2], one.destination.rpartition("/")[2], one.port[0]))
    assert shown == wanted


def test_recorded_verdicts_alone_make_a_graph_without_policies(demo_lines: list[str]) -> None:
    graph = graph_of(None, demo_lines)
    assert graph.policies == 0
    assert graph.of(model.State.UNSEEN) == 0
    assert edges(graph)["intruder", "backend"].lanes[0].allowed is None


def test_what_was_seen_and_is_denied_now_is_told(demo_lines: list[str]) -> None:
    documents = [one for one in town.demo_documents() if one["metadata"]["name"] != "backend-from-frontend"]
    lane = edges(graph_of(documents, demo_lines))["frontend", "backend"].lanes[0]
    assert (lane.allowed, lane.outdated, lane.state) == (False, True, model.State.SEEN)


def test_only_edges_of_the_namespaces_asked_for_are_there(demo_lines: list[str]) -> None:
    graph = graph_of(town.demo_documents(), demo_lines, namespaces=frozenset({"edge"}))
    assert ("frontend", "backend") not in edges(graph)
    assert "intruder" not in {node.key.name for node in graph.nodes}


def test_pods_of_one_template_are_one_workload_and_can_be_told_apart() -> None:
    pods = [pod(f"web-5c8f-{each}", **{"app": "web", "pod-template-hash": "5c8f"}) for each in ("aa", "bb")]
    [node] = graph_of(pods).nodes
    assert (node.key.name, node.pods) == ("web", ("web-5c8f-aa", "web-5c8f-bb"))
    assert dict(node.labels) == {"app": "web"}
    assert [one.key.name for one in graph_of(pods, expand=True).nodes] == ["web-5c8f-aa", "web-5c8f-bb"]


def test_pods_with_equal_labels_are_one_workload() -> None:
    assert [node.key.name for node in graph_of([pod("db-0", app="db"), pod("db-1", app="db"), pod("x")]).nodes] == [
        "db",
        "x",
    ]


def test_where_no_policy_isolates_a_node_says_so_and_there_is_no_edge() -> None:
    graph = graph_of([pod("a"), pod("b", app="b")])
    assert all(node.open_ingress and node.open_egress for node in graph.nodes)
    assert not graph.edges
    assert len(graph_of([pod("a"), pod("b", app="b")], everything=True).edges) == 2


def test_an_edge_that_only_some_pods_have_is_marked() -> None:
    pods = [
        pod("a-0", app="a", **{"apps.kubernetes.io/pod-index": "0"}),
        pod("a-1", app="a", **{"apps.kubernetes.io/pod-index": "1"}),
        pod("b", app="b"),
    ]
    peers = [{"podSelector": {"matchLabels": {"apps.kubernetes.io/pod-index": "0"}}}]
    graph = graph_of([*pods, town.policy("x", "p", {"app": "b"}, ingress=[{"from": peers}])])
    [edge] = graph.edges
    assert [lane.partial for lane in edge.lanes] == [True]


def test_blocks_ranges_of_ports_and_everybody_are_ends_outside() -> None:
    rules = [
        {
            "to": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}}],
            "ports": [{"port": 1, "endPort": 9}],
        },
        {"ports": [{"port": 53, "protocol": "UDP"}]},
    ]
    found = edges(graph_of([pod("a"), town.policy("x", "p", {}, egress=rules)]))
    block = found["a", "192.0.2.0/24 but 192.0.2.1/32"].lanes[0]
    assert (block.port, block.because) == (None, "ports 1-9")
    assert (found["a", "world"].lanes[0].port, found["a", "world"].lanes[0].protocol) == (53, 17)


def test_an_address_is_of_the_narrowest_range_that_has_it(demo_lines: list[str]) -> None:
    line = demo_lines[0].replace("203.0.113.10", "198.51.100.9").replace('"customer"', "")
    peers = [{"ipBlock": {"cidr": "198.51.100.0/24"}}, {"ipBlock": {"cidr": "198.0.0.0/8"}}]
    documents = [*town.demo_documents(), town.policy("edge", "p", {"app": "ingress"}, ingress=[{"from": peers}])]
    graph = graph_of(documents, [line])
    edge = edges(graph)["198.51.100.0/24", "ingress"]
    assert edge.lanes[0].forwarded == 1
    assert graph.nodes[edge.source].addresses == ("198.51.100.9",)


def test_pods_that_policies_cannot_tell_apart_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[evaluator.Flow] = []
    really = evaluator.evaluate

    def counting(known: snapshot.Snapshot, flow: evaluator.Flow, audit: audit_.Audit) -> evaluator.Decision:
        asked.append(flow)
        return really(known, flow, audit)

    monkeypatch.setattr(evaluator, "evaluate", counting)
    pods = [pod(f"{name}-{each}", app=name) for name in ("a", "b") for each in range(20)]
    peers = [{"podSelector": {"matchLabels": {"app": "a"}}}]
    graph_of([*pods, town.policy("x", "p", {"app": "b"}, ingress=[{"from": peers}])])
    assert len(asked) <= 4


AUDIT = audit_.Audit(flags=frozenset({audit_.Target("x")}))
WALL = town.policy("x", "wall", {"app": "b"}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}])
THREE = [pod("a", app="a"), pod("b", app="b"), pod("c", app="c"), WALL]


def everywhere(audit: audit_.Audit = AUDIT) -> dict[str, audit_.Audit]:
    return {"": audit, "n1": audit}


def test_what_policies_in_audit_would_deny_is_an_edge_of_its_own() -> None:
    """Rule A51."""
    enforced = graph_of(THREE)
    assert {ends: edge.state for ends, edge in edges(enforced).items()} == {("a", "b"): model.State.UNSEEN}
    drawn = graph_of(THREE, audits=everywhere())
    assert {ends: edge.state for ends, edge in edges(drawn).items()} == {("c", "b"): model.State.AUDIT}
    [lane] = edges(drawn)["c", "b"].lanes
    assert (lane.allowed, lane.would_deny, lane.partial, lane.tried) == (True, True, False, False)
    assert lane.policies == ("NetworkPolicy x/wall",)
    assert "is isolated for ingress by NetworkPolicy x/wall" in lane.because


def test_a_policy_in_audit_isolates_nobody_and_opens_nothing() -> None:
    """Rule A51."""
    block = [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]
    documents = [pod("a", app="a"), town.policy("x", "p", {}, ingress=block)]
    assert ("192.0.2.0/24", "a") in edges(graph_of(documents))
    [node] = graph_of(documents).nodes[:1]
    assert not node.open_ingress
    drawn = graph_of(documents, audits=everywhere())
    assert not drawn.edges
    assert drawn.nodes[0].open_ingress


def test_what_is_in_audit_on_one_node_is_enforced_on_others() -> None:
    """Rule A51: audit is a node's."""
    elsewhere = pod("b-2", app="b")
    elsewhere["spec"]["nodeName"] = "n2"
    known = {"n1": AUDIT, "n2": audit_.NOTHING}
    drawn = graph_of([*THREE, elsewhere], audits=known, expand=True)
    found = edges(drawn)
    assert found["c", "b"].state is model.State.AUDIT
    assert ("c", "b-2") not in found
    assert found["a", "b-2"].state is model.State.UNSEEN
    together = edges(graph_of([*THREE, elsewhere], audits=known))["c", "b"]
    assert [(lane.would_deny, lane.partial) for lane in together.lanes] == [(True, True)]


def test_nothing_is_said_of_a_node_whose_audit_is_not_known(demo_lines: list[str]) -> None:
    """Rule A51: an agent tells of its own; what it saw pass is not outdated for what another may have in audit."""
    documents = [one for one in town.demo_documents() if one["metadata"]["name"] != "backend-from-frontend"]
    audit = audit_.Audit(flags=frozenset({audit_.Target("shop")}))
    lane = edges(graph_of(documents, demo_lines, audits={"node-1": audit}))["frontend", "backend"].lanes[0]
    assert (lane.allowed, lane.outdated, lane.state) == (None, False, model.State.SEEN)
    certain = {"node-1": audit, "node-2": audit_.NOTHING}
    lane = edges(graph_of(documents, demo_lines, audits=certain))["frontend", "backend"].lanes[0]
    assert (lane.allowed, lane.outdated) == (False, True)


def test_would_be_denials_that_were_told_are_counted_and_come_before_what_only_passed(demo_lines: list[str]) -> None:
    """Rule A51."""
    lines = [json.loads(line) for line in demo_lines]
    for one in lines:
        if one["flow"]["verdict"] == "DROPPED":
            one["flow"]["verdict"] = "AUDIT"
    shop = {"": audit_.Audit(flags=frozenset({audit_.Target("shop"), audit_.Target("edge")}))}
    nodes = {one["spec"]["nodeName"] for one in town.demo_documents() if one["kind"] == "Pod"}
    drawn = graph_of(town.demo_documents(), [json.dumps(one) for one in lines], audits=dict.fromkeys(nodes, shop[""]))
    edge = edges(drawn)["intruder", "backend"]
    assert (edge.state, edge.audited, edge.denied) == (model.State.AUDIT, 12, 0)
    assert edge.lanes[0].policies == ("NetworkPolicy shop/default-deny",)
    assert not edge.lanes[0].outdated
    passed = edges(drawn)["frontend", "backend"]
    assert (passed.state, passed.forwarded, passed.audited) == (model.State.SEEN, 36, 0)
    over = graph_of(town.demo_documents(), [json.dumps(one) for one in lines])
    assert edges(over)["intruder", "backend"].lanes[0].outdated, "the policies are enforced now"


def test_what_was_only_seen_and_would_be_denied_now_is_told(demo_lines: list[str]) -> None:
    """Rule A51: a recording of before, judged by policies that are put into audit."""
    documents = [one for one in town.demo_documents() if one["metadata"]["name"] != "backend-from-frontend"]
    nodes = {one["spec"]["nodeName"] for one in documents if one["kind"] == "Pod"}
    audit = audit_.Audit(flags=frozenset({audit_.Target("shop")}))
    edge = edges(graph_of(documents, demo_lines, audits=dict.fromkeys(nodes, audit)))["frontend", "backend"]
    assert (edge.state, edge.forwarded, edge.audited) == (model.State.AUDIT, 36, 0)
    assert (edge.lanes[0].outdated, edge.lanes[0].would_deny) == (False, True)


def test_a_port_that_nobody_tried_does_not_hide_one_that_is_used() -> None:
    used = model.Lane(port=80, protocol=6, allowed=True, forwarded=3)
    unused = model.Lane(port=81, protocol=6, allowed=True, would_deny=True)
    audited = dataclasses.replace(used, port=82, audited=1, would_deny=True)
    denied = dataclasses.replace(used, port=83, denied=1)
    edge = model.Edge(source=0, target=1, lanes=(unused, used))
    assert edge.state is model.State.SEEN
    assert dataclasses.replace(edge, lanes=(unused, used, audited)).state is model.State.AUDIT
    assert dataclasses.replace(edge, lanes=(unused, used, audited, denied)).state is model.State.DENIED
    assert dataclasses.replace(edge, lanes=(unused,)).state is model.State.AUDIT
