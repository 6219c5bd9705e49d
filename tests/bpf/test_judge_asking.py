"""Flows that policies restrict to queries for some names: kernel and judge agree, where queries are read and where not.

Where nobody reads them, what is restricted is denied by every other program (rules A50, E17).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.datapath import memory
from agent.model import net
from agent.policy import compiler
from tests.bpf import conftest, judge, test_judge
from tests.support import random_asking

pytestmark = pytest.mark.root

CLUSTERS = range(100, 112)
QUERIES = 40
UDP = net.Protocol.UDP.value


@pytest.fixture(scope="module")
def kernel(routed_rig: conftest.Rig) -> Iterator[judge.Judge]:
    with judge.opened(routed_rig.datapath.events_path.parent) as opened:
        yield opened


@pytest.mark.parametrize("read", [True, False])
def test_random_clusters_whose_pods_may_ask_for_some_names_are_judged_alike(
    rig: conftest.Rig, kernel: judge.Judge, monkeypatch: pytest.MonkeyPatch, *, read: bool
) -> None:
    if read:
        monkeypatch.setattr(rig.datapath._veths, "unread", lambda _: frozenset())
    unread = 0
    for seed in CLUSTERS:
        cluster, _ = random_asking.cluster(seed)
        view = cluster.views["node-0"]
        rig.datapath.apply(compiler.compile_node(cluster.snapshot, view).state)
        reference = memory.MemoryDatapath(rig.datapath.tables())
        for query in random_asking.queries(cluster, QUERIES):
            flow: Any = {"client": query.client, "server": query.server, "protocol": UDP, "port": query.port}
            for hook in memory.Hook:
                expected = reference.judge(**flow, hook=hook)
                assert kernel.judge(**flow, hook=hook) == expected, (seed, query, hook)
                unread += expected.unread
            for sandbox in view.sandboxes:
                test_judge._same_connect(kernel, reference, sandbox.netns_cookie, query.server, (UDP, query.port))
    assert bool(unread) is not read
