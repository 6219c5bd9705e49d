"""The agents on a cluster: applied, asked, taken away, exactly by what daemonset/ ships."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from typing import Any, Self

import yaml

from agent import patience
from tests.cluster import bed, commands

NAMESPACE = "kube-system"
AGENTS = "daemonset/nodewall-agent"
UNINSTALL = "daemonset/nodewall-uninstall"
LABELS = "app.kubernetes.io/name=nodewall,app.kubernetes.io/component=agent"
READY_S = 180


class Deployment:
    """A kustomization `agent` and its counterpart `uninstall` below one directory."""

    def __init__(self, cluster: bed.Bed, *, overlay: pathlib.Path) -> None:
        """Apply nothing yet."""
        self.cluster = cluster
        self._overlay = overlay

    def __enter__(self) -> Self:
        """Apply."""
        self.apply()
        return self

    def __exit__(self, *_: object) -> None:
        """Delete and uninstall."""
        self.delete()
        self.uninstall()

    def apply(self) -> float:
        """Apply, wait until every agent is ready, and return how many seconds that took."""
        begin = time.monotonic()
        self.cluster.kubectl("apply", "-k", str(self._overlay / "agent"))
        self.settle()
        return time.monotonic() - begin

    def settle(self) -> None:
        """Wait until every agent is ready. Raises AssertionError with what the agents say."""
        try:
            self._rollout(AGENTS)
        except commands.Failed as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def restart(self) -> None:
        """Replace every agent, as an upgrade does."""
        self.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", AGENTS)
        self.settle()

    def without(self, capability: str, *, node: str) -> str:
        """Start an agent without a capability on a node whose own is away, and return the last it said.

        Raises TimeoutError if it says nothing and does not end.
        """
        [shipped] = [
            document
            for document in yaml.safe_load_all(self.cluster.kubectl("kustomize", str(self._overlay / "agent")))
            if document["kind"] == "DaemonSet"
        ]
        spec = shipped["spec"]["template"]["spec"]
        security = spec["containers"][0]["securityContext"]
        security["capabilities"]["add"].remove(capability)
        spec |= {"nodeName": node, "restartPolicy": "Never"}
        spec["containers"][0]["args"] += ["--health-address=none", "--metrics-address=none"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            del spec["containers"][0][probe]
        name = f"without-{capability.lower().replace('_', '-')}"
        away = {"spec": {"template": {"spec": {"nodeSelector": {"nodewall.test/none": "none"}}}}}
        self.cluster.kubectl("-n", NAMESPACE, "patch", AGENTS, "-p", json.dumps(away))
        commands.wait("agents gone", lambda: not self.pods(), limit_s=90)
        metadata = {"name": name, "namespace": NAMESPACE}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

        def said() -> str:
            with contextlib.suppress(commands.Failed):
                return self.cluster.kubectl("-n", NAMESPACE, "logs", name)
            return ""

        try:
            commands.wait("a word about capabilities", lambda: "CAP_" in said(), limit_s=60, pause_s=1)
            return said()
        finally:
            self.cluster.kubectl("-n", NAMESPACE, "delete", "pod", name, "--now")

    def delete(self) -> None:
        """Delete the agents; what they enforce stays in force."""
        self.cluster.kubectl("delete", "-k", str(self._overlay / "agent"), "--wait=true", "--ignore-not-found")
        commands.wait("agents gone", lambda: not self.pods(), limit_s=60)

    def uninstall(self) -> None:
        """Take everything out of force, as the README says."""
        self.cluster.kubectl("apply", "-k", str(self._overlay / "uninstall"))
        self._rollout(UNINSTALL)
        self.cluster.kubectl("delete", "-k", str(self._overlay / "uninstall"), "--wait=true")

    def pods(self) -> list[dict[str, Any]]:
        """Return the agents' pods."""
        return list(self.cluster.json("-n", NAMESPACE, "get", "pods", "-l", LABELS)["items"])

    def on(self, node: str) -> str:
        """Return the name of a node's agent."""
        return str(next(pod["metadata"]["name"] for pod in self.pods() if pod["spec"]["nodeName"] == node))

    def agentctl(self, node: str, *words: str) -> Any:
        """Ask a node's agent and return the JSON it answers."""
        return json.loads(
            self.cluster.kubectl("-n", NAMESPACE, "exec", self.on(node), "--", "agentctl", *words, "-o", "json")
        )

    def modes(self) -> set[str]:
        """Return what the agents say that they enforce by."""
        return {self.agentctl(member.name, "status")["status"]["mode"] for member in self.cluster.shape.members()}

    def resident_kib(self, node: str, field: str = "VmRSS") -> int:
        """Return the resident memory of a node's agent, or a part of it (`RssAnon`), KiB."""
        status = self.cluster.kubectl("-n", NAMESPACE, "exec", self.on(node), "--", "cat", "/proc/1/status")
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))

    def logs(self) -> str:
        """Return the last lines of every agent, and what Kubernetes says of them."""
        said = self.cluster.kubectl("-n", NAMESPACE, "logs", "-l", LABELS, "--tail=20", "--prefix")
        return said + self.cluster.kubectl("-n", NAMESPACE, "describe", "pods", "-l", LABELS)[-3000:]

    def trace(self, node: str) -> dict[str, str]:
        """Return everything on a node that an agent might leave: equal before and after means without a trace."""
        looked_at = {
            "bpffs": "find /sys/fs/bpf -mindepth 1 ! -name progs.debug ! -name maps.debug",
            "groups": "bpftool cgroup tree /sys/fs/cgroup 2>/dev/null; bpftool cgroup tree /sys/fs/cgroup/unified",
            "netfilter": "bpftool net show | sed -n '/^netfilter:/,$p'",
            "interfaces": "tc filter show; bpftool net show | sed -n '/^tc:/,/^$/p' | grep nw_",
            "rules": "for p in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do $p-save 2>&1; done"
            " | grep -iE 'NW-|nodewall'",
            "nftables": "nft list tables | grep -i nodewall",
            "sets": "ipset list -n | grep -i nw",
            "state": "ls -A /run/nodewall 2>/dev/null",
        }
        return {what: self.cluster.enter(node, "sh", "-c", f"{script}; true") for what, script in looked_at.items()}

    def _rollout(self, what: str) -> None:
        self.cluster.kubectl("-n", NAMESPACE, "rollout", "status", what, f"--timeout={patience.seconds(READY_S):.0f}s")
