"""Waiting until the agents of all nodes enforce what the API server was told."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from collections.abc import Iterator
from typing import Self

from agent import errors
from agent.rpc import client, views
from tests.cluster import api, bed, commands, workloads

MARKS = "marks"
LIMIT_S = 15.0


class Agents:
    """The agents' sockets, through the nodes' own /run; a context manager."""

    def __init__(self, cluster: bed.Bed) -> None:
        """Take a cluster that has agents."""
        self._cluster = cluster
        self._clients: dict[str, client.AgentClient] = {}
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        """Make a place for marks."""
        with api.Api(self._cluster.shape) as asked:
            asked.create(workloads.namespace(MARKS))
        for member in self._cluster.shape.members():
            self._clients[member.name] = client.AgentClient(socket(self._cluster, member.name))
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections; the place for marks stays, since the next cannot be made while it goes."""
        for each in self._clients.values():
            each.close()

    def status(self, node: str) -> views.Status:
        """Return what a node's agent says of itself."""
        return self._clients[node].status()

    def statuses(self) -> Iterator[views.Status]:
        """Yield that of every node."""
        for each in self._clients.values():
            yield each.status()

    def caught_up(self, asked: api.Api) -> None:
        """Wait until every agent enforces the policies there were when this was called. Raises TimeoutError.

        One more policy tells: changes of one resource arrive in their order. Of labels it tells nothing.
        """
        mark = f"mark-{next(self._numbers)}"
        asked.apply(workloads.policy(mark, where=MARKS, policyTypes=["Ingress"]))
        waited = list(self._clients.values())
        commands.wait(
            "all agents to follow", lambda: all(_knows(one, mark) for one in waited), limit_s=LIMIT_S, pause_s=0.02
        )
        asked.delete(f"{api.policies(MARKS)}/{mark}")


def _knows(asked: client.AgentClient, mark: str) -> bool:
    with contextlib.suppress(errors.Unreachable):
        return any((policy.ref.namespace, policy.ref.name) == (MARKS, mark) for policy in asked.policies())
    return False


def socket(cluster: bed.Bed, node: str) -> pathlib.Path:
    """Return where a node's agent listens, as seen from here."""
    process = (cluster.shape.state / node / "pid").read_text()
    return pathlib.Path(f"/proc/{process}/root/run/nodewall/agent.sock")
