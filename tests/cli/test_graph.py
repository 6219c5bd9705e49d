"""`agentctl graph` from manifests and a recording."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator

import click.testing
import pytest

from agent.cli import main
from agent.rpc import client, views
from agent.sources import manifests
from tests.flows import demo
from tests.graph import town
from tests.hubble import stock, variety

ENTRIES: list[views.AuditEntry] = []
"""What the agent that is served says is in audit."""
DEMO = pathlib.Path(__file__).parents[2] / "agent" / "lab" / "demo"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("graph") / "flows.jsonl"
    path.write_text("".join(line + "\n" for line in town.demo_lines()))
    return path


def run(*words: str | pathlib.Path, stdin: bytes | None = None) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main.root, ["graph", *map(str, words)], input=stdin)


def test_the_terminal_picture_names_policies_and_counts(recording: pathlib.Path) -> None:
    result = run("--offline", "-f", DEMO, "--flows", recording)
    assert result.exit_code == 0, result.output
    assert "╌╌✕ backend        8080                    12 denied     shop/default-deny" in result.output
    assert all(len(line) <= 120 for line in result.output.splitlines())


@pytest.mark.parametrize(
    ("form", "begin"), [("svg", "<svg "), ("html", "<!doctype html>"), ("json", "{"), ("dot", "digraph")]
)
def test_each_form_can_be_written_to_a_file(
    recording: pathlib.Path, tmp_path: pathlib.Path, form: str, begin: str
) -> None:
    result = run("--offline", "-f", DEMO, "--flows", recording, "-o", form, "--out", tmp_path / "picture")
    assert (result.exit_code, result.output) == (0, "")
    assert (tmp_path / "picture").read_text().startswith(begin)


def test_a_recording_may_come_by_a_pipe_and_without_policies(recording: pathlib.Path) -> None:
    result = run("--flows", "-", "-o", "json", stdin=recording.read_bytes())
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["policies"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--offline",), "give -f manifests"),
        (("--offline", "-f", str(DEMO), "-n", "nowhere"), "no pod and no verdict there"),
    ],
)
def test_a_graph_of_nothing_is_refused(words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert said in result.output


def test_a_file_that_cannot_be_written_is_named(recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = run("--flows", recording, "--out", tmp_path / "none" / "picture")
    assert result.exit_code == 2
    assert "--out" in result.output


@pytest.fixture(name="socket")
def answering(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Serve verdicts as an agent does; what it enforces is the demo, whoever asks."""
    monkeypatch.setattr(client.AgentClient, "snapshot", lambda _: manifests.load([DEMO]))
    monkeypatch.setattr(client.AgentClient, "status", lambda _: views.Status(node="node-2", version="7", mode="memory"))
    monkeypatch.setattr(client.AgentClient, "audit", lambda _: (ENTRIES, ""))
    with stock.Cli(pathlib.Path("hubble"), tmp_path / "state" / "hubble.sock", tmp_path).served() as agent:
        agent.verdicts.publish([one.event for one in variety.flows(40)])
        yield tmp_path / "state" / "agent.sock"


def test_a_live_agent_is_asked_for_policies_and_verdicts(socket: pathlib.Path) -> None:
    document = json.loads(run("--socket", socket, "-o", "json").output)
    assert document["policies"] == len(demo.policies())
    assert document["verdicts"] > 0
    assert {edge["state"] for edge in document["edges"]} >= {"seen", "denied", "unseen"}


def test_manifests_take_the_place_of_the_agents(socket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    one = demo.write(tmp_path / "one", demo.policies()[:1])
    document = json.loads(run("--socket", socket, "-f", one, "-o", "json").output)
    assert document["policies"] == 1
    assert document["verdicts"] > 0


def test_recordings_are_narrowed_as_everywhere(recording: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def verdicts(*words: str | pathlib.Path) -> int:
        result = run("--flows", recording, *words, "-o", "json")
        assert result.exit_code == 0, result.output
        return int(json.loads(result.output)["verdicts"])

    broken = tmp_path / "broken"
    broken.write_text("no json\n")
    assert run("--flows", recording, "--flows", broken).exit_code == 2
    assert verdicts("--flows", broken, "--skip-malformed") == verdicts() > 0
    assert run("--flows", recording, "--since", "2099-01-01").exit_code == 1


def test_what_the_agent_has_in_audit_is_drawn_for_its_own_node(
    socket: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule A51."""
    entry = views.AuditEntry(namespace="shop", policy="", means="command", since_unix_ns=1, policies=4, would_deny=0)
    monkeypatch.setattr("tests.cli.test_graph.ENTRIES", [entry])
    document = json.loads(run("--socket", socket, "-o", "json").output)
    names = [node["name"] for node in document["nodes"]]
    audited = {(names[one["source"]], names[one["target"]]) for one in document["edges"] if one["state"] == "audit"}
    assert ("ingress", "backend") not in audited, "the ingress's own node enforces its policies"
    assert ("intruder", "backend") in audited


def test_manifests_are_drawn_with_what_the_flags_put_into_audit(recording: pathlib.Path) -> None:
    """Rule A51."""
    words = ("--offline", "-f", DEMO, "--flows", recording)
    assert run(*words, "--audit-namespace", "shop").output != run(*words).output
    document = json.loads(run("--offline", "-f", DEMO, "--audit-namespace", "shop", "-o", "json").output)
    assert "audit" in {edge["state"] for edge in document["edges"]}
    refused = run("--flows", recording, "--audit-namespace", "shop")
    assert refused.exit_code == 2
    assert "--audit-namespace: 'given without -f' is not valid: give manifests with -f" in refused.output
    assert run("--offline", "-f", DEMO, "--audit-policy", "shop/none").exit_code == 2
