"""Policy flips and agent deaths under a connect load: every outcome is the old policy's or the new one's.

The two policies that alternate differ in everything a flip can get wrong: rules, the label keys that make identities,
prefixes, ports. (Not their names: one deleted and another added would be two changes, with a state between.) What
they agree on must hold at every instant: `allowed` always connects, `refused` is always denied at the socket,
`silent` is always dropped at the other side's node.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import agents, lab, removal, resolve
from tests.support import load
from tests.system import conftest

pytestmark = pytest.mark.root

FLIPS = 1000
DEATHS = 100
SERVER, OTHER = 80, 81


def pod(name: str, node: str, **labels: str) -> dict[str, Any]:
    ports = [{"containerPort": port} for port in (SERVER, OTHER)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example/serve", "ports": ports}]},
    }


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": spec,
    }


CLUSTER = [
    pod("client", "node-1", app="client", tier="front", track="stable"),
    pod("server", "node-2", app="server", tier="back", track="canary"),
    pod("guarded", "node-2", app="guarded", tier="back", track="stable"),
]


def by_app() -> list[dict[str, Any]]:
    return [
        policy(
            "client",
            {
                "podSelector": {"matchLabels": {"app": "client"}},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": SERVER}]},
                    {"to": [{"podSelector": {"matchLabels": {"app": "guarded"}}}]},
                ],
            },
        ),
        policy("guarded", {"podSelector": {"matchLabels": {"app": "guarded"}}}),
    ]


def by_tier() -> list[dict[str, Any]]:
    return [
        policy(
            "client",
            {
                "podSelector": {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}]},
                "policyTypes": ["Egress"],
                "egress": [
                    {
                        "to": [{"podSelector": {"matchLabels": {"tier": "back", "track": "canary"}}}],
                        "ports": [{"port": 64, "endPort": SERVER}],
                    },
                    {"to": [{"podSelector": {"matchLabels": {"tier": "back", "track": "stable"}}}]},
                    {"to": [{"ipBlock": {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}}]},
                ],
            },
        ),
        policy(
            "guarded",
            {
                "podSelector": {"matchLabels": {"tier": "back", "track": "stable"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"tier": "nobody"}}}]}],
            },
        ),
    ]


@pytest.fixture
def cluster() -> Iterator[lab.Lab]:
    with lab.Lab(name=conftest.lab_name("churn")) as each:
        each.up(CLUSTER + by_app())
        yield each


@contextlib.contextmanager
def connecting(each: lab.Lab) -> Iterator[dict[str, dict[str, int]]]:
    """Keep the client connecting; what it saw is in the yielded mapping afterwards."""
    server = each.plan.addresses("x/server")[0]
    guarded = each.plan.addresses("x/guarded")[0]
    targets = [f"allowed={server}:{SERVER}", f"refused={server}:{OTHER}", f"silent={guarded}:{SERVER}"]
    script = pathlib.Path(load.__file__)
    command = each.exec_command("x/client", [sys.executable, "-I", "-S", str(script), *targets])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        seen: dict[str, dict[str, int]] = {}
        yield seen
        process.stdin.close()
        seen.update(json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def judge(seen: dict[str, dict[str, int]], capsys: pytest.CaptureFixture[str], what: str) -> None:
    with capsys.disabled():
        print(f"\n{what}: {json.dumps(seen)}")
    assert seen["allowed"].keys() == {"ok"}, "wrongly denied"
    assert seen["refused"].keys() == {"EACCES"}, "leaked, or denied late"
    assert seen["silent"].keys() == {"timeout"}, "leaked"


def test_every_outcome_under_a_thousand_flips_is_the_old_or_the_new_policy(
    cluster: lab.Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    with connecting(cluster) as seen:
        begin = time.monotonic()
        for flip in range(FLIPS):
            cluster.apply(CLUSTER + (by_tier() if flip % 2 == 0 else by_app()))
        took = time.monotonic() - begin
    judge(seen, capsys, f"{FLIPS} flips in {took:.1f} s")


def kill_agent(each: lab.Lab, node: str) -> None:
    found = removal.processes(agents.cgroup(node, each.paths))
    assert found, "no agent runs"
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while removal.processes(agents.cgroup(node, each.paths)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def start_agent(each: lab.Lab, node: str) -> None:
    orders = [order for order in agents.orders(each.plan, each.paths, each.engine) if order["name"] == f"agent/{node}"]
    each._run({"processes": orders})


def test_a_hundred_agent_deaths_leak_nothing_and_deny_nothing(
    cluster: lab.Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(7)
    with connecting(cluster) as seen:
        begin = time.monotonic()
        for death in range(DEATHS):
            documents = CLUSTER + (by_tier() if death % 2 == 0 else by_app())
            node = f"node-{1 + death // 2 % 2}"
            write(cluster, documents)
            # an apply takes some 20 ms: most deaths come in the middle of one
            time.sleep(chance.uniform(0, 0.03))
            kill_agent(cluster, node)
            start_agent(cluster, node)
            cluster.apply(documents)
        took = time.monotonic() - begin
    judge(seen, capsys, f"{DEATHS} deaths in {took:.1f} s")


def write(each: lab.Lab, documents: list[dict[str, Any]]) -> None:
    """Change the manifests and wait for nobody."""
    resolved = resolve.resolve(documents, previous=each.documents)
    each._write_manifests(resolved)
    each._documents = resolved
