"""Labels that change, of a pod or of its namespace, hold without a restart of anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import api, bed, deployment, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

SERVERS, CLIENTS = "label-servers", "label-clients"


@pytest.fixture
def asked(cluster: bed.Bed, deployed: deployment.Deployment) -> Iterator[api.Api]:
    """Make a server that lets in friends of blue namespaces, and a client on another node and one beside it."""
    assert deployed.pods()
    made = [workloads.namespace(name) for name in (SERVERS, CLIENTS)]
    meant = {
        "namespaceSelector": {"matchLabels": {"team": "blue"}},
        "podSelector": {"matchLabels": {"role": "friend"}},
    }
    with api.Api(cluster.shape) as opened, workloads.namespaces(cluster, opened, *made):
        opened.create(
            workloads.policy("blue-friends", where=SERVERS, ingress=[{"from": [meant]}]),
            workloads.pod("server", where=SERVERS, node="node1"),
            workloads.pod("far", where=CLIENTS, node="node2"),
            workloads.pod("near", where=CLIENTS, node="node1"),
        )
        workloads.ready(cluster, SERVERS)
        workloads.ready(cluster, CLIENTS)
        yield opened


def label(path: str, **labels: str | None) -> Callable[[api.Api], None]:
    return lambda asked: asked.merge(path, {"metadata": {"labels": labels}})


def identities(asked: api.Api) -> dict[str, tuple[Any, Any]]:
    """Return of each client what a restart would change."""
    return {
        pod["metadata"]["uid"]: (pod["status"]["containerStatuses"][0]["containerID"], pod["status"]["podIPs"])
        for pod in asked.get(api.pods(CLIENTS))["items"]
    }


@pytest.mark.daily
def test_labels_of_pods_and_namespaces_hold_as_they_change(cluster: bed.Bed, asked: api.Api) -> None:
    before = identities(asked)
    server = workloads.addresses(cluster, SERVERS, "server")
    namespace = f"/api/v1/namespaces/{CLIENTS}"
    far, near = f"{api.pods(CLIENTS)}/far", f"{api.pods(CLIENTS)}/near"
    changes = [
        (label(namespace, team="blue"), {"far": False, "near": False}),
        (label(far, role="friend"), {"far": True, "near": False}),
        (label(near, role="friend"), {"far": True, "near": True}),
        (label(namespace, team="red"), {"far": False, "near": False}),
        (label(namespace, team="blue"), {"far": True, "near": True}),
        (label(far, role=None), {"far": False, "near": True}),
        (label(namespace, team=None), {"far": False, "near": False}),
    ]
    for change, wanted in changes:
        change(asked)
        rows = [(client, address, may) for client, may in wanted.items() for address in server]
        workloads.settles(cluster, CLIENTS, rows)
    assert identities(asked) == before
