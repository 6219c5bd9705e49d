"""The agent as a process: start, lock, signals, restart, and one line where it cannot run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from agent import errors
from agent.rpc import client, views

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: x, uid: u, labels: {app: a}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: x}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
WAIT_S = 15.0


@dataclasses.dataclass
class Agent:
    """Agents on one state directory, with the datapath that enforces nothing."""

    directory: pathlib.Path
    runtime: pathlib.Path | None = None
    running: list[subprocess.Popen[str]] = dataclasses.field(default_factory=list)

    @property
    def socket(self) -> pathlib.Path:
        return self.directory / "state" / "agent.sock"

    @property
    def manifests(self) -> pathlib.Path:
        return self.directory / "manifests"

    def start(self, *more: str) -> subprocess.Popen[str]:
        flags = {"--node": "n1", "--source": self.manifests, "--state-dir": self.directory / "state"}
        flags |= {"--cni-results": self.directory / "cni", "--engine": "memory"}
        flags |= {"--netns-dir": self.directory / "netns", "--cri-socket": self.runtime or "none"}
        flags |= {"--health-address": "none", "--metrics-address": "none"}  # agents of other tests run beside this one
        command = [sys.executable, "-m", "agent.daemon", *(str(word) for pair in flags.items() for word in pair), *more]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def reached(self, digest_was: str = "") -> views.Status:
        """Wait until the agent enforces something, and something other than `digest_was`."""
        deadline = time.monotonic() + WAIT_S
        with client.AgentClient(self.socket) as agent:
            while time.monotonic() < deadline:
                try:
                    status = agent.status()
                except errors.Unreachable:
                    pass
                else:
                    if status.enforced_source_digest not in {"", digest_was} and not status.last_error:
                        return status
                time.sleep(0.02)
        raise AssertionError("the agent did not come to enforce its manifests")


@pytest.fixture
def agent(tmp_path: pathlib.Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    for directory in (made.manifests, tmp_path / "cni", tmp_path / "netns"):
        directory.mkdir()
    (made.manifests / "all.yaml").write_text(MANIFEST)
    yield made
    for process in made.running:
        process.kill()
        process.communicate()


def free_ports(count: int) -> tuple[int, ...]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return tuple(one.getsockname()[1] for one in sockets)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, text = process.communicate(timeout=WAIT_S)
    return process.returncode, text


def test_an_agent_enforces_its_manifests_answers_and_ends_at_sigterm(agent: Agent) -> None:
    process = agent.start()
    status = agent.reached()
    assert (status.node, status.mode, status.policies, status.synced) == ("n1", "memory", 1, True)
    process.send_signal(signal.SIGTERM)
    code, log = ended(process)
    assert code == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["started", "policy enforced", "ended; the policy stays in force"]
    assert not agent.socket.exists()


def test_kubelet_and_prometheus_are_answered(agent: Agent) -> None:
    health, metrics = free_ports(2)
    agent.start("--health-address", f"127.0.0.1:{health}", "--metrics-address", f"[::1]:{metrics}")
    agent.reached()
    for path in ("livez", "readyz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{health}/{path}") as answer:
            assert answer.read() == b"ok\n"
    with urllib.request.urlopen(f"http://[::1]:{metrics}/metrics") as answer:
        text = answer.read().decode()
    assert 'nodewall_policies{kind="NetworkPolicy"} 1.0' in text
    assert "nodewall_ready 1.0" in text
    with client.AgentClient(agent.socket) as asking:
        assert asking.status().not_ready == ()


def test_a_collector_that_nobody_answers_for_delays_neither_the_start_nor_the_end(agent: Agent) -> None:
    metrics, nobody = free_ports(2)
    process = agent.start("--otlp-endpoint", f"http://127.0.0.1:{nobody}", "--metrics-address", f"127.0.0.1:{metrics}")
    agent.reached()
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as answer:
        assert "nodewall_otlp_queue_records 0.0" in answer.read().decode()
    process.send_signal(signal.SIGTERM)
    code, log = ended(process)
    assert code == 0
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "ended; the policy stays in force"


def test_nothing_of_open_telemetry_is_imported_unless_a_collector_is_named() -> None:
    look = "import sys, agent.daemon; print([name for name in sys.modules if 'otlp' in name or 'telemetry.' in name])"
    found = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_an_address_that_is_taken_is_one_line_that_names_the_flag(agent: Agent) -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        code, text = ended(agent.start("--health-address", f"127.0.0.1:{port}"))
    assert code == 1
    assert text.splitlines()[-1].startswith(f"nodewall-agent: --health-address: '127.0.0.1:{port}'")


def test_a_changed_manifest_is_enforced_and_a_broken_one_takes_nothing_out_of_force(agent: Agent) -> None:
    agent.start()
    first = agent.reached()
    (agent.manifests / "more.yaml").write_text(MANIFEST.split("---")[1].replace("deny", "other"))
    second = agent.reached(first.enforced_source_digest)
    assert second.policies == 2
    (agent.manifests / "more.yaml").write_text("{")
    third = agent.reached(second.enforced_source_digest)
    assert third.policies == 2
    assert any("more.yaml" in str(problem.ref) for problem in third.problems)


def test_a_runtime_that_does_not_answer_is_told_once_and_changes_nothing(agent: Agent) -> None:
    agent.runtime = agent.directory / "cri.sock"
    process = agent.start()
    agent.reached()
    deadline = time.monotonic() + WAIT_S
    with client.AgentClient(agent.socket) as asking:
        while asking.status().counters.get("runtime_unanswered", 0) <= 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert asking.status().problems == ()
    process.send_signal(signal.SIGTERM)
    code, log = ended(process)
    lines = [json.loads(line) for line in log.splitlines()]
    told = [line["error"] for line in lines if line["event"].startswith("not answering")]
    assert (code, len(told)) == (0, 1)
    assert "cri.sock" in told[0]


def test_sighup_reads_every_input_again(agent: Agent) -> None:
    process = agent.start()
    first = agent.reached()
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + WAIT_S
    with client.AgentClient(agent.socket) as asking:
        while asking.status().enforced_revision < first.revision + 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_second_agent_on_one_state_directory_is_refused_and_names_the_first(agent: Agent) -> None:
    first = agent.start()
    agent.reached()
    code, text = ended(agent.start())
    assert code == 1
    assert text.startswith("nodewall-agent: --state-dir:")
    assert f"process id {first.pid} " in text
    assert agent.reached().node == "n1"


def test_after_a_kill_the_next_agent_takes_over_lock_and_socket(agent: Agent) -> None:
    process = agent.start()
    agent.reached()
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    assert agent.socket.exists()
    agent.start()
    assert agent.reached().policies == 1


def test_wrong_flags_are_one_line_and_2(agent: Agent) -> None:
    code, text = ended(agent.start("--node", "UPPER"))
    assert (code, text.count("\n")) == (2, 1)


def test_an_engine_that_was_asked_for_and_cannot_run_is_one_line_and_no_other_engine(agent: Agent) -> None:
    code, text = ended(agent.start("--engine", "nfbpf", "--bpffs", str(agent.directory)))
    assert (code, text.count("\n")) == (1, 1)
    assert "nodewall-agent: " in text
    assert "is not available: it needs" in text


def test_uninstall_can_be_repeated_and_is_refused_while_an_agent_runs(agent: Agent) -> None:
    flags = ["uninstall", "--node", "n1", "--state-dir", str(agent.directory / "state"), "--engine", "memory"]
    command = [sys.executable, "-m", "agent.daemon", *flags]
    for _ in range(2):
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0
        assert not list((agent.directory / "state").iterdir()), "nor is the lock left"
    agent.start()
    agent.reached()
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "stop it" in refused.stderr
    agent.running[-1].kill()
    agent.running[-1].wait()
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert not list((agent.directory / "state").iterdir()), "nor a killed agent's socket and copies"


@pytest.mark.root
def test_an_agent_without_privileges_says_which_and_what_to_do(agent: Agent) -> None:
    flags = ["--node", "n1", "--source", str(agent.manifests), "--state-dir", str(agent.directory / "own")]
    command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", sys.executable, "-m", "agent.daemon", *flags]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "HOME": "/"})
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "CAP_BPF: run as root" in refused.stderr
