"""Starts one agent a node and knows when they all enforce what the manifests say.

An agent enforces the present manifests when it reports their digest and has as many endpoints as the node has pods:
nothing here guesses by sleeping. One that ends instead is shown with the end of its log.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent import errors, patience
from agent.lab import nursery, plan, removal, rundir
from agent.lab import orders as orders_
from agent.model import audit as audit_
from agent.sources import manifests

if TYPE_CHECKING:
    from agent.rpc import client, views

START_TIMEOUT_S = 60.0
"""The first agent on a machine may have to compile its BPF programs."""
APPLY_TIMEOUT_S = 30.0
PAUSE_S = 0.003
STARTING_PAUSE_S = 0.02
"""Between looks at whether an agent answers yet: whoever asks takes from it the processor that it starts on."""
LOG_LINES = 25
START = "from agent import daemon; daemon.main()"
PACKAGE = pathlib.Path(__file__).resolve().parents[2]


def orders(lab: plan.LabPlan, paths: rundir.RunDirectory, engine: str, iptables: str) -> list[dict[str, Any]]:
    """Order one agent a node, in the node's network namespace and this mount namespace (`runner.py`).

    It is forked by the nursery, if the environment names one, else executed.
    """
    forked = os.environ.get(nursery.ENVIRONMENT)
    return [
        {
            "name": f"agent/{name}",
            "netns": str(paths.node_netns(name)),
            "cgroup": str(cgroup(name, paths)),
            "log": str(paths.agent_log(name)),
            "argv": [sys.executable, "-c", START, *flags(name, paths, engine, iptables)],
            "environment": environment(name, paths),
            **({"nursery": forked} if forked else {}),
        }
        for name in lab.nodes
    ]


def environment(node: str, paths: rundir.RunDirectory) -> dict[str, str]:
    """Return the environment of a node's agent, who shares its lock on iptables with the node's Services alone."""
    own = {"PYTHONPATH": str(PACKAGE), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, orders_.XTABLES_LOCKFILE: str(paths.xtables_lock(node))}


def flags(node: str, paths: rundir.RunDirectory, engine: str, iptables: str = "auto") -> list[str]:
    """Return the agent's command line for one node."""
    given: Mapping[str, object] = {
        "--node": node,
        "--source": paths.manifests,
        "--state-dir": paths.node(node) / "state",
        "--bpffs": paths.bpffs,
        "--cgroup-root": paths.node_cgroup(node),
        "--cni-results": paths.cni_results(node),
        "--netns-dir": paths.pod_namespaces(node),
        "--cri-socket": "none",
        "--engine": engine,
        "--iptables": iptables,
    }
    named = [text for flag, value in given.items() for text in (flag, str(value))]
    return [*named, "--allow-audit-annotations"]  # who writes a lab's manifests is its admin


def cgroup(node: str, paths: rundir.RunDirectory) -> pathlib.Path:
    """Return the cgroup of a node's agent."""
    return paths.node_cgroup(node) / "system" / "nodewall-agent"


class Watch:
    """Connections to the agents of one lab, kept open: asking costs half a millisecond, connecting ten."""

    def __init__(self, paths: rundir.RunDirectory) -> None:
        """Connect to nobody yet."""
        self._paths = paths
        self._clients: dict[str, client.AgentClient] = {}

    def close(self) -> None:
        """Close all connections."""
        for one in self._clients.values():
            one.close()
        self._clients.clear()

    def status(self, node: str) -> views.Status:
        """Ask one agent; raises errors.Unreachable, a NodewallError."""
        return self._agent(node).status()

    def pods(self, node: str) -> frozenset[str]:
        """Ask one agent whom it enforces policy on, as NAMESPACE/NAME; raises errors.Unreachable."""
        return frozenset(f"{one.namespace}/{one.pod}" for one in self._agent(node).endpoints())

    def audit(self, node: str) -> audit_.Audit:
        """Ask one agent what is in audit; raises errors.Unreachable."""
        entries, _ = self._agent(node).audit()
        return audit_.Audit(
            commands=frozenset(audit_.Target(one.namespace, one.policy) for one in entries), annotations=True
        )

    def _agent(self, node: str) -> client.AgentClient:
        from agent.rpc import client  # noqa: PLC0415 - gRPC takes 0.2 s to load, and labs without agents do without

        if node not in self._clients:
            self._clients[node] = client.AgentClient(self._paths.agent_socket(node))
        return self._clients[node]

    def wait(self, lab: plan.LabPlan, timeout_s: float) -> None:
        """Return when every agent enforces the manifests as they are now, on every pod; LabError if one does not."""
        wanted = manifests.digest(self._paths.manifests)
        timeout_s = patience.seconds(timeout_s)
        deadline = time.monotonic() + timeout_s
        for node in lab.nodes:
            pods = frozenset(pod.party for pod in lab.pods.values() if pod.node == node and not pod.host_network)
            reason = "it does not answer"
            while reason:
                answers = self._paths.agent_socket(node).exists()
                time.sleep(patience.seconds(PAUSE_S if answers else STARTING_PAUSE_S))
                with contextlib.suppress(errors.Unreachable):
                    reason = _lacks(self.status(node), wanted) or _differs(self.pods(node), pods)
                if reason and not removal.processes(cgroup(node, self._paths)):
                    raise errors.LabError(f"the agent of {node} ended:\n{self.log_end(node)}")
                if reason and time.monotonic() > deadline:
                    log = self.log_end(node)
                    raise errors.LabError(f"the agent of {node} is not ready in {timeout_s:.0f} s: {reason}\n{log}")

    def log_end(self, node: str) -> str:
        """Return the last lines an agent wrote."""
        path = self._paths.agent_log(node)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join([f"  last lines of {path}:", *(f"  {line}" for line in lines[-LOG_LINES:])])


def _lacks(status: views.Status, digest: str) -> str:
    """Say what is missing; "" if nothing."""
    if status.enforced_source_digest != digest:
        return f"it enforces other manifests{f': {status.last_error}' if status.last_error else ''}"
    if status.held_endpoints:
        return f"it holds {status.held_endpoints} of {status.endpoints} endpoints"
    return ""


def _differs(found: frozenset[str], wanted: frozenset[str]) -> str:
    """Say whom an agent does not know yet, or still knows; a number would not tell one pod from another."""
    lacking = f"it does not know {', '.join(sorted(wanted - found))}" if wanted - found else ""
    left = f"it still knows {', '.join(sorted(found - wanted))}" if found - wanted else ""
    return " and ".join(filter(None, (lacking, left)))
