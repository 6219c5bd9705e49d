"""The bundle: whole with an agent, in part without one, and never a secret in it (CVE-2024-37307)."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tarfile
from collections.abc import Iterator

import pytest
from click import testing

from agent import audits
from agent.cli import main
from agent.cli.bundle import node, process
from agent.model import audit
from agent.observer import stream
from agent.rpc import details, getters
from tests.support import agents, served

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJub2Rld2FsbCJ9.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
KEY_BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEA"
KEY = f"-----BEGIN PRIVATE KEY-----\n{KEY_BODY}\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "MIIDXTCCAkWgAwIBAgIJAKl5qUQh"
PASSWORD = "correct-horse-battery-staple"
VARIABLE = "value-of-the-environment"
SECRETS = (TOKEN, KEY_BODY, CERTIFICATE, PASSWORD, VARIABLE, "c2lnbmF0dXJlLW9mLXRoZS10b2tlbg")


@pytest.fixture
def planted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Plant secrets wherever an agent has some: its files, its environment, what it logs, what it says went wrong."""
    home = tmp_path / "home"
    (home / "serviceaccount").mkdir(parents=True)
    (home / "serviceaccount" / "token").write_text(TOKEN)
    (home / "kubeconfig").write_text(f"users: [{{user: {{password: {PASSWORD}, token: {TOKEN}}}}}]\n")
    (home / "hubble").mkdir()
    (home / "hubble" / "tls.key").write_text(KEY)
    (home / "hubble" / "tls.crt").write_text(f"-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("KUBECONFIG", str(home / "kubeconfig"))
    monkeypatch.setenv("NODEWALL_PASSWORD", VARIABLE)
    log = home / "agent.log"
    said = {"event": "not connected", "error": f"401 {{'authorization': 'Bearer {TOKEN}'}} {KEY} password={PASSWORD}"}
    log.write_text(json.dumps(said) + "\n")
    monkeypatch.setattr(process, "log_tail", lambda _pid: log.read_text())
    monkeypatch.setattr(node, "chains", lambda: f'-A NW-X -m comment --comment "{TOKEN}"\n')
    return home


@pytest.fixture
def socket(planted: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    settings = (
        details.Setting(name="kubeconfig", value=str(planted / "kubeconfig"), origin="command line"),
        details.Setting(name="api-server", value=f"https://me:{PASSWORD}@api:6443", origin="command line"),
        details.Setting(name="hubble-certificates", value=str(planted / "hubble"), origin="command line"),
    )
    running = getters.Process(
        settings=lambda: settings,
        metrics=lambda: (details.MetricSample(name="up", kind="gauge", labels={"app": "kept"}, value=1),),
    )
    answering = served.Node(served.enforcement(), last_error=f"401: token={TOKEN}", source=f"kubernetes ({KEY})")
    flags = frozenset({audit.Target("x"), audit.Target("x", "to-b")})
    (tmp_path / "audit.json").write_text(
        json.dumps({"version": 1, "audit": [{"namespace": f"token={TOKEN}", "policy": ""}]})
    )
    ledger = audits.Ledger(file=tmp_path / "audit.json", given=audit.Audit(flags=flags), clock=agents.ManualClock())
    answering.audit = dataclasses.replace(answering.audit, ledger=ledger)
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish([agents.flow()])
    with served.agent(tmp_path / "agent.sock", answering, process=running, verdicts=verdicts) as path:
        yield path


def bundle(path: pathlib.Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as opened:
        for member in opened.getmembers():
            content = opened.extractfile(member)
            assert content is not None
            found[member.name.partition("/")[2]] = content.read()
    return found


def run(socket: pathlib.Path, path: pathlib.Path, *more: str) -> testing.Result:
    return testing.CliRunner().invoke(main.root, ["bugtool", "--socket", str(socket), "-o", str(path), *more])


@pytest.mark.parametrize("more", [(), ("--redact",)])
def test_no_secret_of_the_agent_is_in_the_bundle(
    socket: pathlib.Path, tmp_path: pathlib.Path, more: tuple[str]
) -> None:
    result = run(socket, tmp_path / "b.tar.gz", *more)
    assert result.exit_code == 0, result.output
    files = bundle(tmp_path / "b.tar.gz")
    for name, content in [*files.items(), ("output", result.output.encode())]:
        for secret in SECRETS:
            assert secret.encode() not in content, name
    assert b"kubeconfig" in files["agent/config.json"]  # the path, not the file


def test_the_bundle_has_what_the_agent_knows_and_a_manifest_of_it(socket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(socket, tmp_path / "b.tar.gz").exit_code == 0
    files = bundle(tmp_path / "b.tar.gz")
    manifest = json.loads(files["manifest.json"])
    listed = {item["name"] for item in manifest["items"] if item["error"] is None}
    assert listed == set(files) - {"manifest.json"}
    assert listed >= {f"agent/{name}.json" for name in ("status", "config", "endpoints", "policies", "services")}
    assert json.loads(files["agent/policies-in-words.json"])[0]["subject"] == "pods with app=a in x; isolates egress"
    assert json.loads(files["agent/verdicts.jsonl"])["destination"]["pod"] == "b"


@pytest.mark.parametrize("more", [(), ("--redact",)])
def test_the_bundle_has_what_is_in_audit_and_what_is_in_the_kernel(
    socket: pathlib.Path, tmp_path: pathlib.Path, more: tuple[str]
) -> None:
    assert run(socket, tmp_path / "b.tar.gz", *more).exit_code == 0
    files = bundle(tmp_path / "b.tar.gz")
    told = json.loads(files["agent/audit.json"])
    assert [(one["namespace"], one["policy"], one["means"]) for one in told["audit"]] == [
        ("x", "", "flag"),
        ("x", "to-b", "flag"),
    ]
    assert "audit.json cannot be read" in told["trouble"]
    kernel = json.loads(files["agent/maps.json"])
    held = {one["name"]: one["entries"] for one in kernel["inventory"]["tables"]}
    assert (kernel["mode"], held["endpoints"]) == ("memory", 2)
    assert held["policy"] > 0


def test_on_request_values_of_labels_are_hashes_everywhere(socket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run(socket, tmp_path / "b.tar.gz", "--redact").exit_code == 0
    files = bundle(tmp_path / "b.tar.gz")
    first, second = json.loads(files["agent/endpoints.json"])
    assert first["labels"]["app"].startswith("hash-")
    assert first["labels"]["app"] != second["labels"]["app"]
    assert "agent/log.txt" not in files
    assert "agent/policies-in-words.json" not in files
    assert json.loads(files["agent/metrics.json"]) == [["up", {"app": "kept"}, 1.0]]


def test_without_an_agent_there_is_a_bundle_of_the_node(tmp_path: pathlib.Path) -> None:
    result = run(tmp_path / "none.sock", tmp_path / "b.tar.gz")
    assert result.exit_code == 0
    assert "not collected: agent/status.json: no agent answers" in result.stderr
    files = bundle(tmp_path / "b.tar.gz")
    assert "node/kernel.json" in files
    assert not any(name.startswith("agent/") for name in files)


def test_a_file_that_is_there_is_refused_before_anything_is_collected(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b.tar.gz").touch()
    assert run(tmp_path / "none.sock", tmp_path / "b.tar.gz").exit_code == 2


def test_a_bundle_can_go_to_stdout_where_no_file_can_be_written(socket: pathlib.Path, tmp_path: pathlib.Path) -> None:
    result = run(socket, pathlib.Path("-"))
    assert result.exit_code == 0
    (tmp_path / "b.tar.gz").write_bytes(result.stdout_bytes)
    assert "manifest.json" in bundle(tmp_path / "b.tar.gz")
    assert "items" in result.stderr
