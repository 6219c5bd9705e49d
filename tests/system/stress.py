"""A cluster under a connect load, and what the load must see whatever happens to agents, rules and engines.

The two policies that alternate differ in everything a flip can get wrong: rules, the label keys that make identities,
prefixes, ports. (Not their names: one deleted and another added would be two changes, with a state between.) What
they agree on must hold at every instant: `allowed` always connects, `refused` is always denied by the client's own
side, `silent` is always denied by the other side's node. Packets that must not arrive are counted where they would.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent import patience
from agent.lab import agents, lab, removal, resolve
from tests.support import load, traffic
from tests.system import engines

SERVER, OTHER = 80, 81
PATIENCE_S = 3.0
ARRIVALS = "tests.system.attacks.arrivals"


def pod(name: str, node: str, **labels: str) -> dict[str, Any]:
    """Return a manifest of a pod that serves both ports."""
    ports = [{"containerPort": port} for port in (SERVER, OTHER)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example/serve", "ports": ports}]},
    }


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest of a policy."""
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
    """Return the one way to say it."""
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
    """Return the other."""
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


def manifests(turn: int) -> list[dict[str, Any]]:
    """Return the whole cluster, under one policy at even turns and under the other at odd ones."""
    return CLUSTER + (by_app() if turn % 2 else by_tier())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Attempts in a row that ended alike; times are seconds of the monotonic clock."""

    outcome: str
    times: int
    begin: float
    end: float


@dataclasses.dataclass(slots=True, kw_only=True)
class Seen:
    """What the load saw, and what came to whom; complete when `connecting` has ended."""

    runs: dict[str, list[Run]] = dataclasses.field(default_factory=dict)
    forbidden: int = 0
    """TCP packets for a port they must not reach."""
    admitted: int = 0
    """TCP packets that may arrive: they prove that the counter works."""

    def counts(self, target: str) -> Mapping[str, int]:
        """Return how often each outcome was seen."""
        found: dict[str, int] = {}
        for run in self.runs[target]:
            found[run.outcome] = found.get(run.outcome, 0) + run.times
        return found

    def __str__(self) -> str:
        """Write it for people."""
        counts = json.dumps({target: self.counts(target) for target in self.runs})
        return f"{counts}, {self.forbidden} packets leaked"


@contextlib.contextmanager
def connecting(each: lab.Lab, patience_s: float = PATIENCE_S) -> Iterator[Seen]:
    """Keep the client connecting; what it saw is in the yielded value afterwards."""
    server, guarded = (each.plan.addresses(f"x/{name}")[0] for name in ("server", "guarded"))
    targets = [f"allowed={server}:{SERVER}", f"refused={server}:{OTHER}", f"silent={guarded}:{SERVER}"]
    script = [sys.executable, "-I", "-S", str(pathlib.Path(load.__file__)), str(patience_s)]
    command = each.exec_command("x/client", [*script, *targets])
    with contextlib.ExitStack() as stack:
        watches = {
            name: stack.enter_context(traffic.PodProcess(each, f"x/{name}", ARRIVALS)) for name in ("server", "guarded")
        }
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        seen = Seen()
        yield seen
        process.stdin.close()
        for name, runs in json.loads(process.stdout.readline()).items():
            seen.runs[name] = [Run(outcome=o, times=t, begin=b, end=e) for o, t, b, e in runs]
        packets = {name: watch.ask(do="count")["packets"] for name, watch in watches.items()}
        seen.forbidden = packets["server"].get(str(OTHER), 0) + packets["guarded"].get(str(SERVER), 0)
        seen.admitted = packets["server"].get(str(SERVER), 0)


def judge(seen: Seen, *enforcing: engines.Engine) -> None:
    """Check that nothing leaked and nothing was denied wrongly, and that denials ended as these engines end them."""
    assert seen.counts("allowed").keys() == {"ok"}, "wrongly denied"
    assert seen.admitted, "the counter of packets sees nothing"
    assert seen.forbidden == 0, "leaked"
    assert seen.counts("refused").keys() <= {engine.near.connect for engine in enforcing}, "leaked, or denied late"
    silent = {engine.far.connect for engine in enforcing} | {engines.TIME_OUT}  # it is given up soon
    assert seen.counts("silent").keys() <= silent, "leaked"


def end_agents(each: lab.Lab, *nodes: str, by: signal.Signals = signal.SIGKILL) -> None:
    """End the agents of nodes and wait until they are gone; what they enforce stays in the kernel.

    A cgroup forgets a process whose first thread has ended; another one may hold the agent's lock for a while yet.
    """
    groups = [agents.cgroup(node, each.paths) for node in nodes]
    with contextlib.ExitStack() as opened:
        watched = []
        for group in groups:
            found = removal.processes(group)
            assert found, "no agent runs"
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    watched.append(os.pidfd_open(pid))
                    opened.callback(os.close, watched[-1])
                    os.kill(pid, by)
        deadline = time.monotonic() + patience.seconds(5)
        for descriptor in watched:
            gone, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
            assert gone
    assert not any(map(removal.processes, groups))


def start_agents(each: lab.Lab, *nodes: str, flags: Sequence[str] = (), executed: bool = False) -> None:
    """Start the agents of nodes, with more flags than the lab's; `Lab.apply` waits until they enforce.

    `executed`: as on a node, whether or not there is a nursery.
    """
    names = {f"agent/{node}" for node in nodes}
    wanted = agents.orders(each.plan, each.paths, each.engine, each.iptables)
    orders = [order | {"argv": [*order["argv"], *flags]} for order in wanted if order["name"] in names]
    for order in orders if executed else ():
        order.pop("nursery", None)
    each._run({"processes": orders})


def write(each: lab.Lab, documents: list[dict[str, Any]]) -> None:
    """Change the manifests and wait for nobody."""
    resolved = resolve.resolve(documents, previous=each.documents)
    each._write_manifests(resolved)
    each._documents = resolved
