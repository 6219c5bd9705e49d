"""A pod that gets an address which another pod had inherits nothing of it, also while that other one is still listed.

On every node there are eight addresses. The pods of a Job, which the policies let in, run to their end and stay in the
API as Succeeded; then strangers get their addresses and dial the same servers from their first instruction on; then
the next Job's pods get them, which have to be let in again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster import api, bed, commands, deployment, dialer, enforced, networks, settings, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

WHERE = "heirs"
POOL = 8
ROUNDS = 200
"""Addresses that a stranger took over from a friend; the last wave may make them more."""
STRANGERS_S = 2
WAVE_S = 240.0
FRIENDS_S = 90
"""Until the servers' nodes have heard of them, on a machine that starts dozens of pods at once."""
SERVERS = {"server": "node1", "far": "node2", "vault": "node1"}
FRIEND, STRANGER = {"role": "friend"}, {"role": "stranger"}


def policies() -> Iterator[dict[str, Any]]:
    """Yield one that lets only friends in, and one that lets strangers out to only that; nobody guards the vault."""
    selects = {"podSelector": {"matchLabels": {"kind": "guarded"}}, "policyTypes": ["Ingress"]}
    friends = [{"from": [{"podSelector": {"matchLabels": FRIEND}}]}]
    yield workloads.policy("friends-come-in", where=WHERE, ingress=friends, **selects)
    selects = {"podSelector": {"matchLabels": STRANGER}, "policyTypes": ["Egress"]}
    guarded = [{"to": [{"podSelector": {"matchLabels": {"kind": "guarded"}}}]}]
    yield workloads.policy("strangers-stay-out", where=WHERE, egress=guarded, **selects)


@pytest.fixture
def servers(cluster: bed.Bed, deployed: deployment.Deployment) -> Iterator[Mapping[str, tuple[str, int]]]:
    """Make the servers and the policies, and leave each node few addresses."""
    assert deployed.pods()
    dialer.load(cluster)
    with (
        api.Api(cluster.shape) as asked,
        workloads.namespaces(cluster, asked, workloads.namespace(WHERE)),
        enforced.Agents(cluster) as agents,
    ):
        for name, node in SERVERS.items():
            kind = {"kind": "open" if name == "vault" else "guarded"}
            asked.create(workloads.pod(name, where=WHERE, node=node, labels=kind))
        asked.create(*policies())
        workloads.ready(cluster, WHERE)
        agents.caught_up(asked)
        try:
            for member in cluster.shape.members():
                networks.write(cluster.shape, member, pool=POOL)
            yield {name: (workloads.addresses(cluster, WHERE, name)[0], workloads.PORT) for name in SERVERS}
        finally:
            for member in cluster.shape.members():
                networks.write(cluster.shape, member)


def job(member: settings.Member, number: int, targets: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Return a Job that uses up a node's addresses once."""
    name = f"friends-{member.name}-{number}"
    pod = dialer.pod("", where=WHERE, node=member.name, labels=FRIEND, targets=targets, seconds=FRIENDS_S)
    template = {"metadata": {"labels": FRIEND}, "spec": pod["spec"]}
    spec = {"parallelism": POOL, "completions": POOL, "backoffLimit": 0, "template": template}
    metadata = {"name": name, "namespace": WHERE}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def strangers(member: settings.Member, number: int, targets: Mapping[str, tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """Yield as many pods as a node has addresses."""
    for each in range(POOL):
        name = f"stranger-{member.name}-{number}-{each}"
        yield dialer.pod(name, where=WHERE, node=member.name, labels=STRANGER, targets=targets, seconds=STRANGERS_S)


def are_free(cluster: bed.Bed) -> bool:
    """Tell whether no pod has an address of a pool."""
    return not any(networks.pool(member, POOL) & networks.taken(cluster, member) for member in cluster.shape.members())


def addresses(pods: list[dict[str, Any]]) -> set[str]:
    """Return the IPv4 addresses that pods had."""
    return {str(pod["status"]["podIP"]) for pod in pods}


def test_an_address_that_comes_back_brings_nothing_along(
    cluster: bed.Bed, servers: Mapping[str, tuple[str, int]]
) -> None:
    shape, members = cluster.shape, cluster.shape.members()
    count = POOL * len(members)
    never = {f"{dialer.NEVER}-{name}": at for name, at in servers.items()}
    taken_over = tries = 0
    for number in itertools.count():
        jobs = [job(member, number, servers) for member in members]
        friends = dialer.wave(shape, WHERE, jobs, count=count, limit_s=WAVE_S)
        seen = {pod["metadata"]["name"]: (pod["status"]["podIP"], dialer.seen(pod)) for pod in friends}
        late = {name: one for name, one in seen.items() if not all(each.successes for each in one[1].values())}
        assert not late, f"friends were not let in: {late}"
        commands.wait("addresses of Jobs to come back", lambda: are_free(cluster), limit_s=60, pause_s=0.5)
        newcomers = [pod for member in members for pod in strangers(member, number, never)]
        others = dialer.wave(shape, WHERE, newcomers, count=count, limit_s=WAVE_S)
        seen = {pod["metadata"]["name"]: (pod["status"]["podIP"], dialer.seen(pod)) for pod in others}
        leaks = {name: one for name, one in seen.items() if any(each.successes for each in one[1].values())}
        assert not leaks, f"strangers got in: {leaks}"
        tries += sum(each.tries for one in seen.values() for each in one[1].values())
        taken_over += len(addresses(others) & addresses(friends))
        with api.Api(shape) as asked:
            asked.delete(f"{api.pods(WHERE)}?labelSelector=role=stranger")
        commands.wait("addresses of strangers to come back", lambda: are_free(cluster), limit_s=60, pause_s=0.5)
        if taken_over >= ROUNDS:
            break
        assert number < 2 * ROUNDS // POOL, f"only {taken_over} addresses were taken over"
    print(f"{taken_over} addresses taken over from friends that are still listed, {tries} connects of strangers")
