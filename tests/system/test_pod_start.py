"""A pod's first seconds, played by hand for one real agent: namespace, loopback result, eth0 result, DEL."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from agent import errors, patience
from agent.rpc import client, views
from tests.bpf import node as node_
from tests.bpf import traffic
from tests.support import kernel

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
NAME = "cni-01234567-89ab-cdef-0123-456789abcdef"
PLAIN = "somebodys"
MS_BIND, MNT_DETACH = 4096, 2
BPFFS = pathlib.Path("/sys/fs/bpf")
MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, uid: u-1}
spec: {nodeName: n1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-8080, namespace: x}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 8080}]}]}
"""
WAIT_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One agent on a small node, and the two directories in which a container runtime would write."""

    node: node_.Node
    netns: pathlib.Path
    results: pathlib.Path
    agent: client.AgentClient

    def reached(self, what: Callable[[views.Status], bool]) -> None:
        """Wait until the agent's status is so."""
        deadline = time.monotonic() + patience.seconds(WAIT_S)
        while True:
            with contextlib.suppress(errors.Unreachable):
                status = self.agent.status()
                if what(status) and status.enforced_revision == status.revision:
                    return
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def bind(self, name: str, guest: node_.Guest) -> None:
        """Do as a runtime: make a file, then bind the namespace over it."""
        path = self.netns / name
        path.touch()
        source = f"/proc/self/fd/{guest.namespace}".encode()
        if ctypes.CDLL(None, use_errno=True).mount(source, os.fsencode(path), None, MS_BIND, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    def unbind(self, name: str) -> None:
        """Undo that; again is no error."""
        ctypes.CDLL(None).umount2(os.fsencode(self.netns / name), MNT_DETACH)
        (self.netns / name).unlink(missing_ok=True)

    def result(self, interface: str, guest: node_.Guest) -> pathlib.Path:
        """Do as libcni: write a result."""
        arguments = [["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", "a"], ["K8S_POD_UID", "u-1"]]
        inside = {"name": interface, "sandbox": str(self.netns / NAME)}
        own = interface == "eth0"
        content = {
            "kind": "cniCacheV1",
            "containerId": "c0ffee",
            "ifName": interface,
            "cniArgs": arguments,
            "result": {
                "interfaces": [{"name": "veth0"}, inside] if own else [inside],
                "ips": [{"address": f"{guest.address4}/32", "interface": 1}] if own else [],
            },
        }
        path = self.results / f"pods-c0ffee-{interface}"
        path.write_text(json.dumps(content))
        return path


@pytest.fixture
def start(tmp_path: pathlib.Path) -> Iterator[Start]:
    if lacking := kernel.lacks_packet_layer():
        pytest.skip(lacking)
    for name in ("netns", "cni", "source", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "all.yaml").write_text(MANIFEST)
    flags = {"--node": "n1", "--source": tmp_path / "source", "--state-dir": tmp_path / "state"}
    flags |= {"--netns-dir": tmp_path / "netns", "--cni-results": tmp_path / "cni", "--cri-socket": "none"}
    flags |= {"--hold": "strict", "--engine": "nfbpf", "--health-address": "none", "--metrics-address": "none"}
    if not BPFFS.is_mount():
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    pins = BPFFS / f"start-{os.getpid()}"
    pins.mkdir()
    with node_.running() as made:
        own = {"--node": "n1", "--state-dir": tmp_path / "state", "--bpffs": pins, "--cgroup-root": made.cgroup}
        run = [sys.executable, "-m", "agent.daemon", *(str(word) for pair in (flags | own).items() for word in pair)]
        process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
        try:
            with client.AgentClient(tmp_path / "state" / "agent.sock") as asking:
                yield Start(node=made, netns=tmp_path / "netns", results=tmp_path / "cni", agent=asking)
        finally:
            for name in (NAME, PLAIN):
                ctypes.CDLL(None).umount2(os.fsencode(tmp_path / "netns" / name), MNT_DETACH)
            process.kill()
            print(process.communicate()[1])
            remove = [sys.executable, "-m", "agent.daemon", "uninstall"]
            subprocess.run([*remove, *(str(word) for pair in own.items() for word in pair)], check=True)
            pins.rmdir()


def test_a_pod_is_held_from_its_namespace_on_and_under_its_policy_until_its_namespace_is_gone(start: Start) -> None:
    """Rules A45 and A49."""
    pod, other = start.node.pods
    start.reached(lambda status: status.synced and status.policies == 1)
    with other.started(traffic.listens(PORT)) as ready, other.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert _connects(pod, other) == (0, 0), "nobody's namespace: not ours to judge"
        start.bind(NAME, pod)
        start.reached(lambda status: status.held_endpoints == 1)
        assert _connects(pod, other) == (errno.EACCES, errno.EACCES)
        loopback = start.result("lo", pod)
        start.reached(lambda status: (status.endpoints, status.held_endpoints) == (1, 0))
        assert _connects(pod, other) == (0, errno.EACCES)
        eth0 = start.result("eth0", pod)
        start.reached(lambda _: _addresses(start) == [(str(pod.address4),)])
        assert _connects(pod, other) == (0, errno.EACCES)
        eth0.unlink()
        loopback.unlink()
        start.reached(lambda _: _addresses(start) == [()])
        assert _connects(pod, other) == (0, errno.EACCES)
        start.unbind(NAME)
        start.reached(lambda status: status.endpoints == 0)


def test_a_namespace_that_a_person_made_is_left_alone(start: Start) -> None:
    pod, other = start.node.pods
    start.reached(lambda status: status.synced and status.policies == 1)
    with other.started(traffic.listens(PORT)) as ready, other.started(traffic.listens(OTHER)) as also:
        ready(), also()
        start.bind(PLAIN, pod)
        start.bind(NAME, other)
        start.reached(lambda status: status.held_endpoints == 1)
        assert _connects(pod, other) == (0, 0)


def _connects(pod: node_.Guest, other: node_.Guest) -> tuple[int, int]:
    """Return how connecting to the port that the policy allows ends, and to the other."""
    allowed, denied = (pod.run(traffic.connects(other.address4, port)) for port in (PORT, OTHER))
    return allowed, denied


def _addresses(start: Start) -> list[tuple[str, ...]]:
    return [tuple(map(str, one.addresses)) for one in start.agent.endpoints()]
