"""A rolling update of the agents, and a policy that changes meanwhile, under a connect load: no leak, no wrong denial.

Friends and strangers of a server dial it over and over, from its node and from another, in both families. That the load
sees what is open is shown before there are policies, and that it sees what is denied by what strangers get.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.cluster import api, bed, deployment, enforced, inside, loads, workloads

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

WHERE = "rolling"
CLIENTS = {"friend-far": "node2", "friend-near": "node1", "stranger-far": "node2", "stranger-near": "node1"}
GOOD = frozenset({"ok"})
OPEN = GOOD | {"slow"}
"""Without policies. The first IPv6 packet to a new pod may wait a second for neighbour discovery, which has to wait for
the host's own address: with agents and without."""
UPDATES = 2
STEADY_S = 2.0
LAST_S = 12.0
"""After the last change: whoever gets no answer dials only some four times a second, and updates may be quick."""
FEWEST = 100
"""A load that has dialled less often has seen nothing."""
SILENT = "silent-"
"""What load.py does not wait long for."""


class Clients:
    """Friends and strangers, and the server they dial."""

    def __init__(self, cluster: bed.Bed, asked: api.Api) -> None:
        """Make the pods and wait until they run."""
        asked.create(workloads.pod("server", where=WHERE, node="node1"))
        for name, node in CLIENTS.items():
            asked.create(workloads.pod(name, where=WHERE, node=node, labels={"role": name.partition("-")[0]}))
        workloads.ready(cluster, WHERE)
        self._server = workloads.addresses(cluster, WHERE, "server")
        found = asked.get(api.pods(WHERE))["items"]
        self.places = [inside.place(cluster.shape.name, pod) for pod in found]

    def loads(self, role: str, prefix: str = "") -> loads.Loads:
        """Return a load from the pods of a role."""
        targets = {f"{prefix}{address}": (address, workloads.PORT) for address in self._server}
        return loads.Loads(targets, *(place for place in self.places if f"/{role}" in place.party))


@pytest.fixture
def asked(cluster: bed.Bed, agents: deployment.Deployment) -> Iterator[api.Api]:
    assert agents.pods()
    with api.Api(cluster.shape) as opened, workloads.namespaces(cluster, opened, workloads.namespace(WHERE)):
        yield opened


def guard(asked: api.Api, name: str, **rules: object) -> None:
    """Put a policy before the server."""
    server = {"podSelector": {"matchLabels": {"pod": "server"}}, "policyTypes": ["Ingress"]}
    asked.apply(workloads.policy(name, where=WHERE, **server, **rules))


def close(cluster: bed.Bed, asked: api.Api) -> None:
    """Let only friends in."""
    guard(asked, "friends-only", ingress=[{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}])
    with enforced.Agents(cluster) as each:
        each.caught_up(asked)


def test_rolling_updates_leak_nothing_and_deny_nothing(
    cluster: bed.Bed, asked: api.Api, agents: deployment.Deployment
) -> None:
    clients = Clients(cluster, asked)
    with clients.loads("stranger") as strangers, clients.loads("friend") as friends:
        time.sleep(STEADY_S)
        opened = strangers.counted() | friends.counted()
    assert len(opened) == len(CLIENTS)
    assert all(counter.keys() <= OPEN for targets in opened.values() for counter in targets.values()), opened
    assert all(counter.keys() >= GOOD for targets in opened.values() for counter in targets.values()), opened
    close(cluster, asked)
    with contextlib.ExitStack() as stack:
        friends = stack.enter_context(clients.loads("friend"))
        strangers = stack.enter_context(clients.loads("stranger", SILENT))
        for _ in range(UPDATES):
            agents.restart()
        # One that says the same in other words: every agent compiles and flips under the load.
        guard(asked, "nobody-else")
        time.sleep(LAST_S)
        allowed, denied = friends.counted(), strangers.counted()
    print(f"friends: {allowed}\nstrangers: {denied}")
    for targets in allowed.values():
        for counter in targets.values():
            assert counter.keys() == GOOD
            assert counter.total() > FEWEST
    assert not [name for name, targets in denied.items() if any(GOOD & counter.keys() for counter in targets.values())]
    assert min(counter.total() for targets in denied.values() for counter in targets.values()) > FEWEST
