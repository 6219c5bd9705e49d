"""A snapshot goes from the agent to agentctl and is the same there."""

from __future__ import annotations

import dataclasses
import json

import pytest

from agent import errors
from agent.model import net, resources
from agent.rpc import snapshots
from tests.support import agents, cases, flows, random_asking, random_cluster


@pytest.mark.parametrize("seed", range(8))
def test_random_clusters_are_the_same_on_the_other_side(seed: int) -> None:
    snapshot = random_cluster.cluster(seed).snapshot
    assert snapshots.load(snapshots.dump(snapshot)) == snapshot


@pytest.mark.parametrize("seed", range(4))
def test_random_policies_of_every_kind_are_the_same_on_the_other_side(seed: int) -> None:
    snapshot = random_asking.cluster(seed)[0].snapshot
    assert snapshots.load(snapshots.dump(snapshot)) == snapshot


@pytest.mark.parametrize(
    "group", ["malformed", "refused", "services", "host-network", "ports", "cilium", "clusternetworkpolicy"]
)
def test_the_clusters_of_the_tables_are_the_same_and_so_is_what_was_refused(group: str) -> None:
    for path in [path for path in cases.paths() if path.parent.name == group][:4]:
        snapshot = flows.snapshot_of(cases.load(path).steps[-1])
        assert snapshots.load(snapshots.dump(snapshot)) == snapshot


def test_no_peers_stay_told_from_every_peer() -> None:
    for peers in (None, ()):
        policy = dataclasses.replace(agents.DENY, ingress=(resources.PolicyRule(peers=peers, ports=peers),))
        found = snapshots.load(snapshots.dump(agents.cluster(policy))).policies[policy.ref]
        assert found.rules(net.Direction.INGRESS) == (resources.PolicyRule(peers=peers, ports=peers),)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"items": [{"@": "Pod"}], "problems": []}',
        b'{"items": [{"@": "Elephant"}], "problems": []}',
        b'{"items": [{"@": "Pod", "namespace": "x", "name": "a", "uid": "u", "phase": "Odd"}], "problems": []}',
        b'{"items": ' + b"[" * 100_000,
        json.dumps({"items": [{"@": "Namespace", "name": "x", "labels": 3}], "problems": []}).encode(),
        json.dumps({"items": [{"@": "Namespace", "name": {"a": 1}}], "problems": []}).encode(),
    ],
)
def test_an_answer_of_another_version_is_refused(text: bytes) -> None:
    with pytest.raises(errors.InvalidAnswer, match="of one release"):
        snapshots.load(text)
