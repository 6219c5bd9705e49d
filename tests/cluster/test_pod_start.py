"""A pod that dials from its first instruction on reaches nobody it must not, and whom it may at once.

Two hundred pods are created in waves over all nodes. Each dials, as fast as it can, a server that it may reach, one
that only its own policy keeps it from, and one whose own policy lets it in: that one's node has to hear of the new pod
from the API first. A wave without policies shows that the forbidden server answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster import api, bed, combinations, deployment, dialer, enforced, overlay, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

NEW, SERVERS, FREE = "newborn", "servers", "free"
PODS = 200
WAVE = 20
CONTROL = 6
NODES = 3
FORBIDDEN = f"{dialer.NEVER}-forbidden"


@pytest.fixture(params=["strict", "permissive"])
def hold(request: pytest.FixtureRequest, bare: bed.Bed, combination: combinations.Combination) -> Iterator[str]:
    """Deploy agents that do so with pods they do not know yet."""
    directory = bare.shape.state / f"overlay-{request.param}"
    overlay.write(directory, engine=combination.flag, hold=request.param)
    with deployment.Deployment(bare, overlay=directory):
        yield request.param


@pytest.fixture
def asked(cluster: bed.Bed) -> Iterator[api.Api]:
    dialer.load(cluster)
    with api.Api(cluster.shape) as opened:
        yield opened


@pytest.fixture
def targets(cluster: bed.Bed, asked: api.Api, hold: str) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Make servers, and policies for pods that are to come."""
    assert hold
    made = [workloads.namespace(name) for name in (NEW, SERVERS, FREE)]
    names = ("allowed", "guarded", "forbidden")
    with workloads.namespaces(cluster, asked, *made), enforced.Agents(cluster) as agents:
        asked.create(*(workloads.pod(name, where=SERVERS, node="node1") for name in names), *policies())
        workloads.ready(cluster, SERVERS)
        agents.caught_up(asked)
        at = {name: (workloads.addresses(cluster, SERVERS, name)[0], workloads.PORT) for name in names}
        yield {"allowed": at["allowed"], "guarded": at["guarded"], FORBIDDEN: at["forbidden"]}


def policies() -> Iterator[dict[str, Any]]:
    both = ["Ingress", "Egress"]
    servers = [
        {"namespaceSelector": workloads.named(SERVERS), "podSelector": {"matchLabels": {"pod": name}}}
        for name in ("allowed", "guarded")
    ]
    yield workloads.policy("default-deny", where=NEW, policyTypes=both)
    yield workloads.policy("to-servers", where=NEW, policyTypes=["Egress"], egress=[{"to": servers}])
    newborn = [{"from": [{"namespaceSelector": workloads.named(NEW)}]}]
    selects = {"podSelector": {"matchLabels": {"pod": "guarded"}}, "policyTypes": ["Ingress"]}
    yield workloads.policy("from-newborn", where=SERVERS, ingress=newborn, **selects)


def documents(where: str, begin: int, count: int, targets: Mapping[str, tuple[str, int]]) -> list[dict[str, Any]]:
    return [
        dialer.pod(
            f"new{number}", where=where, node=f"node{number % NODES + 1}", labels={"pod": "new"}, targets=targets
        )
        for number in range(begin, begin + count)
    ]


def test_no_new_pod_reaches_whom_it_must_not(
    cluster: bed.Bed, asked: api.Api, hold: str, targets: Mapping[str, tuple[str, int]]
) -> None:
    reachable = {name: at for name, at in targets.items() if name != "guarded"}
    control = dialer.wave(cluster.shape, FREE, documents(FREE, 0, CONTROL, reachable), count=CONTROL)
    assert all(dialer.seen(pod)[FORBIDDEN].successes for pod in control), "nobody reaches it without policies either"
    found: list[Mapping[str, dialer.Seen]] = []
    while len(found) < PODS:
        count = min(WAVE, PODS - len(found))
        ended = dialer.wave(cluster.shape, NEW, documents(NEW, len(found), count, targets), count=count)
        found += [dialer.seen(pod) for pod in ended]
        asked.delete(api.pods(NEW))
    tries = sum(seen[FORBIDDEN].tries for seen in found)
    print(f"{hold}: {len(found)} pods, {tries} forbidden connects")
    for name in ("allowed", "guarded"):
        first = [seen[name].first_ms for seen in found]
        p50, p99 = (dialer.quantile(first, part) for part in (0.5, 0.99))
        print(f"{hold}: first connect to {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {max(first):.2f} ms")
    assert sum(seen[FORBIDDEN].successes for seen in found) == 0
    assert all(seen[name].successes for seen in found for name in ("allowed", "guarded"))
