"""What is shipped in daemonset/ says the same everywhere, asks for little, and is explained."""

from __future__ import annotations

import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent import config
from agent.sources.kubernetes import api

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


def host_volumes() -> list[dict[str, Any]]:
    return [volume for volume in agent_pod()["volumes"] if "hostPath" in volume]


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


def custom() -> list[api.Resource]:
    return [resource for resource in api.Resource if resource.custom]


def test_every_custom_resource_that_is_read_has_a_definition() -> None:
    assert sorted(path.stem for path in (SHIPPED / "crds").iterdir()) == sorted(one.value for one in custom())
    for resource in custom():
        [document] = documents(SHIPPED / "crds" / f"{resource.value}.yaml")
        group, _, version = resource.api_version.partition("/")
        spec = document["spec"]
        assert document["metadata"]["name"] == f"{resource.value}.{group}"
        assert (spec["group"], spec["names"]["plural"], spec["names"]["kind"]) == (group, resource.value, resource.kind)
        assert spec["scope"] == ("Namespaced" if resource.namespaced else "Cluster")
        assert [one["name"] for one in spec["versions"] if one["served"]] == [version]


def objects_in(schema: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object of a schema that lists its fields, or none."""
    if isinstance(schema, dict):
        if schema.get("type") == "object" and "additionalProperties" not in schema:
            yield path, schema
        for name, inner in schema.items():
            yield from objects_in(inner, f"{path}.{name}")


@pytest.mark.parametrize("resource", custom())
def test_no_definition_lets_the_server_drop_a_field_that_may_restrict(resource: api.Resource) -> None:
    """Rules A50, E17: what is dropped cannot be refused in sight."""
    [document] = documents(SHIPPED / "crds" / f"{resource.value}.yaml")
    [version] = document["spec"]["versions"]
    whole = version["schema"]["openAPIV3Schema"]
    for name in ("spec", "specs"):
        for path, schema in objects_in(whole["properties"].get(name), name):
            assert schema.get("x-kubernetes-preserve-unknown-fields") is True, path


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


def words_with(**changed: str) -> list[str]:
    """Return the agent's flags with the settings that are shipped, or others."""
    settings = dict(
        line.split("=", 1)
        for line in (SHIPPED / "base" / "settings.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    return [
        re.sub(r"\$\((\w+)\)", lambda found: (settings | changed)[found[1]], word) for word in agent_container()["args"]
    ]


def test_the_agent_understands_its_flags() -> None:
    parsed = config.parse(words_with(NODE_NAME="node1"))
    assert parsed.socket == pathlib.Path("/run/nodewall/agent.sock")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = agent_container()[probe]["httpGet"]
        assert parsed.health_address is not None
        assert (asked["host"], asked["port"]) == (str(parsed.health_address.address), parsed.health_address.port)


def test_the_chart_starts_the_agent_as_the_base_does() -> None:
    template = (SHIPPED / "helm" / "templates" / "daemonset.yaml").read_text()
    missing = [word for word in agent_container()["args"] if f"            - {word}\n" not in template]
    assert not missing
    for volume in host_volumes():
        path = volume["hostPath"]
        assert f'"name" "{volume["name"]}" "path" "{path["path"]}" "type" "{path["type"]}"' in template


@pytest.mark.parametrize("name", ["Dockerfile", "base/daemonset.yaml", "uninstall/daemonset.yaml"])
def test_no_architecture_is_named(name: str) -> None:
    assert not re.search(r"amd64|x86|arm64|aarch64", (SHIPPED / name).read_text())


def test_each_mount_capability_and_right_has_its_reason() -> None:
    readme = (SHIPPED / "README.md").read_text()
    explained = set(re.findall(r"^\| `([^`]+)`", readme, re.MULTILINE))
    wanted = {volume["hostPath"]["path"] for volume in host_volumes()} | set(LEAST)
    for document in documents(SHIPPED / "base" / "rbac.yaml"):
        for rule in document.get("rules", ()):
            wanted.update(rule["resources"])
    assert wanted <= explained


def test_flows_are_answered_to_other_machines_only_if_asked_for_and_with_the_mounted_certificates() -> None:
    assert config.parse(words_with(NODE_NAME="n")).hubble_address is None
    asked = config.parse(words_with(NODE_NAME="n", HUBBLE_ADDRESS="0.0.0.0:4244"))
    assert asked.hubble_address is not None
    assert (str(asked.hubble_address.address), asked.hubble_address.port) == ("0.0.0.0", 4244)
    [mount] = [one for one in agent_container()["volumeMounts"] if one["name"] == "hubble-certificates"]
    assert mount["readOnly"]
    assert "subPath" not in mount, "the kubelet would never replace the file"
    assert mount["mountPath"] == str(asked.hubble_certificates)


def test_certificates_come_from_a_secret_that_only_root_reads_and_that_need_not_be() -> None:
    [volume] = [one for one in agent_pod()["volumes"] if one["name"] == "hubble-certificates"]
    assert volume["secret"] == {"secretName": "nodewall-hubble", "optional": True, "defaultMode": 0o400}


def test_flow_logs_are_sent_only_if_a_collector_is_named_and_with_the_mounted_certificates() -> None:
    assert config.parse(words_with(NODE_NAME="n")).collector is None
    asked = config.parse(words_with(NODE_NAME="n", OTLP_ENDPOINT="collector.observability:4317")).collector
    assert asked is not None
    assert (asked.url, asked.flows.value) == ("https://collector.observability:4317", "denied")
    [mount] = [one for one in agent_container()["volumeMounts"] if one["name"] == "otlp-certificates"]
    assert (mount["mountPath"], mount["readOnly"], "subPath" in mount) == (str(asked.certificates), True, False)
    [volume] = [one for one in agent_pod()["volumes"] if one["name"] == "otlp-certificates"]
    assert volume["secret"] == {"secretName": "nodewall-otlp", "optional": True, "defaultMode": 0o400}
    [variable] = [one for one in agent_container()["env"] if one["name"] == "OTEL_EXPORTER_OTLP_HEADERS"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "nodewall-otlp", "key": "headers", "optional": True}}


def test_the_chart_sends_flow_logs_as_the_base_does() -> None:
    values = yaml.safe_load((SHIPPED / "helm" / "values.yaml").read_text())["otlp"]
    assert values == {"endpoint": "", "flows": "denied", "secretName": "nodewall-otlp"}
    settings = (SHIPPED / "helm" / "templates" / "_pod.tpl").read_text()
    assert "OTLP_ENDPOINT: {{ .Values.otlp.endpoint | quote }}" in settings
    assert "OTLP_FLOWS: {{ .Values.otlp.flows | quote }}" in settings


def test_a_relay_finds_the_peers_where_the_agents_listen() -> None:
    [service] = documents(SHIPPED / "base" / "hubble-peer.yaml")
    assert service["metadata"]["name"] == "hubble-peer"
    assert service["spec"]["clusterIP"] == "None"
    [daemon_set] = documents(SHIPPED / "base" / "daemonset.yaml")
    assert service["spec"]["selector"] == daemon_set["spec"]["selector"]["matchLabels"]
    [port] = service["spec"]["ports"]
    values = yaml.safe_load((SHIPPED / "helm" / "values.yaml").read_text())["hubble"]
    assert port["port"] == port["targetPort"] == values["port"] == 4244
    assert f":{port['port']}" in (SHIPPED / "base" / "settings.env").read_text()


def test_the_chart_exposes_flows_as_the_base_does() -> None:
    values = yaml.safe_load((SHIPPED / "helm" / "values.yaml").read_text())["hubble"]
    assert (values["enabled"], values["secretName"]) == (False, "nodewall-hubble")
    template = (SHIPPED / "helm" / "templates" / "hubble-peer.yaml").read_text()
    shipped = (SHIPPED / "base" / "hubble-peer.yaml").read_text().partition("apiVersion")[2]
    made = template.replace("{{ .Release.Namespace }}", "kube-system").replace("{{ .Values.hubble.port }}", "4244")
    made = made.replace('    {{- include "nodewall.labels" . | nindent 4 }}\n', "")
    assert shipped.strip() == made.partition("apiVersion")[2].removesuffix("{{- end }}\n").strip()


def test_alerts_speak_of_metrics_that_there_are() -> None:
    known = set(
        re.findall(r"^\| `(nodewall_\w+)`", (SHIPPED.parent / "agent/metrics/METRICS.md").read_text(), re.MULTILINE)
    )
    [group] = yaml.safe_load((SHIPPED / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]:
        named = {name.removesuffix("_bucket") for name in re.findall(r"nodewall_[a-z_]+", rule["expr"])}
        assert named <= known, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
