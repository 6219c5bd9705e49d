"""A real containerd: one pod and one pod on the node's network, known by the CNI cache and by CRI alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from agent import errors, patience
from agent.node.cri import client, messages, wire
from agent.rpc import client as agent_client
from agent.rpc import details
from tests.cluster import archives, node, programs, settings
from tests.node.cri import answers

pytestmark = pytest.mark.root

WAIT_S = 30.0
GROUP = f"nodewall-test-{os.getpid()}"
PRIVATE = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir /run/netns || exit 1
mkdir -p /var/lib/cni && mount -t tmpfs tmpfs /var/lib/cni && exec containerd -c "$0"
"""
"""What containerd has in one place for the whole machine is this one's own."""
SLOW = f"""#!{sys.executable} -IS
import json, os, sys, time
given = json.load(sys.stdin)
if os.environ["CNI_COMMAND"] == "ADD":
    time.sleep(0.5)
    print(json.dumps(given["prevResult"]))
"""
"""A CNI plugin that takes its time, as those do that ask an API: what it says is cached when it has ended."""
MANIFEST = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Containerd:
    """One that runs, in a mount and a network namespace of its own."""

    directory: pathlib.Path
    pid: int

    @property
    def socket(self) -> pathlib.Path:
        return self.directory / "containerd.sock"

    def call(self, method: str, request: bytes) -> bytes:
        """Call a method of CRI that the agent has no use for."""
        with grpc.insecure_channel(f"unix://{self.socket}", options=[("grpc.default_authority", "localhost")]) as way:
            ask = way.unary_unary(messages.SERVICE + method, request_serializer=None, response_deserializer=None)
            answer: bytes = ask(request, timeout=patience.seconds(WAIT_S))
        return answer

    @contextlib.contextmanager
    def pod(self, name: str, *, host_network: bool = False) -> Iterator[str]:
        """Run a pod's sandbox; the value is its id."""
        metadata = answers.text(1, name) + answers.text(2, f"uid-{name}") + answers.text(3, "x")
        options = wire.delimited(1, wire.number(1, 2)) if host_network else b""
        linux = answers.text(1, f"/{GROUP}") + wire.delimited(2, options)
        config = wire.delimited(1, metadata) + answers.text(3, str(self.directory / "logs")) + wire.delimited(8, linux)
        key = wire.text(self.call("RunPodSandbox", wire.delimited(1, config)), 1)
        try:
            yield key
        finally:
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                self.call(method, answers.text(1, key))

    @contextlib.contextmanager
    def agent(self, name: str, *more: str) -> Iterator[agent_client.AgentClient]:
        """Run an agent where containerd is, that enforces nothing."""
        source, state = self.directory / "source", self.directory / name
        flags = {"--node": "n1", "--source": source, "--state-dir": state, "--engine": "memory", "--hold": "strict"}
        flags |= {"--health-address": "none", "--metrics-address": "none"}
        flags["--log-level"] = "debug"
        run = [sys.executable, "-m", "agent.daemon", *(str(word) for pair in flags.items() for word in pair), *more]
        with (self.directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(["nsenter", "-t", str(self.pid), "-m", "-n", *run], stderr=log)
        try:
            with agent_client.AgentClient(state / "agent.sock") as asking:
                yield asking
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def containerd(tmp_path: pathlib.Path) -> Iterator[Containerd]:
    try:
        for program in ("containerd", "runc", "ctr", "busybox"):
            programs.system(program)
        configuration = _configure(tmp_path)
    except programs.Missing as missing:
        pytest.skip(str(missing))
    with (tmp_path / "log").open("wb") as log:
        command = ["unshare", "--mount", "--net", "sh", "-c", PRIVATE, str(configuration)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    made = Containerd(directory=tmp_path, pid=process.pid)
    try:
        _import_image(made)
        yield made
    finally:
        process.terminate()
        process.wait()
        print((tmp_path / "log").read_text(errors="replace")[-4000:])
        for group in pathlib.Path("/sys/fs/cgroup").glob(f"**/{GROUP}"):
            for directory in (*sorted(group.glob("**/"), reverse=True),):
                directory.rmdir()


def _programs(directory: pathlib.Path) -> pathlib.Path:
    """Put the CNI plugins into a directory, with the slow one."""
    directory.mkdir()
    for program in programs.plugins().iterdir():
        (directory / program.name).symlink_to(program)
    (directory / "slow").write_text(SLOW)
    (directory / "slow").chmod(0o755)
    return directory


def _configure(directory: pathlib.Path) -> pathlib.Path:
    for name in ("cni", "source"):
        (directory / name).mkdir()
    (directory / "source" / "all.yaml").write_text(MANIFEST)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/24"}]], "dataDir": str(directory / "addresses")}
    plugins = [{"type": "ptp", "ipam": ipam}, {"type": "slow"}]
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}
    (directory / "cni" / "10-pods.conflist").write_text(json.dumps(network))
    runtime = {"runtime_type": "io.containerd.runc.v2", "options": {"BinaryName": str(node.runc())}}
    cri = {
        "sandbox_image": settings.SANDBOX_IMAGE,
        "restrict_oom_score_adj": True,
        "cni": {"bin_dir": str(_programs(directory / "plugins")), "conf_dir": str(directory / "cni")},
        "containerd": {"runtimes": {"runc": runtime}, "snapshotter": "native"},
    }
    content: dict[str, object] = {"version": 2, "root": str(directory / "root"), "state": str(directory / "running")}
    content |= {"grpc": {"address": str(directory / "containerd.sock")}, "plugins": {"io.containerd.grpc.v1.cri": cri}}
    (directory / "containerd.toml").write_text(node.toml(content))
    return directory / "containerd.toml"


def _import_image(made: Containerd) -> None:
    archive = made.directory / "sandbox.tar"
    box = {"bin/busybox": pathlib.Path(programs.system("busybox"))}
    sleep = ["/bin/sleep", "infinity"]
    archives.write(archive, name=settings.SANDBOX_IMAGE, files=box, links={"bin/sleep": "busybox"}, entrypoint=sleep)
    _until(made.socket.exists)
    ctr = ["ctr", "-a", str(made.socket), "-n", "k8s.io", "images", "import", "--snapshotter", "native", str(archive)]
    subprocess.run(ctr, check=True, stdout=subprocess.DEVNULL)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience.seconds(WAIT_S)
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _endpoints(asking: agent_client.AgentClient) -> tuple[details.Endpoint, ...]:
    try:
        return tuple(asking.endpoints())
    except errors.Unreachable:
        return ()


def test_a_real_runtime_is_understood_and_says_what_the_cache_says(containerd: Containerd) -> None:
    with containerd.pod("a") as pod, containerd.pod("h", host_network=True) as host:
        with client.Client(containerd.socket) as asked:
            assert {one.id: one.pod for one in asked.list()} == {pod: "a", host: "h"}
            found, other = asked.status(pod), asked.status(host)
            assert found is not None
            assert other is not None
            assert (found.host_network, len(found.addresses), len(found.host_interfaces)) == (False, 1, 1)
            assert (other.host_network, other.netns, asked.status("nobody")) == (True, None, None)
        with containerd.agent("by-cache", "--cri-socket", "none") as asking:
            _until(lambda: bool(_endpoints(asking)))
            (by_cache,) = _endpoints(asking)
        nowhere = str(containerd.directory / "nowhere")
        with containerd.agent("by-cri", "--cni-results", nowhere, "--cri-socket", str(containerd.socket)) as asking:
            _until(lambda: bool(_endpoints(asking)))
            assert _endpoints(asking) == (by_cache,)
    assert (by_cache.namespace, by_cache.pod, by_cache.uid) == ("x", "a", "uid-a")
    assert all((by_cache.addresses, by_cache.netns_cookie, by_cache.veth_ifindex))


def test_a_real_pod_is_known_by_its_namespace_first_and_gone_with_it(containerd: Containerd) -> None:
    """Rules A45 and A49."""
    with containerd.agent("watching", "--cri-socket", str(containerd.socket)) as asking:
        _until(lambda: _enforced(asking))
        with containerd.pod("a"):
            _until(lambda: any(one.addresses for one in _endpoints(asking)))
            (found,) = _endpoints(asking)
            assert (found.pod, found.held) == ("a", True), "no API knows it"
        _until(lambda: not _endpoints(asking))
    lines = map(json.loads, (containerd.directory / "watching.log").read_text().splitlines())
    told = [line for line in lines if line.get("netns_cookie") == found.netns_cookie]
    events = dict.fromkeys(line["event"] for line in told)
    assert tuple(events) == ("network namespace of nobody yet", "pod found", "pod gone")
    assert "cni-" in told[0]["netns"]


def _enforced(asking: agent_client.AgentClient) -> bool:
    try:
        return asking.status().enforced_unix_ns > 0
    except errors.Unreachable:
        return False
