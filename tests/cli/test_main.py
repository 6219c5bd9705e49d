"""agentctl against the real API on a real socket."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import yaml
from click import testing

from agent import errors
from agent.cli import connection, main, status
from agent.lab import rundir
from agent.observer import stream
from agent.rpc import agent_server, service, views
from tests.rpc import test_agent_server
from tests.support import agents


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Serve an agent with two endpoints and a verdict in a thread."""
    path = tmp_path_factory.mktemp("state") / "agent.sock"
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish([agents.flow()])
    serving, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        node = test_agent_server.Node(test_agent_server.enforcing())
        api = service.AgentService(node=node, stream=verdicts, kernel=agents.kernel(node, verdicts))
        async with agent_server.serving(api, path):
            serving.set()
            await stopped.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert serving.wait(10)
    yield path
    loop.call_soon_threadsafe(stopped.set)
    thread.join()
    loop.close()


def run(*arguments: str, environment: dict[str, str] | None = None) -> testing.Result:
    return testing.CliRunner().invoke(main.root, arguments, env=environment)


def asked(socket: pathlib.Path, *arguments: str) -> str:
    result = run(*arguments, "--socket", str(socket))
    assert result.exit_code == 0, result.output
    return result.output


def test_every_verb_of_the_help_exists_and_help_imports_none_of_them() -> None:
    for verb in main.VERBS:
        assert run(verb, "--help").exit_code == 0, verb
    script = (
        "import sys; from agent.cli import main; main.root(['--help'], standalone_mode=False); "
        "sys.exit(any(name in sys.modules for name in ('grpc', 'rich', 'yaml', 'asyncio')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, capture_output=True).returncode == 0


def test_endpoints_are_listed_with_what_isolates_them(socket: pathlib.Path) -> None:
    lines = asked(socket, "endpoint", "list").splitlines()
    assert lines[1].split() == ["x", "a", "10.0.0.2", "300", "isolated", "open", "deny", "-"]
    (first, _) = json.loads(asked(socket, "endpoint", "list", "-o", "json"))["endpoints"]
    assert first["ingress_policies"] == [{"kind": "NetworkPolicy", "namespace": "x", "name": "deny"}]


def test_policies_and_identities_are_listed_in_every_form(socket: pathlib.Path) -> None:
    assert asked(socket, "policy", "list").splitlines()[1].split()[:4] == ["x", "deny", "NetworkPolicy", "ingress"]
    assert yaml.safe_load(asked(socket, "policy", "list", "-o", "yaml"))["policies"][0]["selected_endpoints"] == 2
    assert json.loads(asked(socket, "identity", "list", "-o", "json")) == {"identities": []}


def test_an_agent_that_is_not_in_sync_is_no_success(socket: pathlib.Path) -> None:
    result = run("status", "--brief", "--socket", str(socket))
    assert result.exit_code == 5
    assert "waiting for the first whole list" in result.output
    assert run("status", "--wait", "0.1", "--socket", str(socket)).exit_code == 5
    document = json.loads(run("status", "-o", "json", "--socket", str(socket)).output)
    assert document["ok"] is False
    assert document["status"]["generation"] == 2


def test_status_is_ok_when_the_present_inputs_are_enforced() -> None:
    good = views.Status(node="n", version="v", mode="m", synced=True, revision=2, enforced_revision=2)
    assert status.pending(good) == ""
    lines = list(status.lines(good, unix_ns=5))
    assert lines[0][0] == "n"
    assert "OK" in lines[0][1]


def test_status_names_the_iptables_and_the_last_repair_and_a_repair_that_fails_is_no_success() -> None:
    good = views.Status(node="n", version="v", mode="socket+iptables", synced=True, iptables="nft")
    shown = dict(status.lines(good, unix_ns=5))
    assert shown["engine"].startswith("socket+iptables (nft), ")
    assert "repaired" not in shown
    repaired = dataclasses.replace(good, last_repair="IPv4 filter: rewrote NW-FORWARD", last_repair_unix_ns=5)
    assert dict(status.lines(repaired, unix_ns=2 * 10**9 + 5))["repaired"].endswith("rewrote NW-FORWARD, 2.0 s ago")
    assert status.pending(repaired) == ""
    assert "not put right: locked" in status.pending(dataclasses.replace(good, repair_error="locked"))


def test_status_says_whether_the_agent_is_ready_and_why_not() -> None:
    good = views.Status(node="n", version="v", mode="m", synced=True)
    assert dict(status.lines(good, unix_ns=5))["ready"] == "yes"
    bad = dataclasses.replace(good, not_ready=("datapath: the pin /x\x1b is gone",))
    assert "datapath: the pin /x\\x1b is gone" in dict(status.lines(bad, unix_ns=5))["ready"]


def test_status_says_what_was_proved_and_how() -> None:
    shown = [
        *status.lines(views.Status(node="n", version="v", mode="m", proved=("by function: a", "b\x1b")), unix_ns=5)
    ]
    assert ("proved", "by function: a") in shown
    assert ("", "b\\x1b") in shown


def test_without_an_agent_there_is_one_line_and_exit_code_4(tmp_path: pathlib.Path) -> None:
    result = run("status", "--state-dir", str(tmp_path))
    assert result.exit_code == 4
    assert result.stderr.startswith(f"agentctl: no agent answers on {tmp_path / 'agent.sock'}")
    assert run("status", environment={"NODEWALL_SOCKET": str(tmp_path / "x.sock")}).exit_code == 4


def find(lab: str | None = None, node: str | None = None, variable: str | None = None) -> pathlib.Path:
    return connection.find(socket=None, state_dir=None, lab=lab, node=node, variable=variable)


def test_the_agent_is_found_by_lab_and_node_and_alone_without(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "ROOT", tmp_path)
    monkeypatch.setattr(connection, "DEFAULT", tmp_path / "none")
    assert find() == tmp_path / "none"
    with pytest.raises(errors.InvalidInput, match="this machine has no agent"):
        find(lab="one")
    sockets = {}
    for lab, node in (("one", "n1"), ("one", "n2"), ("two", "n1")):
        sockets[lab, node] = tmp_path / lab / "nodes" / node / "state" / "agent.sock"
        sockets[lab, node].parent.mkdir(parents=True)
        sockets[lab, node].touch()
        if len(sockets) == 1:
            assert find() == sockets[lab, node]
    assert find(lab="two") == sockets["two", "n1"]
    assert find(node="n2") == sockets["one", "n2"]
    assert find(lab="one", node="n1", variable="/other") == sockets["one", "n1"]
    assert find(variable="/other") == pathlib.Path("/other")
    with pytest.raises(errors.InvalidInput, match="--lab one --node n2"):
        find(lab="one")
    with pytest.raises(errors.InvalidInput, match="no agent runs there"):
        find(node="../n1")


def test_an_agent_that_is_not_ready_is_not_in_order() -> None:
    bad = views.Status(node="n", version="v", mode="m", synced=True, not_ready=("datapath: the pin /x\x1b is gone",))
    assert status.pending(bad) == "not ready: datapath: the pin /x\\x1b is gone"


def test_a_watched_status_is_a_line_whenever_it_is_another(
    socket: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = iter([None, None])

    def sleep(_seconds: float) -> None:
        if next(waits, "over") == "over":
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    result = run("status", "--watch", "--socket", str(socket))
    assert result.exit_code == 0
    assert result.output.count("waiting for the first whole list") == 1
