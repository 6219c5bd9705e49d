"""What connect() costs across two nodes: nothing attached, and the whole agent with 100 and 100,000 identities.

Rounds go over all labs in turn, so that a busy moment of the machine hits each of them.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from agent.lab import lab
from tests.bench import clusters, figures

ROUNDS = 15
COUNT = 2000
SIZES = (100, 100_000)


def measure(each: lab.Lab, kind: str, port: int) -> dict[str, Any]:
    """Connect COUNT times from the client to the server."""
    address = str(each.plan.addresses("bench/server")[0])
    done = each.exec(
        "bench/client", [str(clusters.build_tool()), kind, address, str(port), str(COUNT)], capture_output=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run() -> list[figures.Figure]:
    """Measure every lab in every round."""
    with contextlib.ExitStack() as stack:
        labs = {0: stack.enter_context(clusters.cluster("bench-plain", agents=False))}
        for size in SIZES:
            labs[size] = stack.enter_context(clusters.cluster(f"bench-{size}", agents=True, peers=size))
        took: dict[tuple[int, str], list[float]] = {}
        for _ in range(ROUNDS):
            for size, each in labs.items():
                answer = measure(each, "tcp", clusters.ALLOWED)
                assert answer["successes"] == COUNT, answer
                took.setdefault((size, "allowed"), []).append(answer["median_ns"])
                if size:
                    answer = measure(each, "tcp", clusters.DENIED)
                    assert (answer["successes"], answer["errno"]) == (0, 13), answer
                    took.setdefault((size, "denied"), []).append(answer["median_ns"])
    plain = figures.median(took[0, "allowed"])
    found = [figures.Figure(name="TCP connect, nothing attached", value=plain, unit="ns")]
    for size in SIZES:
        allowed, denied = figures.median(took[size, "allowed"]), figures.median(took[size, "denied"])
        found += [
            figures.Figure(name=f"TCP connect, {size:,} identities and rows", value=allowed, unit="ns", baseline=plain),
            figures.Figure(
                name=f"denied connect, {size:,} identities and rows", value=denied, unit="ns", baseline=allowed
            ),
        ]
    return found
