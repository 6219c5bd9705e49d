"""Pods and policies for the tests, as plain documents, and questions to running pods."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.cluster import bed, commands, settings

PORT = 8080
READY_S = 120


def namespace(name: str) -> dict[str, Any]:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


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
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
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
    cluster.kubectl("-n", where, "wait", "pods", "--all", "--for=condition=Ready", f"--timeout={READY_S}s")


def addresses(cluster: bed.Bed, where: str, name: str) -> tuple[str, str]:
    """Return a pod's IPv4 and IPv6 address."""
    first, second = cluster.json("-n", where, "get", "pod", name)["status"]["podIPs"]
    return first["ip"], second["ip"]


def connects(cluster: bed.Bed, where: str, client: str, address: str, port: int = PORT) -> bool:
    """Tell whether a pod can connect now."""
    host = f"[{address}]" if ":" in address else address
    attempt = ["/agnhost", "connect", "--timeout=2s", f"{host}:{port}"]
    try:
        cluster.kubectl("-n", where, "exec", client, "--", *attempt)
    except commands.Failed as error:
        # What else may have failed is kubectl's; what the attempt says ends with its own status.
        if "exit code" not in str(error):
            raise
        return False
    return True


def settles(cluster: bed.Bed, where: str, wanted: Iterable[tuple[str, str, bool]], *, limit_s: float = 15.0) -> None:
    """Wait until each (client, address) connects or does not, as wanted. Raises AssertionError."""
    deadline = time.monotonic() + limit_s
    rows = list(wanted)
    while True:
        wrong = [row for row in rows if connects(cluster, where, row[0], row[1]) is not row[2]]
        if not wrong:
            return
        assert time.monotonic() < deadline, f"after {limit_s} s: (client, address, wanted) {wrong}"
