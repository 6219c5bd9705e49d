"""The whole agent, fed by a real API server: what `status` says while the server is there, away and back."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from agent import errors, patience
from agent.rpc import client, views
from tests.kube import conftest, control, proxy

WAIT_S = 30.0


@contextlib.contextmanager
def agent(kubeconfig: pathlib.Path, home: pathlib.Path) -> Iterator[client.AgentClient]:
    """Run an agent that enforces nothing; yields a connection to it."""
    state, results = home / "state", home / "cni"
    results.mkdir()
    flags = ["--node", "n1", "--source", "kubernetes", "--kubeconfig", str(kubeconfig), "--engine", "memory"]
    flags += ["--state-dir", str(state), "--cni-results", str(results)]
    flags += ["--health-address", "none", "--metrics-address", "none"]
    command = [sys.executable, "-c", "from agent import daemon; daemon.main()", *flags]
    with (home / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, env=os.environ) as process:
        try:
            with contextlib.closing(client.AgentClient(state / "agent.sock")) as connected:
                yield connected
            process.terminate()
            assert process.wait(WAIT_S) == 0, (home / "log").read_text()
        finally:
            process.kill()


def until(asked: client.AgentClient, wanted: Callable[[views.Status], bool]) -> views.Status:
    """Return the first status that is as wanted."""
    deadline = time.monotonic() + patience.seconds(WAIT_S)
    status = None
    while time.monotonic() < deadline:
        with contextlib.suppress(errors.Unreachable):
            status = asked.status()
            if wanted(status):
                return status
        time.sleep(0.05)
    pytest.fail(f"not within {WAIT_S} s: {status}")


def test_an_agent_follows_the_api_server_and_keeps_its_policy_without_it(
    cluster: conftest.Cluster, plane: control.ControlPlane, proxied: proxy.Proxy, tmp_path: pathlib.Path
) -> None:
    kubeconfig = plane.kubeconfig(tmp_path / "kubeconfig", port=proxied.port)
    with agent(kubeconfig, tmp_path) as asked:
        first = until(asked, lambda status: bool(status.enforced_source_digest))
        assert first.source == "kubernetes"
        cluster.policy("deny", policyTypes=["Ingress"])
        second = until(asked, lambda status: status.enforced_source_digest != first.enforced_source_digest)
        proxied.answering = False
        proxied.cut()
        lost = until(asked, lambda status: "no answer for" in status.source)
        assert lost.enforced_source_digest == second.enforced_source_digest
        cluster.policy("later", policyTypes=["Egress"])
        proxied.answering = True
        until(
            asked,
            lambda status: (
                status.source == "kubernetes" and status.enforced_source_digest != second.enforced_source_digest
            ),
        )


def test_credentials_that_cannot_be_used_end_the_agent_in_one_line(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", "from agent import daemon; daemon.main()", "--node", "n1", "--source"]
    command += [
        "kubernetes",
        "--kubeconfig",
        str(tmp_path / "none"),
        "--engine",
        "memory",
        "--state-dir",
        str(tmp_path),
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert str(tmp_path / "none") in ended.stderr
