"""A control plane without controllers, and one node that has an agent and pods' namespaces, and no kubelet.

The agent is a process of this machine in the node's network namespace, with a bpffs of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Self

from agent import errors
from agent.rpc import client, views
from tests.cluster import cgroups, commands, control, crowd, fabric, inside, pki, programs, settings

NODE = "node1"
ENDS_S = 30
START = 'mkdir -p "$1/bpf" "$1/netns" && mount -t bpf bpf "$1/bpf" && shift && exec "$@"'


class Lone:
    """The control plane; a context manager."""

    def __init__(self, name: str) -> None:
        """Start nothing yet."""
        self.shape = settings.Shape(name=name, nodes=1)

    def __enter__(self) -> Self:
        """Start it."""
        self.down()
        (self.shape.state / "log").mkdir(parents=True)
        try:
            pki.write(self.shape)
            fabric.make(self.shape)
            control.start(self.shape, controllers=False)
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(self, *_about: object) -> None:
        """Take it down."""
        self.down()

    def down(self) -> None:
        """Take down whatever there is of it."""
        cgroups.remove(self.shape.name)
        fabric.remove(self.shape.name)
        commands.run("rm", "-rf", str(self.shape.state))

    def connect(self, pods: Iterable[crowd.Local]) -> None:
        """Give pods a network, and write down what a runtime would."""
        results = self.shape.state / "cni"
        results.mkdir()
        node = self.shape.netns(NODE)
        for number, pod in enumerate(pods):
            netns, veth = f"{self.shape.name}-pod{number}", f"veth{number}"
            commands.every(
                ("ip", "netns", "add", netns),
                ("ip", "link", "add", veth, "netns", node, "type", "veth", "peer", "name", "eth0", "netns", netns),
                ("ip", "-n", node, "link", "set", veth, "up"),
                ("ip", "-n", netns, "link", "set", "eth0", "up"),
            )
            (results / f"crowd-{netns}-eth0").write_text(json.dumps(result(pod, netns=netns, veth=veth)))


def result(pod: crowd.Local, *, netns: str, veth: str) -> dict[str, object]:
    """Return what libcni caches of a pod."""
    path = f"/run/netns/{netns}"
    named = {
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": netns,
        "K8S_POD_UID": pod.uid,
    }
    lengths = ("32", "128")
    return {
        "kind": "cniCacheV1",
        "containerId": netns,
        "ifName": "eth0",
        "networkName": "crowd",
        "cniArgs": [[key, value] for key, value in named.items()],
        "netns": path,
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": veth}, {"name": "eth0", "sandbox": path}],
            "ips": [
                {"address": f"{address}/{length}", "interface": 1}
                for address, length in zip(pod.addresses, lengths, strict=True)
            ],
        },
    }


class Agent:
    """An agent on the node; a context manager."""

    def __init__(self, plane: Lone) -> None:
        """Start nothing yet."""
        self._plane = plane
        self.state = plane.shape.state / "agent"
        self.log = plane.shape.state / "log" / "agent.log"

    def __enter__(self) -> Self:
        """Start it."""
        shape = self._plane.shape
        group = f"{shape.name}/{NODE}"
        cgroups.make(group)
        flags = ["--node", NODE, "--source", "kubernetes", "--kubeconfig", str(shape.kubeconfig)]
        flags += ["--state-dir", str(self.state), "--bpffs", str(shape.state / "bpf")]
        flags += ["--cgroup-root", str(inside.version2() / group), "--cni-results", str(shape.state / "cni")]
        flags += ["--netns-dir", str(shape.state / "netns"), "--cri-socket", "none"]
        flags += ["--health-address", "none", "--metrics-address", "none"]
        program = [sys.executable, "-c", "from agent import daemon; daemon.main()", *flags]
        apart = ["nsenter", f"--net=/run/netns/{shape.netns(NODE)}", "unshare", "--mount", "--propagation", "slave"]
        command = [*apart, "/bin/sh", "-c", START, "start", str(shape.state), *program]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                cgroups.inside(group, command), cwd=programs.ROOT, stdout=log, stderr=log, env=os.environ
            )
        return self

    def __exit__(self, *_about: object) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(ENDS_S)

    def ready(self, *, limit_s: float) -> views.Status:
        """Wait until it is ready, and return what it says. Raises TimeoutError with the end of its log."""
        deadline = time.monotonic() + limit_s
        with contextlib.closing(client.AgentClient(self.state / "agent.sock")) as asked:
            while time.monotonic() < deadline and self._process.poll() is None:
                with contextlib.suppress(errors.Unreachable):
                    status = asked.status()
                    if status.synced and status.enforced_revision == status.revision and not status.not_ready:
                        return status
                time.sleep(0.02)
        raise TimeoutError(f"not ready within {limit_s:.0f} s:\n{self.log.read_text()[-3000:]}")

    def memory(self) -> tuple[float, float]:
        """Return its resident memory and the anonymous part, MiB."""
        text = pathlib.Path(f"/proc/{self._process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024
