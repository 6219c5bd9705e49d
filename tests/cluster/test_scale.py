"""Ten thousand pods, a thousand namespaces and five thousand policies: an agent's start, its memory, its requests.

The objects are in a real API server that nobody else asks, so its own counters say what the agent has asked for.
"""

from __future__ import annotations

import collections
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.sources.kubernetes import reflector
from tests.cluster import api, conftest, crowd, lone, programs

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

NAMESPACES = 1000
LOCAL = 30
READY_S = 120.0
QUIET_S = 15.0
SPARE = 4
"""Lists more than there have to be: a page that was too old when its turn came."""
LISTS = re.compile(r'^apiserver_request_total\{.*resource="(\w+)".*verb="LIST"[^}]*\} (\d+)$', re.MULTILINE)
WATCHES = re.compile(r'^apiserver_longrunning_requests\{.*resource="(\w+)".*verb="WATCH"[^}]*\} (\d+)$', re.MULTILINE)
READ = ("pods", "namespaces", "nodes", "services", "networkpolicies", "endpointslices")


@pytest.fixture
def plane() -> Iterator[lone.Lone]:
    if os.environ.get(conftest.ASKED) != "1":
        pytest.skip("make test-cluster runs these")
    try:
        programs.require()
        programs.directories(build=True)
    except programs.Missing as missing:
        pytest.skip(str(missing))
    with lone.Lone("nwcs") as started:
        yield started


def fill(plane: lone.Lone, size: crowd.Crowd) -> list[crowd.Local]:
    """Write the objects, and return the node's own pods."""
    uids: dict[int, str] = {}

    def one(number: int) -> Callable[[api.Api], None]:
        def write(asked: api.Api) -> None:
            asked.create(*size.documents(number))
            for each in range(crowd.PODS_EACH):
                path = f"{api.pods(crowd.name_of(number))}/pod-{each}"
                asked.merge(f"{path}/status", crowd.status(number, each))
            if number < size.local:
                uids[number] = asked.get(f"{api.pods(crowd.name_of(number))}/pod-0")["metadata"]["uid"]

        return write

    api.in_parallel(plane.shape, map(one, range(size.namespaces)))
    return [size.own(number, uid) for number, uid in sorted(uids.items())]


def counted(asked: api.Api, pattern: re.Pattern[str]) -> collections.Counter[str]:
    """Return what the API server counts, by resource."""
    counter: collections.Counter[str] = collections.Counter()
    for resource, number in pattern.findall(asked.text("/metrics")):
        counter[resource] += int(number)
    return collections.Counter({resource: counter[resource] for resource in READ})


def test_an_agent_starts_in_a_large_cluster_without_a_storm_of_requests(plane: lone.Lone) -> None:
    size = crowd.Crowd(namespaces=NAMESPACES, local=LOCAL)
    begin = time.monotonic()
    plane.connect(fill(plane, size))
    print(f"{NAMESPACES * crowd.PODS_EACH} pods written in {time.monotonic() - begin:.0f} s")
    with api.Api(plane.shape) as asked:
        pages = {resource: pages_of(asked, resource) for resource in READ}
        lists, watches = counted(asked, LISTS), counted(asked, WATCHES)
        begin = time.monotonic()
        with lone.Agent(plane) as agent:
            status = agent.ready(limit_s=READY_S)
            seconds, at_start = time.monotonic() - begin, agent.memory()
            listed = counted(asked, LISTS) - lists
            time.sleep(QUIET_S)
            later = counted(asked, LISTS) - lists
            watched = counted(asked, WATCHES) - watches
            idle = agent.memory()
    print(f"start to ready {seconds:.1f} s, {status.mode}; {status.identities} identities, {status.rows} rows")
    print(f"RSS (anonymous) MiB: at start {at_start[0]:.0f} ({at_start[1]:.0f}), idle {idle[0]:.0f} ({idle[1]:.0f})")
    print(f"lists {dict(listed)}, watches {dict(watched)}")
    assert status.policies == NAMESPACES * crowd.POLICIES_EACH
    assert status.endpoints == LOCAL
    assert later == listed, "an agent that has caught up lists nothing"
    assert all(listed[resource] <= pages[resource] + SPARE for resource in READ), pages
    assert watched == dict.fromkeys(READ, 1)


def pages_of(asked: api.Api, resource: str) -> int:
    """Return how many pages a list of all objects of a resource takes."""
    group = {"networkpolicies": "/apis/networking.k8s.io/v1", "endpointslices": "/apis/discovery.k8s.io/v1"}
    first: dict[str, Any] = asked.get(f"{group.get(resource, '/api/v1')}/{resource}?limit=1")
    count = len(first["items"]) + int(first["metadata"].get("remainingItemCount", 0))
    return max(1, math.ceil(count / reflector.PAGE_LIMIT))
