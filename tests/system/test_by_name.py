"""An egress policy in terms of names, with a cluster DNS before and behind a Service, through real agents."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import lab, resolve
from agent.rpc import client
from tests.bpf.dns import server
from tests.lab import manifests
from tests.support import kernel
from tests.system import conftest, stress

pytestmark = pytest.mark.root

NODE, CALLER, DNS_POD = "node-1", "x/caller", "kube-system/coredns"
ZONE, OTHER_ZONE = "cdn.example.net", "other.example.org"
CLUSTER_DNS, PORT, CLOSED = "10.96.0.10", 8080, 8443
FIRST = ipaddress.IPv4Address("198.18.0.1")
HOSTS = 40
PATIENCE_S = 20.0
REPOSITORY = pathlib.Path(server.__file__).resolve().parents[3]
SERVES = "import signal; from tests.bpf.dns import server; print(server.serves()(), flush=True); signal.pause()"
ASKS = """
import json, socket, sys
from tests.bpf.dns import wire
resolver, *orders = json.loads(sys.argv[1])
answers = []
for name, address, port in orders:
    if name:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(3)
            asking.connect((resolver, 53))
            asking.send(wire.query(name))
            asking.recv(4096)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        answers.append(client.connect_ex((address, port)) if address else 0)
print(json.dumps(answers))
"""


def _labelled(document: dict[str, Any], namespace: str, labels: dict[str, str]) -> dict[str, Any]:
    meta = document["metadata"]
    return {**document, "metadata": {**meta, "namespace": namespace, "labels": {**meta.get("labels", {}), **labels}}}


KUBE_DNS = {"k8s-app": "kube-dns"}
SERVICE = _labelled(
    manifests.service("kube-dns", app="coredns", port=53, target=53, clusterIP=CLUSTER_DNS), "kube-system", KUBE_DNS
)
CAST: list[resolve.Document] = [
    manifests.node(NODE, "192.0.2.11", ranges=("10.244.1.0/24",)),
    manifests.pod("caller", address="10.244.1.5"),
    _labelled(manifests.pod("coredns", address="10.244.1.53"), "kube-system", KUBE_DNS),
    SERVICE,
    manifests.host("cdn", *(str(FIRST + index) for index in range(HOSTS)), ports=(f"{PORT}/TCP", f"{CLOSED}/TCP")),
]


def policy(*patterns: str) -> resolve.Document:
    """Return the well-known one: DNS to kube-dns, then these names on one port."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "egress-dns", "namespace": "x"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": "caller"}},
            "egress": [
                {
                    "toEndpoints": [
                        {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}}
                    ],
                    "toPorts": [
                        {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
                    ],
                },
                {
                    "toFQDNs": [{"matchPattern": one} for one in patterns],
                    "toPorts": [{"ports": [{"port": str(PORT), "protocol": "TCP"}]}],
                },
            ],
        },
    }


@pytest.fixture(scope="module")
def running() -> Iterator[lab.Lab]:
    lacking = kernel.lacks_packet_layer()
    if lacking:
        pytest.skip(lacking)
    with lab.Lab(name=conftest.lab_name("fqdn"), engine="nfbpf") as found:
        found.down()
        found.up(CAST)
        with agentctl(found) as agent:
            if not agent.names().learns:
                pytest.skip("this kernel takes no DNS learner")
        command = found.exec_command(DNS_POD, [sys.executable, "-c", SERVES])
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as resolver:
            try:
                assert resolver.stdout is not None
                assert resolver.stdout.readline() == "listens\n"
                yield found
            finally:
                resolver.kill()


def agentctl(running: lab.Lab) -> client.AgentClient:
    return client.AgentClient(running.paths.agent_socket(NODE))


def name_of(index: int, zone: str = ZONE) -> str:
    return server.name_of(FIRST + index, zone)


