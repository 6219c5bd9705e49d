"""A large cluster as documents: namespaces of ten pods and five policies each, most of the pods on nodes elsewhere.

What is written to an API server that has no controllers; the first pod of each of the first namespaces is on the node
whose agent is measured.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator
from typing import Any

from tests.cluster import settings, workloads

Document = dict[str, Any]
PODS_EACH = 10
POLICIES_EACH = 5
APPS = ("web", "api", "db")
ELSEWHERE = 100
"""Nodes that nobody runs."""
FIRST = (ipaddress.ip_address("10.128.0.0"), ipaddress.ip_address("fd00:128::"))
TEAMS = 7


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A pod of the node."""

    namespace: str
    name: str
    uid: str
    addresses: tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How large."""

    namespaces: int
    local: int
    """Pods of the node, at most one a namespace."""

    def documents(self, number: int) -> Iterator[Document]:
        """Yield a namespace and what is in it, in the order in which it can be created."""
        where = name_of(number)
        yield workloads.namespace(where, team=f"team-{number % TEAMS}")
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": where}}
        yield from policies(number)
        for each in range(PODS_EACH):
            node = "node1" if each == 0 and number < self.local else f"elsewhere-{(number + each) % ELSEWHERE}"
            yield pod(number, each, node)

    def own(self, number: int, uid: str) -> Local:
        """Return the node's pod of a namespace."""
        return Local(namespace=name_of(number), name="pod-0", uid=uid, addresses=addresses(number, 0))


def name_of(number: int) -> str:
    """Return a namespace's name."""
    return f"ns-{number}"


def addresses(number: int, each: int) -> tuple[str, str]:
    """Return a pod's addresses."""
    four, six = (str(first + 1 + number * PODS_EACH + each) for first in FIRST)
    return four, six


def pod(number: int, each: int, node: str) -> Document:
    """Return a pod."""
    ports = [{"name": "http", "containerPort": workloads.PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{each}",
            "namespace": name_of(number),
            "labels": {"app": APPS[each % len(APPS)], "release": f"r{number % 3}"},
        },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "containers": [{"name": "main", "image": settings.AGNHOST_IMAGE, "ports": ports}],
        },
    }


def status(number: int, each: int) -> Document:
    """Return what the node would say of a pod that runs."""
    both = addresses(number, each)
    return {"status": {"phase": "Running", "podIP": both[0], "podIPs": [{"ip": one} for one in both]}}


def policies(number: int) -> Iterator[Document]:
    """Yield five, of the kinds that namespaces have."""
    where = name_of(number)
    app = {one: {"podSelector": {"matchLabels": {"app": one}}} for one in APPS}
    team = {"namespaceSelector": {"matchLabels": {"team": f"team-{number % TEAMS}"}}}
    port = [{"port": workloads.PORT, "protocol": "TCP"}]
    yield workloads.policy("default-deny", where=where, policyTypes=["Ingress", "Egress"])
    yield workloads.policy("web-to-api", where=where, **app["api"], ingress=[{"from": [app["web"]], "ports": port}])
    yield workloads.policy("team-to-web", where=where, **app["web"], ingress=[{"from": [team], "ports": port}])
    kube = {"namespaceSelector": workloads.named("kube-system")}
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    yield workloads.policy("dns", where=where, policyTypes=["Egress"], egress=[{"to": [kube], "ports": dns}])
    block = {"ipBlock": {"cidr": f"192.0.2.{number % 256}/32"}}
    yield workloads.policy("api-out", where=where, **app["api"], policyTypes=["Egress"], egress=[{"to": [block]}])
