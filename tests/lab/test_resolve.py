"""What a running cluster's API would add to manifests."""

from __future__ import annotations

import copy

from agent.lab import resolve
from agent.model import net
from tests.lab import manifests

BOTH = (net.Family.IPV4, net.Family.IPV6)


def _by_name(documents: list[manifests.Document], kind: str) -> dict[str, manifests.Document]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def _ips(pod: manifests.Document) -> list[str]:
    return [entry["ip"] for entry in pod["status"]["podIPs"]]


def test_stated_addresses_are_kept_and_the_others_avoid_them() -> None:
    resolved = resolve.resolve([manifests.pod("a", address="10.244.1.2"), manifests.pod("b")])
    pods = _by_name(resolved, "Pod")
    assert _ips(pods["a"]) == ["10.244.1.2"]
    assert _ips(pods["b"]) == ["10.244.1.3"]
    assert pods["b"]["status"]["podIP"] == "10.244.1.3"
    assert pods["b"]["status"]["phase"] == "Running"


def test_the_input_is_not_changed() -> None:
    documents = [manifests.pod("a")]
    before = copy.deepcopy(documents)
    resolve.resolve(documents)
    assert documents == before


def test_without_any_node_there_is_one() -> None:
    pod = manifests.pod("a")
    del pod["spec"]["nodeName"]
    resolved = resolve.resolve([pod])
    assert list(_by_name(resolved, "Node")) == ["node-1"]
    assert _by_name(resolved, "Pod")["a"]["spec"]["nodeName"] == "node-1"


def test_pods_without_a_node_are_dealt_out() -> None:
    pods = [manifests.pod(name) for name in "abc"]
    for pod in pods:
        del pod["spec"]["nodeName"]
    nodes = [manifests.node("node-1"), manifests.node("node-2")]
    placed = _by_name(resolve.resolve([*pods, *nodes]), "Pod")
    assert [placed[name]["spec"]["nodeName"] for name in "abc"] == ["node-1", "node-2", "node-1"]


def test_every_pod_gets_the_families_that_are_asked_for() -> None:
    pods = _by_name(resolve.resolve([manifests.pod("a", address="10.0.0.7"), manifests.pod("b")], families=BOTH), "Pod")
    assert [len(_ips(pods[name])) for name in "ab"] == [2, 2]
    assert _ips(pods["a"])[0] == "10.0.0.7"


def test_pods_of_stated_ipv6_addresses_get_no_ipv4_unasked() -> None:
    pods = _by_name(resolve.resolve([manifests.pod("a", address="fd00::7")]), "Pod")
    assert _ips(pods["a"]) == ["fd00::7"]


def test_derived_pod_ranges_hold_no_pod_of_another_node() -> None:
    documents = [
        manifests.pod("a", node="node-1", address="10.244.0.10"),
        manifests.pod("b", node="node-2", address="10.244.1.10"),
        manifests.pod("c", node="node-1", address="10.244.2.10"),
        manifests.pod("d", node="node-1", address="10.9.9.1"),
        manifests.pod("e", node="node-2", address="10.9.9.2"),
    ]
    nodes = _by_name(resolve.resolve(documents), "Node")
    assert nodes["node-1"]["spec"]["podCIDRs"] == ["10.244.0.0/24", "10.244.2.0/24"]
    assert nodes["node-2"]["spec"]["podCIDRs"] == ["10.244.1.0/24"]


def test_a_range_that_is_made_up_is_nobody_elses() -> None:
    documents = [manifests.pod("a", node="node-2", address="10.244.1.10"), manifests.node("node-1")]
    nodes = _by_name(resolve.resolve(documents), "Node")
    assert nodes["node-1"]["spec"]["podCIDRs"] == ["10.244.2.0/24"]


def test_stated_node_addresses_and_ranges_are_kept() -> None:
    node = manifests.node("node-1", "192.168.0.5", ranges=("10.7.0.0/24",))
    resolved = resolve.resolve([node, manifests.pod("a")])
    assert _by_name(resolved, "Node")["node-1"]["status"]["addresses"][0]["address"] == "192.168.0.5"
    assert _ips(_by_name(resolved, "Pod")["a"]) == ["10.7.0.2"]


def test_host_network_pods_have_their_nodes_addresses() -> None:
    """Rule A26."""
    resolved = resolve.resolve([manifests.node("node-1", "192.168.0.5"), manifests.pod("a", hostNetwork=True)])
    assert _ips(_by_name(resolved, "Pod")["a"]) == ["192.168.0.5"]


def test_finished_pods_are_left_as_they_are() -> None:
    """Rule A27."""
    pod = manifests.pod("a")
    pod["status"] = {"phase": "Succeeded"}
    assert _by_name(resolve.resolve([pod]), "Pod")["a"]["status"] == {"phase": "Succeeded"}


def test_a_second_resolution_moves_nobody() -> None:
    documents = [
        manifests.pod("a"),
        manifests.pod("b", node="node-2"),
        manifests.service("s", app="a", port=1, target=2),
    ]
    first = resolve.resolve(documents, families=BOTH)
    assert resolve.resolve(documents, families=BOTH, previous=first) == first
    grown = resolve.resolve([manifests.pod("0"), *documents], families=BOTH, previous=first)
    assert _by_name(grown, "Pod")["a"] == _by_name(first, "Pod")["a"]
    assert _ips(_by_name(grown, "Pod")["0"]) != _ips(_by_name(first, "Pod")["a"])


def test_services_get_addresses_and_node_ports_as_their_type_asks() -> None:
    documents = [
        manifests.service("cluster", app="a", port=1, target=2),
        manifests.service("node", app="a", port=1, target=2, type="NodePort"),
        manifests.service("headless", app="a", port=1, target=2, clusterIP="None"),
    ]
    services = _by_name(resolve.resolve(documents), "Service")
    assert services["cluster"]["spec"]["clusterIP"] == "10.96.0.100"
    assert services["node"]["spec"]["clusterIPs"] == ["10.96.0.101"]
    assert [port["nodePort"] for port in services["node"]["spec"]["ports"]] == [30000, 30001]
    assert services["headless"]["spec"]["clusterIP"] == "None"


def test_lists_are_taken_apart() -> None:
    pods = {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a", "namespace": "x"}}]}
    documents = {"apiVersion": "v1", "kind": "List", "items": [manifests.node("node-9", "10.0.0.1"), pods]}
    resolved = resolve.resolve([documents])
    assert _by_name(resolved, "Pod")["a"]["spec"]["nodeName"] == "node-9"


def test_what_is_malformed_is_passed_on() -> None:
    """Rule A50: the agents shall see it."""
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": [1]}
    assert policy in resolve.resolve([policy, manifests.pod("a")])
