"""Pods and policies for the tests, as plain documents, and questions to running pods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent import patience
from tests.cluster import api, bed, commands, settings

PORT = 8080
READY_S = 120
GONE_S = 180.0


def named(name: str) -> dict[str, Any]:
    """Return a selector of one namespace."""
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@contextlib.contextmanager
def namespaces(cluster: bed.Bed, asked: api.Api, *documents: Mapping[str, Any]) -> Iterator[None]:
    """Make namespaces that pods can be put into at once; delete them with what is in them, and wait until they went."""
    names = [document["metadata"]["name"] for document in documents]
    asked.create(*documents)
    # The controller makes it too, but later.
    accounts = [{"name": "default", "namespace": name} for name in names]
    asked.create(*({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": one} for one in accounts))
    try:
        yield
    finally:
        cluster.kubectl("delete", "namespace", *names, "--wait=false", "--ignore-not-found")
        left = set(names)

        def gone() -> bool:
            there = {one["metadata"]["name"] for one in asked.get("/api/v1/namespaces")["items"]}
            return not left & there

        commands.wait(f"end of {', '.join(names)}", gone, limit_s=GONE_S, pause_s=0.5)


def pod(
    name: str, *, where: str, node: str, labels: Mapping[str, str] | None = None, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a pod that serves its name over HTTP, UDP and so on, or runs a command."""
    container: dict[str, Any] = {
        "name": "main",
        "image": settings.AGNHOST_IMAGE,
        "imagePullPolicy": "Never",
        "args": ["netexec", f"--http-port={PORT}", f"--udp-port={PORT}"],
    }
    if command:
        container |= {"command": list(command), "args": []}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    metadata = {"name": name, "namespace": where, "labels": dict(labels or {"pod": name})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def policy(name: str, *, where: str, **spec: Any) -> dict[str, Any]:
    """Return a NetworkPolicy."""
    metadata = {"name": name, "namespace": where}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {"podSelector": {}} | spec,
    }


def ready(cluster: bed.Bed, where: str) -> None:
    """Wait until every pod of a namespace is ready."""
    cluster.kubectl(
        "-n", where, "wait", "pods", "--all", "--for=condition=Ready", f"--timeout={patience.seconds(READY_S):.0f}s"
    )


def addresses(cluster: bed.Bed, where: str, name: str) -> tuple[str, str]:
    """Return a pod's IPv4 and IPv6 address."""
    first, second = cluster.json("-n", where, "get", "pod", name)["status"]["podIPs"]
    return first["ip"], second["ip"]


def service(asked: api.Api, where: str, name: str) -> tuple[str, ...]:
    """Return a Service's addresses."""
    return tuple(asked.get(f"/api/v1/namespaces/{where}/services/{name}")["spec"]["clusterIPs"])


def attempt(address: str, port: int, *, program: str = "/agnhost") -> list[str]:
    """Return a command that connects once, and whose status says whether it could."""
    host = f"[{address}]" if ":" in address else address
    return [program, "connect", "--timeout=2s", f"{host}:{port}"]


def connects(cluster: bed.Bed, where: str, client: str, address: str, port: int = PORT) -> bool:
    """Tell whether a pod can connect now."""
    try:
        cluster.kubectl("-n", where, "exec", client, "--", *attempt(address, port))
    except commands.Failed as error:
        # What else may have failed is kubectl's; what the attempt says ends with its own status.
        if "exit code" not in str(error):
            raise
        return False
    return True


def settles(
    cluster: bed.Bed, where: str, wanted: Iterable[tuple[str, str, bool]], *, port: int = PORT, limit_s: float = 15.0
) -> None:
    """Wait until each (client, address) connects or does not, as wanted. Raises AssertionError."""
    deadline = time.monotonic() + patience.seconds(limit_s)
    rows = list(wanted)
    while True:
        wrong = [row for row in rows if connects(cluster, where, row[0], row[1], port) is not row[2]]
        if not wrong:
            return
        assert time.monotonic() < deadline, f"after {limit_s} s: (client, address, wanted) {wrong}"
