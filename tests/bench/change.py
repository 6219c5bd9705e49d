"""From an edit of a manifest to its enforcement on another node's socket, and what an agent weighs."""

from __future__ import annotations

import contextlib
import pathlib
import time
from typing import Any

from agent.lab import agents, exchange, lab, removal
from agent.model import net
from tests.bench import clusters, figures

ROUNDS = 60


def run() -> list[figures.Figure]:
    """Flip one policy; wait until the agents say that they enforce it."""
    allow = clusters.policies(0)
    deny = [allow[0] | {"spec": allow[0]["spec"] | {"egress": []}}, allow[1]]
    pods = [clusters.pod("client", "node-1"), clusters.pod("server", "node-2"), clusters.SERVICE]
    took, told = [], []
    with clusters.cluster("bench-change", agents=True) as each, contextlib.closing(agents.Watch(each.paths)) as watch:
        for number in range(ROUNDS):
            wanted = deny if number % 2 == 0 else allow
            begin, begin_unix_ns = time.perf_counter(), time.time_ns()
            each.apply([*pods, *wanted])
            took.append((time.perf_counter() - begin) * 1000)
            told.append(max(watch.status(node).enforced_unix_ns - begin_unix_ns for node in each.plan.nodes) / 1e6)
            assert connects(each) == (wanted is allow), "reported as enforced, and is not"
        weights = [weigh(each, node) for node in each.plan.nodes]
    took.sort()
    return [
        figures.Figure(name="file edit to enforced on both nodes, p50", value=figures.median(took), unit="ms"),
        figures.Figure(name="file edit to enforced on both nodes, p99", value=took[int(len(took) * 0.99)], unit="ms"),
        figures.Figure(name="of it until the later agent turned, p50", value=figures.median(told), unit="ms"),
        figures.Figure(name="agent RSS, idle", value=figures.median([whole for whole, _ in weights]), unit="MiB"),
        figures.Figure(
            name="agent anonymous memory, idle", value=figures.median([own for _, own in weights]), unit="MiB"
        ),
    ]


def connects(each: lab.Lab) -> bool:
    """Tell whether the client reaches the server now."""
    request = exchange.ProbeRequest(
        source="bench/client", destination="bench/server", port=clusters.ALLOWED, protocol=net.Protocol.TCP
    )
    (answer,) = each.probe([request], 0.3)
    return answer.error != "EACCES"


def weigh(each: lab.Lab, node: str) -> tuple[float, float]:
    """Return RSS and its anonymous part of a node's agent, in MiB."""
    (pid,) = removal.processes(agents.cgroup(node, each.paths))
    fields: dict[str, Any] = dict(
        line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024
