"""What is shipped in daemonset/ says the same everywhere, asks for little, and is explained."""

from __future__ import annotations

import pathlib
import re
import subprocess
from typing import Any

import pytest
import yaml

from agent import config

SHIPPED = pathlib.Path(__file__).parents[2] / "daemonset"
LEAST = ["BPF", "PERFMON", "NET_ADMIN"]


def documents(path: pathlib.Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def agent_pod() -> dict[str, Any]:
    [daemon_set] = documents(SHIPPED / "base" / "daemonset.yaml")
    spec: dict[str, Any] = daemon_set["spec"]["template"]["spec"]
    return spec


def agent_container() -> dict[str, Any]:
    [container] = agent_pod()["containers"]
    return dict(container)


@pytest.mark.parametrize("name", ["base:install", "uninstall:uninstall"])
def test_the_plain_files_are_made_from_what_is_there_now(name: str) -> None:
    made_from, _, plain = name.partition(":")
    digest = subprocess.run(
        [SHIPPED / "render", "--digest", made_from], check=True, capture_output=True, text=True
    ).stdout.strip()
    first = (SHIPPED / f"{plain}.yaml").read_text().splitlines()[0]
    assert digest in first, "run daemonset/render"


def test_the_chart_grants_what_the_base_grants() -> None:
    [role] = [one for one in documents(SHIPPED / "base" / "rbac.yaml") if one["kind"] == "ClusterRole"]
    assert yaml.safe_load((SHIPPED / "helm" / "rules.yaml").read_text()) == role["rules"], "run daemonset/render"


def test_the_agent_is_not_privileged_and_has_the_least_capabilities() -> None:
    security = agent_container()["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": LEAST}
    assert not security["privileged"]
    assert not security["allowPrivilegeEscalation"]
    assert security["readOnlyRootFilesystem"]
    assert agent_pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostPID" not in agent_pod()
    assert "initContainers" not in agent_pod()


def test_every_node_has_an_agent_before_other_pods_are_evicted_for_it() -> None:
    assert agent_pod()["priorityClassName"] == "system-node-critical"
    assert agent_pod()["tolerations"] == [{"operator": "Exists"}]


def test_what_the_agent_only_reads_it_cannot_write() -> None:
    written = {mount["name"] for mount in agent_container()["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"state", "bpffs"}


def test_the_agent_understands_its_flags() -> None:
    settings = dict(
        line.split("=", 1)
        for line in (SHIPPED / "base" / "settings.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    settings["NODE_NAME"] = "node1"
    words = [re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], word) for word in agent_container()["args"]]
    parsed = config.parse(words)
    assert parsed.socket == pathlib.Path("/run/nodewall/agent.sock")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = agent_container()[probe]["httpGet"]
        assert parsed.health_address is not None
        assert (asked["host"], asked["port"]) == (str(parsed.health_address.address), parsed.health_address.port)


def test_the_chart_starts_the_agent_as_the_base_does() -> None:
    template = (SHIPPED / "helm" / "templates" / "daemonset.yaml").read_text()
    missing = [word for word in agent_container()["args"] if f"            - {word}\n" not in template]
    assert not missing
    for volume in agent_pod()["volumes"]:
        path = volume["hostPath"]
        assert f'"name" "{volume["name"]}" "path" "{path["path"]}" "type" "{path["type"]}"' in template


@pytest.mark.parametrize("name", ["Dockerfile", "base/daemonset.yaml", "uninstall/daemonset.yaml"])
def test_no_architecture_is_named(name: str) -> None:
    assert not re.search(r"amd64|x86|arm64|aarch64", (SHIPPED / name).read_text())


def test_each_mount_capability_and_right_has_its_reason() -> None:
    readme = (SHIPPED / "README.md").read_text()
    explained = set(re.findall(r"^\| `([^`]+)`", readme, re.MULTILINE))
    wanted = {volume["hostPath"]["path"] for volume in agent_pod()["volumes"]} | set(LEAST)
    for document in documents(SHIPPED / "base" / "rbac.yaml"):
        for rule in document.get("rules", ()):
            wanted.update(rule["resources"])
    assert wanted <= explained
