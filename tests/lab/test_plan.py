"""What is built for resolved manifests."""

from __future__ import annotations

import pytest

from agent import errors
from agent.lab import links, orders, plan, resolve, rundir
from tests.lab import manifests

PATHS = rundir.RunDirectory("t")
DOCUMENTS = [
    manifests.pod("a", address="10.244.1.10", ports=("80/TCP",)),
    manifests.pod("b", node="node-2", address="10.244.1.11"),
    manifests.host("h", "203.0.113.1", ports=("443/TCP",)),
]


def _plan(
    *documents: manifests.Document, topology: plan.Topology = plan.Topology.ROUTED, previous: plan.LabPlan | None = None
) -> plan.LabPlan:
    assert previous is None
    return plan.plan(resolve.resolve(documents), topology)


def _lines(layout: plan.LabPlan) -> dict[str, list[str]]:
    built = orders.build(orders.compare(None, layout), PATHS)
    found: dict[str, list[str]] = {}
    for batch in built["batches"]:
        found.setdefault(batch["netns"], []).extend(batch["lines"])
    return found


def test_finished_pods_are_not_built() -> None:
    """Rule A27."""
    finished = manifests.pod("a", address="10.244.1.10")
    finished["status"]["phase"] = "Succeeded"
    assert not _plan(finished).pods


def test_two_parties_with_one_address_are_refused() -> None:
    with pytest.raises(errors.LabError, match=r"x/a and x/b both have the address 10\.244\.1\.10"):
        _plan(manifests.pod("a", address="10.244.1.10"), manifests.pod("b", address="10.244.1.10"))


def test_a_party_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(errors.InvalidInput, match=r"x/a, x/b, host/h, node/node-1, node/node-2"):
        _plan(*DOCUMENTS).addresses("x/c")


def test_the_bridge_gets_a_gateway_a_subnet_that_is_no_pods_address() -> None:
    pods = [manifests.pod("a", address="10.244.0.1"), manifests.pod("b", address="10.244.2.7")]
    gateways = _plan(*pods, topology=plan.Topology.BRIDGE).nodes["node-1"].gateways
    assert list(map(str, gateways)) == ["10.244.0.2/24", "10.244.2.1/24"]


def test_interface_names_fit_the_kernel() -> None:
    layout = _plan(manifests.pod("a" * 200), manifests.host("h" * 200, "203.0.113.1"), manifests.node("n" * 200))
    added = [line.split()[2] for lines in _lines(layout).values() for line in lines if line.startswith("link add")]
    assert added
    assert all(len(name) <= 15 for name in added)


def test_every_pod_is_reached_from_the_fabric_and_the_other_nodes() -> None:
    lines = _lines(_plan(*DOCUMENTS))
    assert "route replace 10.244.1.10/32 via 172.18.0.2 dev nodes0 onlink" in lines[str(PATHS.fabric)]
    way = "route replace 10.244.1.10/32 via 172.18.0.2 dev eth0 onlink src 172.18.0.3"
    assert way in lines[str(PATHS.node_netns("node-2"))]


def test_the_tunnel_carries_pods_of_other_nodes() -> None:
    lines = _lines(_plan(*DOCUMENTS, topology=plan.Topology.VXLAN))[str(PATHS.node_netns("node-2"))]
    assert "route replace 10.244.1.10/32 via 172.18.0.2 dev vxlan0 onlink src 172.18.0.3" in lines
    assert f"fdb append {plan.mac('node-1')} dev vxlan0 dst 172.18.0.2" in lines


def test_on_the_bridge_netfilter_sees_bridged_packets() -> None:
    assert links.node_sysctls(plan.Topology.BRIDGE)["net/bridge/bridge-nf-call-iptables"] == "1"
    assert "net/bridge/bridge-nf-call-iptables" not in links.node_sysctls(plan.Topology.ROUTED)


def test_a_policy_change_orders_nothing() -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {"podSelector": {}},
    }
    change = orders.compare(_plan(*DOCUMENTS), _plan(*DOCUMENTS, policy))
    assert not (change.gone_pods)
    assert not (change.new_pods)
    assert not (change.gone_hosts)
    assert not (change.new_hosts)
    assert not (change.services)
    assert not any(orders.build(change, PATHS).values())


def test_relabelling_rebuilds_no_pod() -> None:
    """Rule A29."""
    relabelled = manifests.pod("a", address="10.244.1.10", ports=("80/TCP",))
    relabelled["metadata"]["labels"] = {"other": "label"}
    change = orders.compare(_plan(*DOCUMENTS), _plan(relabelled, *DOCUMENTS[1:]))
    assert not (change.gone_pods)
    assert not (change.new_pods)


def test_a_pod_that_comes_back_elsewhere_is_another_sandbox() -> None:
    """Rule A49."""
    moved = manifests.pod("a", address="10.244.1.12", ports=("80/TCP",))
    change = orders.compare(_plan(*DOCUMENTS), _plan(moved, *DOCUMENTS[1:]))
    assert [pod.party for pod in change.gone_pods] == [pod.party for pod in change.new_pods] == ["x/a"]
    assert change.gone_pods[0].container != change.new_pods[0].container


def test_services_are_written_again_when_their_backends_change() -> None:
    service = manifests.service("s", app="a", port=80, target=80)
    change = orders.compare(_plan(*DOCUMENTS, service), _plan(*DOCUMENTS[1:], service))
    assert change.services
    assert all("LAB-SERVICES" in restore["text"] for restore in orders.restores(change, PATHS))


def test_host_network_pods_get_no_namespace_and_no_cni_entry() -> None:
    """Rule A26."""
    built = orders.build(orders.compare(None, _plan(manifests.pod("a", hostNetwork=True))), PATHS)
    assert not built["files"]
    assert [order["netns"] for order in built["processes"]] == [str(PATHS.node_netns("node-1"))] * 2


@pytest.mark.parametrize("name", ["../../x", "a/b", "..", ".", "a\0b"])
def test_no_name_of_a_manifest_becomes_a_path(name: str) -> None:
    spoilt = manifests.pod("a")
    spoilt["metadata"]["uid"] = name
    for document in (manifests.pod(name), manifests.node(name, "10.0.0.9"), manifests.host(name, "10.0.0.8"), spoilt):
        with pytest.raises(errors.LabError, match="a lab builds only"):
            _plan(document)


@pytest.mark.parametrize("name", ["", "../x", "A", "a" * 17, "-a", "a-", "a/b"])
def test_a_labs_name_cannot_leave_its_directory(name: str) -> None:
    with pytest.raises(errors.InvalidInput):
        rundir.RunDirectory(name)