def asks(running: lab.Lab, *orders: tuple[str, int | None, int]) -> list[int]:
    """Have the pod resolve names ("": none) and connect to an address by its number (None: to none): errnos."""
    content = [CLUSTER_DNS, *((name, "" if at is None else str(FIRST + at), port) for name, at, port in orders)]
    done = running.exec(
        CALLER, [sys.executable, "-c", ASKS, json.dumps(content)], capture_output=True, cwd=REPOSITORY, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_the_well_known_policy_opens_what_is_resolved_and_nothing_else(running: lab.Lab) -> None:
    """F5, F8, F10, F15: the names of the policy on its port, from the answer on; other names are answered, too."""
    running.apply([*CAST, policy(f"*.{ZONE}")])
    assert asks(
        running,
        ("", 0, PORT),
        (name_of(0), 0, PORT),
        ("", 0, CLOSED),
        (name_of(1, OTHER_ZONE), 1, PORT),
        (name_of(2, f"sub.{ZONE}"), 2, PORT),
        *((name_of(index), index, PORT) for index in range(3, 13)),
    ) == [errno.EACCES, 0, *([errno.EACCES] * 3), *([0] * 10)]
    with agentctl(running) as agent:
        learned = {str(one.address): one for one in agent.learned(CALLER)}
        assert learned[str(FIRST)].names[0].name == name_of(0)
        assert learned[str(FIRST)].classes[0].patterns == (f"*.{ZONE}",)
        assert learned[str(FIRST)].used
        assert learned[str(FIRST + 1)].classes == ()
        assert {str(one) for one in agent.names().resolvers} >= {CLUSTER_DNS, "10.244.1.53", "169.254.20.10"}
        assert "addresses are open" in agent.explain_name(CALLER, name_of(0)).because[0]


def test_a_policy_that_comes_after_the_answer_needs_no_other(running: lab.Lab) -> None:
    """F26."""
    running.apply(CAST)
    assert asks(running, (name_of(20), 20, PORT), (name_of(21, OTHER_ZONE), 21, PORT)) == [0, 0]
    running.apply([*CAST, policy(f"*.{ZONE}")])
    assert asks(running, ("", 20, PORT), ("", 21, PORT), ("", 22, PORT)) == [0, errno.EACCES, errno.EACCES]
    running.apply([*CAST, policy(f"*.{OTHER_ZONE}")])
    assert asks(running, ("", 20, PORT), ("", 21, PORT)) == [errno.EACCES, 0]


def test_an_agent_that_is_killed_takes_nothing_with_it(running: lab.Lab) -> None:
    """F24, F25: new addresses are learned without it, and the next one remembers what it was told."""
    running.apply([*CAST, policy(f"*.{ZONE}")])
    assert asks(running, (name_of(30), 30, PORT), (name_of(31, OTHER_ZONE), None, PORT)) == [0, 0]
    _until(lambda: _remembers(running, 30) and _remembers(running, 31))
    time.sleep(1.5)  # what it was told is written down a second later at the latest
    stress.end_agents(running, NODE, by=signal.SIGKILL)
    fresh = [(name_of(index), index, PORT) for index in range(32, HOSTS)]
    assert asks(running, ("", 30, PORT), *fresh) == [0] * (1 + len(fresh))
    stress.start_agents(running, NODE)
    assert asks(running, ("", 30, PORT), ("", 35, PORT), ("", 31, PORT)) == [0, 0, errno.EACCES]
    running.apply([*CAST, policy(f"*.{ZONE}")])
    assert asks(running, ("", 30, PORT), ("", 35, PORT), ("", 31, PORT)) == [0, 0, errno.EACCES]
    _until(lambda: all(_remembers(running, index) for index in (30, 31, 35)))
    running.apply([*CAST, policy(f"*.{OTHER_ZONE}")])
    assert asks(running, ("", 31, PORT), ("", 30, PORT)) == [0, errno.EACCES]


def _remembers(running: lab.Lab, index: int) -> bool:
    with contextlib.closing(agentctl(running)) as agent:
        return any(one.address == FIRST + index and one.names for one in agent.learned(CALLER))


def _until(holds: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
