"""Egress by name on three real nodes: the policy that everybody writes, word for word, against the cluster's own DNS.

CoreDNS serves the zone with a TTL of a minute. The addresses in it are the outside: a server behind the nodes'
default route has every one of them, so whatever is not reached was not let out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster import api, bed, combinations, commands, deployment, fabric, programs, workloads
from tests.support import cases

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

TABLE = cases.DIRECTORY / "seeds" / "05-cilium-egress-dns.yaml"
CRDS = programs.ROOT / "daemonset" / "crds"
WHERE = "app-namespace"
CLIENTS = {"frontend": "node1", "frontend-2": "node2"}
PORT, OTHER_PORT = 80, 81
KNOWN_S = 90
"""Agents look for definitions that were not there once a minute."""
DNS = "kube-system", "deployment/coredns"


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A row of the zone, and what the policy makes of it."""

    name: str
    address: str
    reachable: bool = True
    resolves: bool = True


POLICY: dict[str, Any] = yaml.safe_load(TABLE.read_text())["steps"][0]["policies"][0]
TTL_S = 60
ZONE = (
    Name("cilium.io", "198.51.100.20"),
    Name("service1.api.cilium.io", "198.51.100.21"),
    Name("special-eu-service.api.cilium.io", "198.51.100.22"),
    Name("specialservice.api.cilium.io", "198.51.100.23"),
    Name("other.api.cilium.io", "198.51.100.24", reachable=False),
    Name("special.x.service.api.cilium.io", "198.51.100.25", reachable=False, resolves=False),
    Name("example.org", "198.51.100.26", reachable=False, resolves=False),
)


@contextlib.contextmanager
def outside(cluster: bed.Bed) -> Iterator[None]:
    """Give the machine behind the default route every address of the zone, and a server on two ports."""
    netns = cluster.shape.netns(fabric.CONTROL)
    for row in ZONE:
        commands.run("ip", "-n", netns, "addr", "add", f"{row.address}/32", "dev", "lo")
    for member in cluster.shape.members():
        commands.run("ip", "-n", netns, "route", "add", member.pod_ranges[0], "via", member.addresses[0])
    serve = ["ip", "netns", "exec", netns, sys.executable, "-m", "http.server"]
    servers = [
        subprocess.Popen([*serve, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in (PORT, OTHER_PORT)
    ]
    try:
        yield
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for member in cluster.shape.members():
            commands.run("ip", "-n", netns, "route", "del", member.pod_ranges[0], quiet=True)
        for row in ZONE:
            commands.run("ip", "-n", netns, "addr", "del", f"{row.address}/32", "dev", "lo", quiet=True)


def corefile(original: str) -> str:
    """Return CoreDNS's configuration with the zone in it."""
    apexes = " ".join(sorted({f"{'.'.join(row.name.split('.')[-2:])}:53" for row in ZONE}))
    rows = "".join(f"    {row.address} {row.name}\n" for row in ZONE)
    return f"{original}{apexes} {{\n  errors\n  hosts {{\n{rows}    ttl {TTL_S}\n  }}\n}}\n"


@contextlib.contextmanager
def served(cluster: bed.Bed) -> Iterator[None]:
    """Have CoreDNS serve the zone."""
    namespace, deployment_ = DNS
    before = cluster.json("-n", namespace, "get", "configmap", "coredns")["data"]["Corefile"]

    def write(text: str) -> None:
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": namespace}}
        cluster.apply({**document, "data": {"Corefile": text}})
        cluster.kubectl("-n", namespace, "rollout", "restart", deployment_)
        cluster.kubectl("-n", namespace, "rollout", "status", deployment_, "--timeout=180s")

    write(corefile(before))
    try:
        yield
    finally:
        write(before)


@pytest.fixture
def asked(
    cluster: bed.Bed, deployed: deployment.Deployment, combination: combinations.Combination
) -> Iterator[api.Api]:
    """Make the clients, the zone and the outside; the definitions of the kinds stay."""
    if combination.engine == combinations.IPTABLES:
        pytest.skip("without BPF nobody learns names where NFQUEUE is missing")
    assert deployed.pods()
    cluster.kubectl("apply", "-f", str(CRDS))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    with (
        api.Api(cluster.shape) as opened,
        workloads.namespaces(cluster, opened, workloads.namespace(WHERE)),
        served(cluster),
        outside(cluster),
    ):
        for name, node in CLIENTS.items():
            opened.create(workloads.pod(name, where=WHERE, node=node, labels={"app": "frontend"}))
        workloads.ready(cluster, WHERE)
        yield opened


def outcome(cluster: bed.Bed, client: str, host: str, port: int = PORT) -> str:
    """Connect once from a pod; return "" or what it complains of: DNS, TIMEOUT, OTHER and so on."""
    try:
        cluster.kubectl("-n", WHERE, "exec", client, "--", *workloads.attempt(host, port))
    except commands.Failed as error:
        if "exit code" not in str(error):
            raise
        return str(error)
    return ""


def enforced(deployed: deployment.Deployment) -> bool:
    """Tell whether every client's agent knows the policy."""
    name = POLICY["metadata"]["name"]
    return all(name in str(deployed.agentctl(node, "policy", "list")) for node in CLIENTS.values())


def test_the_policy_that_everybody_writes_opens_its_names_and_nothing_else(
    cluster: bed.Bed, asked: api.Api, deployed: deployment.Deployment
) -> None:
    for row in ZONE:
        assert outcome(cluster, "frontend", row.name) == "", f"{row.name} is not reached without a policy"
    cluster.apply(POLICY)
    commands.wait("agents that know the policy", lambda: enforced(deployed), limit_s=KNOWN_S, pause_s=0.5)
    wrong = []
    for client in CLIENTS:
        for row in ZONE:
            said = outcome(cluster, client, row.name)
            if row.reachable is bool(said) or (not row.resolves) is not ("DNS" in said):
                wrong.append((client, row.name, said))
            if row.reachable and not outcome(cluster, client, row.name, OTHER_PORT):
                wrong.append((client, row.name, "is reached on another port"))
            if not row.reachable and not outcome(cluster, client, row.address):
                wrong.append((client, row.address, "is reached by its address"))
    assert not wrong
    assert asked.get(f"/apis/cilium.io/v2/namespaces/{WHERE}/ciliumnetworkpolicies")["items"]
