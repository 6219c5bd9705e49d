"""The graph tells who may, who did, and who was turned away."""

from __future__ import annotations

from typing import Any

import pytest

from agent import snapshot
from agent.flows import records
from agent.graph import build, model, seen
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

    def counting(known: snapshot.Snapshot, flow: evaluator.Flow) -> evaluator.Decision:
        asked.append(flow)
        return really(known, flow)

    monkeypatch.setattr(evaluator, "evaluate", counting)
    pods = [pod(f"{name}-{each}", app=name) for name in ("a", "b") for each in range(20)]
    peers = [{"podSelector": {"matchLabels": {"app": "a"}}}]
    graph_of([*pods, town.policy("x", "p", {"app": "b"}, ingress=[{"from": peers}])])
    assert len(asked) <= 4
