"""What connect() costs across two nodes: nothing attached, and the whole agent with 100 and 100,000 identities.

Rounds go over all labs in turn, so that a busy moment of the machine hits each of them. The agents read every verdict
in all of them; in one lab `agentctl observe --follow` reads both agents' streams besides. UDP has no packets: its rows
are what the socket layer costs.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from agent.lab import lab
from tests.bench import clusters, figures

ROUNDS = 15
COUNT = 2000
PLAIN = "nothing attached"
WATCHED = "100, and --follow on both nodes"
SIZES = {"100 identities and rows": 100, "100,000 identities and rows": 100_000, WATCHED: 100}
ATTACH_S = 2.0
"""For two interpreters to start and connect."""


def measure(each: lab.Lab, kind: str, port: int) -> dict[str, Any]:
    """Connect COUNT times from the client to the server."""
    address = str(each.plan.addresses("bench/server")[0])
    done = each.exec(
        "bench/client", [str(clusters.build_tool()), kind, address, str(port), str(COUNT)], capture_output=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def following(each: lab.Lab) -> Iterator[None]:
    """Watch every node's verdicts, and throw them away."""
    command = [sys.executable, "-c", "from agent.cli import main; main.main()", "observe", "--follow", "--socket"]
    sockets = [str(each.paths.agent_socket(node)) for node in each.plan.nodes]
    watching = [subprocess.Popen([*command, socket], stdout=subprocess.DEVNULL) for socket in sockets]
    try:
        time.sleep(ATTACH_S)
        assert all(process.poll() is None for process in watching), "agentctl observe --follow ended"
        yield
    finally:
        for process in watching:
            process.kill()
            process.wait()


def run() -> list[figures.Figure]:
    """Measure every lab in every round."""
    with contextlib.ExitStack() as stack:
        labs = {PLAIN: stack.enter_context(clusters.cluster("bench-plain", agents=False))}
        for number, (name, size) in enumerate(SIZES.items()):
            labs[name] = stack.enter_context(clusters.cluster(f"bench-{number}", agents=True, peers=size))
        stack.enter_context(following(labs[WATCHED]))
        took: dict[tuple[str, str], list[float]] = {}
        for _ in range(ROUNDS):
            for name, each in labs.items():
                for kind in ("tcp", "udp"):
                    answer = measure(each, kind, clusters.ALLOWED)
                    assert answer["successes"] == COUNT, answer
                    took.setdefault((name, kind), []).append(answer["median_ns"])
                if name != PLAIN:
                    answer = measure(each, "tcp", clusters.DENIED)
                    assert (answer["successes"], answer["errno"]) == (0, 13), answer
                    took.setdefault((name, "denied"), []).append(answer["median_ns"])
    return list(_figures({key: figures.median(values) for key, values in took.items()}))


def _figures(medians: dict[tuple[str, str], float]) -> Iterator[figures.Figure]:
    for kind in ("tcp", "udp"):
        plain = medians[PLAIN, kind]
        yield figures.Figure(name=f"{kind.upper()} connect, {PLAIN}", value=plain, unit="ns")
        for name in SIZES:
            yield figures.Figure(
                name=f"{kind.upper()} connect, {name}", value=medians[name, kind], unit="ns", baseline=plain
            )
    for name in SIZES:
        yield figures.Figure(
            name=f"denied connect, {name}", value=medians[name, "denied"], unit="ns", baseline=medians[name, "tcp"]
        )
