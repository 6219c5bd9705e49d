"""The kubelet's own probes reach every pod, whatever the policies: HTTP, TCP and gRPC, under a default-deny.

A probe dials the pod's first address, which is IPv4 here. HTTP and TCP probes may name a host instead: this one's name
is in the node's /etc/hosts, with the pod's IPv6 address, as soon as the pod has one. gRPC probes cannot name a host;
over IPv6 gRPC is dialled by a process of the node, as the kubelet is one.

That the policies are in force is shown by a pod that dials the same ports: it is not let in, and was before them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import api, bed, commands, deployment, enforced, programs, settings, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

WHERE = "probed"
NODE = "node3"
HEALTH_PORT = 5000
READY_S = 60.0
KINDS: dict[str, dict[str, Any]] = {
    "http": {"httpGet": {"port": workloads.PORT, "path": "/hostname"}},
    "tcp": {"tcpSocket": {"port": workloads.PORT}},
    "grpc": {"grpc": {"port": HEALTH_PORT}},
    "http6": {"httpGet": {"port": workloads.PORT, "path": "/hostname", "host": "http6.probed.test"}},
    "tcp6": {"tcpSocket": {"port": workloads.PORT, "host": "tcp6.probed.test"}},
}
DAILY = ("http", "grpc", "tcp6")
"""Each way to probe, and each family."""
PROBE = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 1}
PATIENT = {"periodSeconds": 1, "failureThreshold": 120, "timeoutSeconds": 1}


def pod(kind: str, *, port: int = 0) -> dict[str, Any]:
    """Return a pod that is started, ready and alive only while its probes pass; another port makes them fail."""
    document = workloads.pod(f"probed-{kind}", where=WHERE, node=NODE, labels={"kind": kind})
    [container] = document["spec"]["containers"]
    if kind == "grpc":
        container["args"] = ["grpc-health-checking", f"--port={HEALTH_PORT}", f"--http-port={workloads.PORT}"]
    action = {name: about | ({"port": port} if port else {}) for name, about in KINDS[kind].items()}
    container["startupProbe"] = action | PATIENT
    container["readinessProbe"] = container["livenessProbe"] = action | PROBE
    return document


@pytest.fixture
def asked(cluster: bed.Bed, deployed: deployment.Deployment) -> Iterator[api.Api]:
    """Close a namespace, but for one pod that looks on."""
    assert deployed.pods()
    with (
        api.Api(cluster.shape) as opened,
        workloads.namespaces(cluster, opened, workloads.namespace(WHERE), workloads.namespace("onlookers")),
        enforced.Agents(cluster) as agents,
    ):
        opened.create(workloads.pod("onlooker", where="onlookers", node=NODE))
        workloads.ready(cluster, "onlookers")
        opened.apply(workloads.policy("default-deny", where=WHERE, policyTypes=["Ingress", "Egress"]))
        agents.caught_up(opened)
        yield opened


@pytest.fixture
def hosts(cluster: bed.Bed) -> Iterator[pathlib.Path]:
    """Give the node an /etc/hosts of its own, to be written by the test."""
    file = cluster.shape.state / NODE / "hosts"
    file.write_text("127.0.0.1 localhost\n")
    cluster.enter(NODE, "mount", "--bind", str(file), "/etc/hosts")
    yield file
    with contextlib.suppress(commands.Failed):
        cluster.enter(NODE, "umount", "/etc/hosts")


def has_started(asked: api.Api, name: str) -> bool:
    """Tell whether a pod's container runs and its addresses are known."""
    status = asked.get(f"{api.pods(WHERE)}/{name}")["status"]
    return len(status.get("podIPs", ())) == len(settings.POD_RANGES)


def is_ready(asked: api.Api, name: str) -> bool:
    """Tell whether a pod is ready, and was never restarted."""
    status = asked.get(f"{api.pods(WHERE)}/{name}")["status"]
    return status["containerStatuses"][0]["ready"] and not status["containerStatuses"][0]["restartCount"]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.daily] if kind in DAILY else []) for kind in KINDS]
)
def test_probes_pass_under_a_default_deny(cluster: bed.Bed, asked: api.Api, hosts: pathlib.Path, kind: str) -> None:
    document = pod(kind)
    name = document["metadata"]["name"]
    asked.create(document)
    commands.wait("the pod's addresses", lambda: has_started(asked, name), limit_s=READY_S)
    four, six = workloads.addresses(cluster, WHERE, name)
    hosts.write_text(f"127.0.0.1 localhost\n{six} {kind}.probed.test\n")
    commands.wait(f"the {kind} probes to pass", lambda: is_ready(asked, name), limit_s=READY_S)
    port = HEALTH_PORT if kind == "grpc" else workloads.PORT
    for address in (four, six):
        assert not workloads.connects(cluster, "onlookers", "onlooker", address, port), "nothing is denied"
        cluster.enter(NODE, *workloads.attempt(address, port, program=str(programs.path("agnhost"))))
    asked.delete(f"{api.policies(WHERE)}/default-deny")
    rows = [("onlooker", address, True) for address in (four, six)]
    workloads.settles(cluster, "onlookers", rows, port=port)
    assert is_ready(asked, name)


def test_a_probe_of_a_port_that_nobody_serves_fails(asked: api.Api) -> None:
    document = pod("tcp", port=9)
    name = document["metadata"]["name"]
    asked.create(document)
    commands.wait("the pod's addresses", lambda: has_started(asked, name), limit_s=READY_S)
    with pytest.raises(TimeoutError):
        commands.wait("a probe that cannot pass", lambda: is_ready(asked, name), limit_s=5)
