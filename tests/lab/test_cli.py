"""`agentctl lab` as people call it."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from agent.lab import kernel, lab, rundir
from tests.lab import manifests

AGENTCTL = [sys.executable, "-c", "from agent.cli import main; main.main()", "lab"]
PODS = [manifests.pod("a", ports=("80/TCP",)), manifests.pod("b", node="node-2", ports=("80/TCP", "53/UDP"))]
DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "x"},
    "spec": {"podSelector": {}},
}


def _agentctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AGENTCTL, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(PODS))
    return tmp_path


@pytest.fixture
def name() -> Iterator[str]:
    chosen = f"cli-{os.getpid()}"
    yield chosen
    lab.Lab(name=chosen).down()


def test_help_names_every_verb() -> None:
    shown = _agentctl("--help").stdout
    assert all(verb in shown for verb in ("up", "down", "apply", "exec", "status", "probe", "demo"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up", "-f", "/no/such/file"], "name a manifest or a directory"),
        (["up", "-f", ".", "--engine", "memory"], "choose auto, nfbpf, socket+iptables or iptables"),
        (["up", "-f", ".", "--iptables", "nftables"], "choose auto, legacy or nft"),
        (["up", "-f", ".", "--families", "ipv5"], "write ipv4, ipv6 or both"),
        (["up", "-f", ".", "--name", "../x"], "lower case letters"),
        (["probe", "--port", "x"], "write a number and TCP, UDP or SCTP"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    done = _agentctl(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_lab_that_is_not_there_is_said_so() -> None:
    for verb in (["status"], ["probe"], ["exec", "x/a", "true"]):
        done = _agentctl(verb[0], "--name", "no-such-lab", *verb[1:])
        assert (done.returncode, "there is no lab 'no-such-lab'" in done.stderr) == (1, True)


@pytest.mark.root
def test_up_probe_apply_exec_status_down(directory: pathlib.Path, name: str) -> None:
    assert _agentctl("up", "-f", str(directory), "--name", name, "--no-agents").returncode == 0
    probed = _agentctl("probe", "--name", name, "-o", "json")
    assert probed.returncode == 0, probed.stderr
    document = json.loads(probed.stdout)
    assert {(one["from"], one["to"], one["port"], one["allowed"]) for one in document["probes"]} == {
        ("x/a", "x/b", 53, True),
        ("x/a", "x/b", 80, True),
        ("x/b", "x/a", 80, True),
    }
    (directory / "policy.json").write_text(json.dumps(DENY))
    assert _agentctl("apply", "-f", str(directory), "--name", name).returncode == 0
    wrong = _agentctl("probe", "--name", name, "--port", "80/TCP", "--timeout", "0.2")  # nobody enforces it
    assert wrong.returncode == 3
    assert "disagrees: x/a should not reach x/b on 80/TCP" in wrong.stdout
    assert "2 disagree with the policies" in wrong.stdout
    assert _agentctl("exec", "--name", name, "x/a", "--", "sh", "-c", "exit 9").returncode == 9
    status = json.loads(_agentctl("status", "--name", name, "-o", "json").stdout)
    assert [node["node"] for node in status["nodes"]] == ["node-1", "node-2"]
    assert _agentctl("down", "--name", name).stdout == f"lab {name} is removed\n"


@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_is_taken_down(directory: pathlib.Path, name: str, number: signal.Signals) -> None:
    paths = rundir.RunDirectory(name)
    command = [*AGENTCTL, "up", "-f", str(directory), "--name", name, "--no-agents"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not paths.fabric.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        status = process.wait()
    assert status != 0
    assert not paths.path.exists()
    assert not paths.cgroup.exists()
    assert not kernel.mounts_below(paths.path)
