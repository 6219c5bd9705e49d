"""The DaemonSet that users get, on three real nodes: from `kubectl apply` to no trace of it."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Iterator

import pytest

from tests.cluster import bed, combinations, deployment, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

NODES = ("node1", "node2", "node3")
RSS_MAX_KIB = 96 * 1024
"""What the DaemonSet requests."""


class Workload:
    """A server on node1, and a friend and a stranger of it on node2, under a policy that lets the friend in."""

    def __init__(self, cluster: bed.Bed, where: str) -> None:
        """Make the pods and the policy, and wait for the pods."""
        self.cluster = cluster
        self.where = where
        friends = [{"from": [{"podSelector": {"matchLabels": {"pod": "friend"}}}]}]
        selects = {"podSelector": {"matchLabels": {"pod": "server"}}, "policyTypes": ["Ingress"]}
        cluster.apply(
            workloads.namespace(where),
            workloads.policy("friends-only", where=where, ingress=friends, **selects),
            workloads.pod("server", where=where, node="node1"),
            workloads.pod("friend", where=where, node="node2"),
            workloads.pod("stranger", where=where, node="node2"),
            workloads.pod("neighbour", where=where, node="node1"),
        )
        workloads.ready(cluster, where)
        self.server = workloads.addresses(cluster, where, "server")

    def is_enforced(self) -> None:
        """Fail unless the friend gets in and nobody else, over both families, from the same node and another."""
        wanted = {"friend": True, "stranger": False, "neighbour": False}
        rows = [(client, address, may) for client, may in wanted.items() for address in self.server]
        workloads.settles(self.cluster, self.where, rows)

    def is_open(self) -> None:
        """Fail unless everybody gets in."""
        rows = [(client, address, True) for client in ("friend", "stranger", "neighbour") for address in self.server]
        workloads.settles(self.cluster, self.where, rows)


@pytest.fixture
def workload(cluster: bed.Bed, request: pytest.FixtureRequest) -> Iterator[Workload]:
    where = f"t{zlib.crc32(request.node.name.encode())}"
    yield Workload(cluster, where)
    cluster.kubectl("delete", "namespace", where, "--wait=false")


@pytest.mark.daily
def test_from_nothing_to_ready_and_back_without_a_trace(bare: bed.Bed, shipped: pathlib.Path) -> None:
    deployed = deployment.Deployment(bare, overlay=shipped)
    before = {node: deployed.trace(node) for node in NODES}
    seconds = deployed.apply()
    resident = {node: deployed.resident_kib(node) for node in NODES}
    print(f"apply to ready: {seconds:.1f} s; resident KiB: {resident}")
    assert max(resident.values()) < RSS_MAX_KIB
    deployed.delete()
    deployed.uninstall()
    assert {node: deployed.trace(node) for node in NODES} == before


def test_a_policy_holds_between_nodes_and_on_one(agents: deployment.Deployment, workload: Workload) -> None:
    workload.is_enforced()
    states = {node: agents.agentctl(node, "status")["status"] for node in NODES}
    print({node: state["mode"] for node, state in states.items()})


def test_a_policy_that_is_deleted_lets_everybody_in(agents: deployment.Deployment, workload: Workload) -> None:
    workload.is_enforced()
    agents.cluster.kubectl("-n", workload.where, "delete", "networkpolicy", "friends-only")
    workload.is_open()


def test_what_was_enforced_stays_so_without_agents(agents: deployment.Deployment, workload: Workload) -> None:
    workload.is_enforced()
    agents.delete()
    workload.is_enforced()
    agents.uninstall()
    workload.is_open()


@pytest.mark.parametrize("capability", ["BPF", "PERFMON", "NET_ADMIN"])
def test_an_agent_without_a_capability_says_which(
    agents: deployment.Deployment, combination: combinations.Combination, capability: str
) -> None:
    if combination.engine != combinations.NFBPF and capability != "NET_ADMIN":
        pytest.skip(f"{combination.engine} does without {capability}")
    said = agents.without(capability, node="node3")
    print(f"without {capability}: {said}")
    assert f"CAP_{capability}" in said
