"""`python -m tests.cluster.bench`: what the agents cost on three nodes, as figures; nothing is asserted.

    NODEWALL_IMAGE=build/nodewall.tar NODEWALL_CLUSTER_COMBINATION=ptp-iptables-nfbpf python -m tests.cluster.bench

From the API request of a policy change to its first effect on a pod's connects, on a node that the request does not
come from; connect() between nodes with and without agents, in turn, so that a busy moment hits both; agents at rest.
The table is also kept in `build/figures`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Self

from tests.bench import clusters, figures
from tests.cluster import (
    api,
    bed,
    combinations,
    deployment,
    dialer,
    enforced,
    inside,
    overlay,
    programs,
    settings,
    workloads,
)

WHERE = "bench"
PODS = {"client": "node2", "server": "node1"}
CHANGES = 200
"""Of each kind."""
PAUSE_S = 0.1
PACE_US = 200
LIMIT_S = 10.0
ROUNDS = 5
REPEATS = 3
CONNECTS = 2000
PORT = 9000
STEADY_S = 2.0
REST_S = 20.0
WORDS = ("agentctl", "observe", "--follow")
FIGURES = programs.ROOT / "build" / "figures"


class Watch:
    """Dials from inside a pod without end; a context manager."""

    def __init__(self, place: inside.Place, address: str) -> None:
        """Take where from and where to."""
        self._command = place.command(str(dialer.build()), "watch", str(PACE_US), f"{address},{workloads.PORT}")
        self._pending = b""

    def __enter__(self) -> Self:
        """Start."""
        self._process = subprocess.Popen(
            self._command, cwd=programs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        return self

    def __exit__(self, *_about: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def until(self, *, allowed: bool) -> int:
        """Return when the first connect began that came out so, by CLOCK_MONOTONIC in ns. Raises TimeoutError.

        Silence alone is neither: a busy machine is silent too, and what is denied here is told at once. But a connect
        that was silent right before one that was denied is the first that was: the policy changed between its two
        layers, so that the packet of one that the first had let through was dropped by the second.
        """
        deadline = time.monotonic() + LIMIT_S
        silent: int | None = None
        while True:
            begin, error = self._change(deadline)
            if error == errno.ETIMEDOUT:
                silent = begin
            elif (error == 0) is allowed:
                return begin if allowed or silent is None else silent
            else:
                silent = None

    def _change(self, deadline: float) -> tuple[int, int]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            if not select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"nothing has changed within {LIMIT_S} s")
            self._pending += os.read(output, 4096)
        line, _, self._pending = self._pending.partition(b"\n")
        begin, error = line.split()
        return int(begin), int(error)


def gate(*, is_open: bool) -> dict[str, Any]:
    """Return the policy of the client."""
    client = {"podSelector": {"matchLabels": {"pod": "client"}}, "policyTypes": ["Egress"]}
    return workloads.policy("gate", where=WHERE, egress=[{}] if is_open else [], **client)


def changes(asked: api.Api, watch: Watch) -> Iterator[figures.Figure]:
    """Open and close the gate."""
    took: dict[bool, list[float]] = {True: [], False: []}
    requests = []
    asked.apply(gate(is_open=True))
    watch.until(allowed=True)
    for number in range(2 * CHANGES):
        is_open = bool(number % 2)
        time.sleep(PAUSE_S)
        begin = time.monotonic_ns()
        asked.apply(gate(is_open=is_open))
        requests.append((time.monotonic_ns() - begin) / 1e6)
        took[is_open].append((watch.until(allowed=is_open) - begin) / 1e6)
    yield figures.Figure(name="API request alone, p50", value=figures.median(requests), unit="ms")
    for is_open, values in took.items():
        what = f"API request to {'allowed' if is_open else 'denied'} on another node"
        yield figures.Figure(name=f"{what}, p50", value=dialer.quantile(values, 0.5), unit="ms")
        yield figures.Figure(name=f"{what}, p99", value=dialer.quantile(values, 0.99), unit="ms", note=f"of {CHANGES}")


def connect(client: inside.Place, address: str) -> float:
    """Return how long a connect takes, the median in ns."""
    command = client.command(str(clusters.build_tool()), "tcp", address, str(PORT), str(CONNECTS))
    ended = subprocess.run(command, cwd=programs.ROOT, check=True, capture_output=True)
    answer = json.loads(ended.stdout)
    assert answer["successes"] == CONNECTS, answer
    return float(answer["median_ns"])


@contextlib.contextmanager
def following(deployed: deployment.Deployment) -> Iterator[None]:
    """Follow the verdicts of two nodes."""
    shape = deployed.cluster.shape
    kubectl = [*deployed.cluster.entering("cp"), str(programs.path("kubectl")), "--kubeconfig", str(shape.kubeconfig)]
    started = [
        subprocess.Popen(
            [*kubectl, "-n", deployment.NAMESPACE, "exec", deployed.on(node), "--", *WORDS], stdout=subprocess.DEVNULL
        )
        for node in ("node1", "node2")
    ]
    try:
        time.sleep(STEADY_S)
        assert all(process.poll() is None for process in started), "agentctl observe --follow ended"
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def connects(deployed: deployment.Deployment, client: inside.Place, server: inside.Place) -> Iterator[figures.Figure]:
    """Measure without agents, with them, and with their verdicts read, in every round."""
    took: dict[str, list[float]] = {"no agent": [], "agents": [], "agents, verdicts followed": []}
    serving = subprocess.Popen(server.command(str(clusters.build_tool()), "serve", str(PORT)), cwd=programs.ROOT)
    try:
        for _ in range(ROUNDS):
            deployed.delete()
            deployed.uninstall()
            for name in took:
                if name == "agents":
                    deployed.apply()
                with following(deployed) if "followed" in name else contextlib.nullcontext():
                    took[name] += [connect(client, server.addresses[0]) for _ in range(REPEATS)]
    finally:
        serving.kill()
        serving.wait()
    plain = figures.median(took["no agent"])
    for name, values in took.items():
        note = f"{min(values):,.0f} to {max(values):,.0f}"
        baseline = None if name == "no agent" else plain
        yield figures.Figure(
            name=f"connect between nodes, {name}", value=figures.median(values), unit="ns", baseline=baseline, note=note
        )


def memory(deployed: deployment.Deployment) -> Iterator[figures.Figure]:
    """Weigh the agents after a rest."""
    time.sleep(REST_S)
    for field, what in (("VmRSS", "agent RSS, idle"), ("RssAnon", "of it anonymous")):
        values = [deployed.resident_kib(member.name, field) / 1024 for member in deployed.cluster.shape.members()]
        yield figures.Figure(name=what, value=max(values), unit="MiB", note="the most of three nodes")


def measure(cluster: bed.Bed, deployed: deployment.Deployment) -> Iterator[figures.Figure]:
    """Make a client and a server on two nodes, and measure."""
    with api.Api(cluster.shape) as asked, workloads.namespaces(cluster, asked, workloads.namespace(WHERE)):
        asked.create(*(workloads.pod(name, where=WHERE, node=node) for name, node in PODS.items()))
        workloads.ready(cluster, WHERE)
        found = [asked.get(f"{api.pods(WHERE)}/{name}") for name in PODS]
        client, server = (inside.place(cluster.shape.name, pod) for pod in found)
        with enforced.Agents(cluster) as agents:
            agents.caught_up(asked)
        with Watch(client, server.addresses[0]) as watch:
            yield from changes(asked, watch)
        yield from connects(deployed, client, server)
        yield from memory(deployed)


def main() -> None:
    """Bring a cluster up, measure, take it down."""
    combination = combinations.asked_for()
    archive = os.environ.get("NODEWALL_IMAGE")
    if archive is None:
        sys.exit("tests.cluster.bench: NODEWALL_IMAGE names no archive of the image: make image")
    shape = settings.Shape(name="nwcb", cni=combination.cni, proxy=combination.proxy)
    bed.Bed(shape).down()
    with bed.Bed(shape) as cluster:
        cluster.load(pathlib.Path(archive))
        directory = shape.state / "overlay-of-the-bench"
        overlay.write(directory, engine=combination.flag)
        with deployment.Deployment(cluster, overlay=directory) as deployed:
            table = figures.table(list(measure(cluster, deployed)))
    print(table)
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"cluster-{combination.name}.txt").write_text(table + "\n")


if __name__ == "__main__":
    main()
