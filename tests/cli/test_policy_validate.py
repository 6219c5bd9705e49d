"""`policy validate`: every problem of every file before anybody applies it, and how it stands to what is enforced."""

from __future__ import annotations

import json
import pathlib

import pytest
from click import testing

from agent.cli import main
from tests.decode import samples
from tests.support import served

GOOD = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-a, namespace: x}
spec:
  podSelector: {matchLabels: {app: a}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: b}}}]}]
"""
BAD = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: "bad\\x1b", namespace: x}
spec:
  podSelector: {}
  ingress:
  - from: [{ipBlock: {cidr: 10.0.0.0/33}}]
    ports: [{port: 70000}]
"""
NEW = GOOD.replace("from-a", "new")


@pytest.fixture
def files(tmp_path: pathlib.Path) -> pathlib.Path:
    directory = tmp_path / "manifests"
    directory.mkdir()
    for name, text in (("good.yaml", GOOD), ("bad.yaml", BAD), ("broken.yaml", "a: [")):
        (directory / name).write_text(text)
    return directory


def run(*arguments: str) -> testing.Result:
    return testing.CliRunner().invoke(main.root, ["policy", "validate", *arguments])


def test_a_good_policy_is_no_problem_and_needs_no_agent(files: pathlib.Path) -> None:
    result = run("-f", str(files / "good.yaml"))
    assert (result.exit_code, result.output) == (0, "1 policy, no problem\n")


def test_every_problem_of_every_file_is_told_and_exit_code_2(files: pathlib.Path) -> None:
    result = run("-f", str(files))
    assert result.exit_code == 2
    assert "spec.ingress[0].from[0].ipBlock.cidr" in result.output
    assert "spec.ingress[0].ports[0].port" in result.output
    assert "broken.yaml" in result.output
    assert "2 policies, 3 problems" in result.output
    assert "\x1b" not in result.output
    document = json.loads(run("-f", str(files), "-o", "json").output)
    assert document["valid"] is False
    assert {problem["path"] for problem in document["problems"]} >= {"spec.ingress[0].ports[0].port"}


def test_manifests_may_come_by_a_pipe(files: pathlib.Path) -> None:
    words = ["policy", "validate", "-f", "-", "-f", str(files / "bad.yaml")]
    result = testing.CliRunner().invoke(main.root, words, input=GOOD)
    assert result.exit_code == 2
    assert "2 policies, 2 problems" in result.output
    result = testing.CliRunner().invoke(main.root, ["policy", "validate", "-f", "-"], input="a: [")
    assert result.exit_code == 2
    assert "File -" in result.output


def test_a_file_that_is_not_there_is_usage(tmp_path: pathlib.Path) -> None:
    assert run("-f", str(tmp_path / "none.yaml")).exit_code == 2


def test_against_an_agent_it_says_what_is_new_and_whom_it_selects(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (files / "new.yaml").write_text(NEW)
    (files / "other.yaml").write_text(GOOD.replace("from-a", "to-b"))
    with served.agent(tmp_path / "s", served.Node(served.enforcement())) as path:
        arguments = [word for name in ("good", "new", "other") for word in ("-f", str(files / f"{name}.yaml"))]
        result = run(*arguments, "--live", "--socket", str(path), "-o", "json")
    assert result.exit_code == 0
    found = {one["policy"]["name"]: (one["in_force"], one["selects"]) for one in json.loads(result.output)["live"]}
    assert found == {"from-a": ("same", ["x/a"]), "new": ("new", ["x/a"]), "to-b": ("another", ["x/a"])}


def test_whom_a_policy_of_no_namespace_selects_is_asked_of_the_namespaces(tmp_path: pathlib.Path) -> None:
    """Rule D7."""
    spaces = {"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "x"}}}
    wide = samples.cluster_policy(subject=spaces)
    other = {
        **samples.cluster_policy(subject={"namespaces": {"matchLabels": {"team": "a"}}}),
        "metadata": {"name": "o"},
    }
    documents = [wide, other, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}]
    (tmp_path / "all.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    with served.agent(tmp_path / "s", served.Node(served.enforcement())) as path:
        result = run("-f", str(tmp_path / "all.yaml"), "--live", "--socket", str(path), "-o", "json")
    found = {one["policy"]["name"]: (one["in_force"], one["selects"]) for one in json.loads(result.output)["live"]}
    assert found == {"w": ("new", ["x/a", "x/b"]), "o": ("new", [])}


def test_names_that_no_node_can_match_are_a_problem_of_the_rule_that_has_them(tmp_path: pathlib.Path) -> None:
    """Requirement F4: before anybody applies them, pods or not."""
    explosive = [{"matchPattern": f"*{letter}*.example.com"} for letter in "abcdefghijkl"]
    rules = [{"toFQDNs": [{"matchPattern": "*.example.com"}]}, {"toFQDNs": explosive}]
    (tmp_path / "all.yaml").write_text(json.dumps(samples.cilium_policy(egress=rules)))
    result = run("-f", str(tmp_path / "all.yaml"), "-o", "json")
    assert result.exit_code == 2
    problems = json.loads(result.output)["problems"]
    assert {problem["path"] for problem in problems} == {"spec.egress[1].toFQDNs"}
    assert len(problems) == len(explosive)
    assert "*a*.example.com matches no name: " in problems[0]["reason"]


def test_without_an_agent_only_the_live_part_fails(files: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run("-f", str(files / "good.yaml"), "--live", "--socket", str(tmp_path / "none")).exit_code == 4
