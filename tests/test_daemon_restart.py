"""kill -9 at any moment: the policy stays in force, and the next agent brings the kernel to the present inputs.

With the BPF datapath, in a lab whose only agent is started here, so that it can be killed where nobody expects it.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from agent import errors
from agent.lab import agents, exchange, lab
from agent.model import net, verdict
from agent.rpc import client, views
from tests.lab import manifests

pytestmark = pytest.mark.root

NODE = "node-1"
CLOSED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "x"},
    "spec": {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]},
}
OTHER = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: other, namespace: x}
spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{ipBlock: {cidr: 198.51.NUMBER.0/24}}]}]}
"""
KILLS = 5
WAIT_S = 30.0


class Node:
    """The lab's node and the one agent on it."""

    def __init__(self, running: lab.Lab) -> None:
        """Start nothing yet."""
        self.running = running
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = self._agent(*agents.flags(NODE, self.running.paths, "auto"))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def uninstall(self) -> int:
        paths = self.running.paths
        flags = ("--node", NODE, "--state-dir", str(paths.node(NODE) / "state"), "--bpffs", str(paths.bpffs))
        return self._agent("uninstall", *flags).wait(WAIT_S)

    def reached(self, *, last: views.Status | None = None) -> views.Status:
        """Wait until the agent enforces its inputs, and other ones than `last`."""
        deadline = time.monotonic() + WAIT_S
        with client.AgentClient(self.running.paths.agent_socket(NODE)) as agent:
            while time.monotonic() < deadline:
                try:
                    now = agent.status()
                except errors.Unreachable:
                    time.sleep(0.02)
                    continue
                if now.enforced_source_digest not in {"", last.enforced_source_digest if last else ""}:
                    return now
                time.sleep(0.005)
        raise AssertionError("the agent did not come to enforce its manifests")

    def connects(self) -> bool:
        request = exchange.ProbeRequest(source="x/a", destination="x/b", port=80, protocol=net.Protocol.TCP)
        (result,) = self.running.probe([request], timeout_s=0.5)
        return result.allowed

    def _agent(self, *arguments: str) -> subprocess.Popen[bytes]:
        paths = self.running.paths
        inside = ["nsenter", f"--net={paths.node_netns(NODE)}", sys.executable, "-m", "agent.daemon", *arguments]
        with paths.agent_log(NODE).open("ab") as log:
            return subprocess.Popen(inside, stderr=log, cwd=pathlib.Path(__file__).parents[1])


@pytest.fixture
def node() -> Iterator[Node]:
    documents = [manifests.node(NODE, "192.168.7.1"), manifests.pod("a"), manifests.pod("b", ports=("80/TCP",)), CLOSED]
    with lab.Lab(name=f"unit-{os.getpid()}k", families=(net.Family.IPV4,), agents=False) as running:
        running.up(documents)
        made = Node(running)
        try:
            yield made
        finally:
            made.kill()
            made.uninstall()


def test_a_killed_agent_leaves_its_policy_in_force_and_the_next_one_takes_it_over(node: Node) -> None:
    assert node.connects()
    node.start()
    first = node.reached()
    assert not node.connects()
    node.kill()
    assert not node.connects()
    node.start()
    again = node.reached()
    assert again.generation == first.generation  # nothing differed, so nothing was written
    with client.AgentClient(node.running.paths.agent_socket(NODE)) as agent:
        refused = list(agent.watch_verdicts(follow=False, wanted=verdict.Filter(namespace="x", pod="b")))
        # Refused while no agent ran: it waited in the ring until its policy had a name again.
        named = [event for event in refused if isinstance(event, verdict.VerdictEvent) and event.isolating]
    assert named


@pytest.mark.slow
def test_killed_while_it_writes_an_agent_leaves_old_or_new_and_the_next_one_converges(node: Node) -> None:
    node.start()
    node.reached()
    policy = node.running.paths.manifests / "other.yaml"
    for number in range(KILLS):
        policy.write_text(OTHER.replace("NUMBER", str(number)))
        # The manifests settle for 10 ms, then the maps are written: every kill hits another moment of it.
        time.sleep(0.013 + 0.004 * number)
        node.kill()
        assert not node.connects()
        node.start()
        assert node.reached().policies == 2
        assert not node.connects()
    last = node.reached()
    policy.unlink()
    assert node.reached(last=last).policies == 1
    assert not node.connects()


def test_uninstall_opens_the_node_and_leaves_nothing(node: Node) -> None:
    node.start()
    node.reached()
    assert not node.connects()
    node.kill()
    assert node.uninstall() == 0
    assert node.connects()
    assert not list(node.running.paths.bpffs.glob("nodewall/*"))
