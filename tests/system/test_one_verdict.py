"""One connection gives one verdict a direction, whatever layers judged it; a flood gives few, and the counts add up.

Egress is judged twice where there is a socket layer: at connect(), with the process and the address as dialled, and on
the way, at the backend. Ingress is judged once, on the server's node.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import lab
from agent.model import resources, verdict
from agent.rpc import client
from tests.support import traffic
from tests.system import campaign, conftest, engines

pytestmark = pytest.mark.root

LISTENS = 8080
FORBIDDEN = 8081
CLUSTER_PORT = 80
CLUSTER_ADDRESSES = {"near": "10.96.0.10", "far": "10.96.0.11"}
NODES = {"near": "node-1", "far": "node-2"}
FLOOD = 2000
FEW = 200
"""The burst of a hundred, and what ten a second add while the calls are made."""
SETTLE_S = 1.0
CALLS = {
    "TCP": "s = socket.create_connection({to}, 2)",
    "UDP connect": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect({to}); s.send(b'1'); s.send(b'2')",
    "UDP sendto": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'1', {to}); s.sendto(b'2', {to})",
}


def server(name: str) -> dict[str, Any]:
    """Return a pod that listens."""
    made = campaign.pod(name, NODES[name], "server")
    ports = [{"containerPort": LISTENS, "protocol": protocol} for protocol in ("TCP", "UDP")]
    made["metadata"]["labels"]["copy"] = name
    made["spec"]["containers"] = [{"name": "c", "image": "example/serve", "ports": ports}]
    return made


def service(name: str) -> dict[str, Any]:
    """Return a Service with one backend."""
    address = CLUSTER_ADDRESSES[name]
    ports = [
        {"name": protocol.lower(), "port": CLUSTER_PORT, "targetPort": LISTENS, "protocol": protocol}
        for protocol in ("TCP", "UDP")
    ]
    spec = {"clusterIP": address, "clusterIPs": [address], "selector": {"copy": name}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "x"}, "spec": spec}


def policy(name: str, role: str, direction: str, peer: str) -> dict[str, Any]:
    """Return a policy that lets `role` and `peer` speak on the port that is listened to."""
    ports = [{"port": LISTENS, "protocol": protocol} for protocol in ("TCP", "UDP")]
    rule = {
        {"Egress": "to", "Ingress": "from"}[direction]: [{"podSelector": {"matchLabels": {"role": peer}}}],
        "ports": ports,
    }
    spec = {"podSelector": {"matchLabels": {"role": role}}, "policyTypes": [direction], direction.lower(): [rule]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": spec,
    }


DOCUMENTS = [
    campaign.pod("caller", "node-1", "caller"),
    *(made(name) for name in NODES for made in (server, service)),
    policy("out", "caller", "Egress", "server"),
    policy("in", "server", "Ingress", "caller"),
]


@pytest.fixture(scope="module", params=engines.by_combination(engines.FEWER))
def combination(request: pytest.FixtureRequest) -> engines.Combination:
    one: engines.Combination = request.param
    return one


@pytest.fixture(scope="module")
def running(combination: engines.Combination) -> Iterator[lab.Lab]:
    name = conftest.lab_name("joined")
    with combination.engine.lab(name, combination.topology) as built:
        built.down()
        built.up(DOCUMENTS)
        conftest.check_engine(built, combination.engine)
        yield built


def told(running: lab.Lab, node: str, since_ns: int, *, raw: bool = False) -> list[verdict.VerdictEvent]:
    """Return what a node's agent has told of since."""
    with client.AgentClient(running.paths.agent_socket(node)) as agent:
        items = agent.watch_verdicts(follow=False, wanted=verdict.Filter(pod="caller", namespace="x", raw=raw))
        return [item for item in items if isinstance(item, verdict.VerdictEvent) and item.time_ns >= since_ns]


def counters(running: lab.Lab, node: str) -> dict[str, int]:
    with client.AgentClient(running.paths.agent_socket(node)) as agent:
        return dict(agent.status().counters)


def call(running: lab.Lab, how: str, address: str, port: int) -> int:
    """Make one connection of the caller's, wait until all is told; return when it began (Unix time)."""
    time.sleep(SETTLE_S / 2)  # what iptables logged before has no time but that of its reading
    since_ns = time.time_ns()
    code = f"import socket; {CALLS[how].format(to=(address, port))}"
    running.exec("x/caller", [sys.executable, "-c", code], timeout=20)
    time.sleep(SETTLE_S)
    return since_ns


def by_direction(events: list[verdict.VerdictEvent]) -> list[tuple[str, str, int]]:
    return [(event.direction.name, event.verdict.name, event.destination.port) for event in events]


@pytest.mark.parametrize("through", ["pod", "Service"])
@pytest.mark.parametrize("how", list(CALLS))
@pytest.mark.parametrize("name", list(NODES))
def test_a_connection_gives_one_egress_and_one_ingress_verdict(
    running: lab.Lab, combination: engines.Combination, name: str, how: str, through: str
) -> None:
    pod = str(running.plan.addresses(f"x/{name}")[0])
    address, port = (pod, LISTENS) if through == "pod" else (CLUSTER_ADDRESSES[name], CLUSTER_PORT)
    since_ns = call(running, how, address, port)
    events = [event for node in sorted({"node-1", NODES[name]}) for event in told(running, node, since_ns)]
    assert by_direction(events) == [("EGRESS", "FORWARDED", LISTENS), ("INGRESS", "FORWARDED", LISTENS)]
    egress, ingress = events
    joined = combination.engine.sockets and how != "UDP sendto"
    assert (egress.joined, ingress.joined) == (joined, False)
    assert {event.layer for event in events} == {verdict.Layer.PACKET}
    assert {event.destination.pod for event in events} == {name}
    assert {event.match for event in events} == {verdict.Match.L3_L4}
    assert (egress.process is not None) is joined
    if joined and through == "Service":
        assert egress.dialled is not None
        assert (str(egress.dialled.address), egress.dialled.port) == (address, port)
        assert egress.dialled.owner == resources.ObjectRef("Service", "x", name)
    else:
        assert egress.dialled is None
    raw = [event.layer for event in told(running, "node-1", since_ns, raw=True) if event.direction is egress.direction]
    assert raw == [verdict.Layer.SOCKET, verdict.Layer.PACKET] if joined else [verdict.Layer.PACKET]


def test_a_pod_that_calls_in_a_loop_what_is_denied_gives_few_verdicts_and_the_counts_add_up(
    running: lab.Lab, combination: engines.Combination
) -> None:
    address = str(running.plan.addresses("x/near")[0])
    before, since_ns = counters(running, "node-1"), time.time_ns()
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        answered = process.ask(do="connect", address=address, port=FORBIDDEN, count=FLOOD, timeout_s=1)
    assert answered["errors"] == {combination.engine.near.connect: FLOOD}
    time.sleep(SETTLE_S)
    events = [one for one in told(running, "node-1", since_ns) if one.destination.port == FORBIDDEN]
    after = counters(running, "node-1")
    more = {name: after[name] - before[name] for name in before}
    assert {one.verdict for one in events} == {verdict.Verdict.DROPPED}
    assert 100 <= len(events) <= FEW
    assert more["events_lost"] == 0
    assert len(events) + more["events_suppressed"] + more["verdicts_again"] == FLOOD
    assert sum(one.repeats for one in events) <= more["events_repeated"] + more["verdicts_again"]
    assert more["events_repeated"] <= more["events_suppressed"]
    assert more["events_forgotten"] == 0
