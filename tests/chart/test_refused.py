"""What is wrong in a value is refused before anything is installed, by a message that names the value.

Helm checks values against daemonset/helm/values.schema.json; what a schema cannot say well, the chart says itself.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent.datapath import engines
from agent.model import collector, endpoint
from tests.chart import charts

Schema = dict[str, Any]
GLOBAL = "global"
"""What Helm adds to the values of a chart that is part of another."""


def schema() -> Schema:
    whole: Schema = json.loads((charts.CHART / "values.schema.json").read_text())
    return whole


def values() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((charts.CHART / "values.yaml").read_text())
    return content


def below(described: Schema, given: object, name: str = "") -> Iterator[tuple[str, Schema, dict[str, Any]]]:
    """Yield every part of the schema that lists its keys, with the values of it."""
    if "properties" in described:
        assert isinstance(given, dict)
        yield name, described, given
        for key, inner in described["properties"].items():
            if key in given:
                yield from below(inner, given[key], f"{name}.{key}")


def test_every_value_is_described_and_has_to_be_there() -> None:
    for name, described, given in below(schema(), values()):
        if name != ".resources":
            assert described["properties"].keys() - {GLOBAL} == given.keys(), name
            assert described["required"] == list(given), name


def test_no_part_takes_keys_that_it_does_not_know() -> None:
    for name, described, _ in below(schema(), values()):
        assert described["additionalProperties"] is False, name


@pytest.mark.parametrize(
    ("path", "choices"),
    [
        (("engine",), engines.Engine),
        (("iptables", "variant"), engines.Iptables),
        (("denyMode",), endpoint.DenyMode),
        (("hold",), endpoint.HoldMode),
        (("otlp", "flows"), collector.Flows),
    ],
)
def test_what_may_be_chosen_is_what_the_agent_takes(path: tuple[str, ...], choices: type[enum.Enum]) -> None:
    described = schema()
    for key in path:
        described = described["properties"][key]
    assert set(described["enum"]) == {choice.value for choice in choices} - {engines.Engine.MEMORY.value}


REFUSED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "wrong choice": ({"engine": "ebpf"}, ("engine", "nfbpf", "socket+iptables")),
    "a name engines have elsewhere": ({"engine": "socket+nfbpf"}, ("engine", "nfbpf")),
    "the engine of tests": ({"engine": "memory"}, ("engine",)),
    "wrong choice below": ({"iptables": {"variant": "xtables"}}, ("iptables", "variant", "legacy")),
    "wrong deny mode": ({"denyMode": "deny"}, ("denyMode", "reject")),
    "wrong hold": ({"hold": "none"}, ("hold", "permissive")),
    "wrong log level": ({"logLevel": "trace"}, ("logLevel", "warning")),
    "wrong flows": ({"otlp": {"flows": "dropped"}}, ("otlp", "flows", "denied")),
    "wrong pull policy": ({"image": {"pullPolicy": "always"}}, ("image", "pullPolicy", "Always")),
    "text for yes or no": ({"mountBpffs": "yes"}, ("mountBpffs", "boolean")),
    "text for a number": ({"hubble": {"port": "4244"}}, ("hubble", "port", "integer")),
    "number for text": ({"image": {"tag": 1.1}}, ("image", "tag", "string")),
    "text for a list": ({"audit": {"namespaces": "shop"}}, ("audit", "namespaces", "array")),
    "list for text": ({"extraArgs": [["--x"]]}, ("extraArgs", "string")),
    "value for a part": ({"iptables": True}, ("iptables", "object")),
    "nothing": ({"denyMode": None}, ("denyMode",)),
    "unknown key": ({"hubbel": {"enabled": True}}, ("hubbel",)),
    "unknown key below": ({"hubble": {"enable": True}}, ("hubble", "enable")),
    "unknown resource": ({"resources": {"limit": {"memory": "1Gi"}}}, ("resources", "limit")),
    "port that is none": ({"hubble": {"port": 65536}}, ("hubble", "port", "maximum")),
    "address that is a name": ({"hubble": {"address": "localhost"}}, ("hubble", "address")),
    "address without brackets": ({"hubble": {"address": "::"}}, ("hubble", "address")),
    "namespace that is none": ({"audit": {"namespaces": ["Shop"]}}, ("audit", "namespaces")),
    "policy without namespace": ({"audit": {"policies": ["p"]}}, ("audit", "policies")),
    "relative socket": ({"runtimeSocket": "containerd.sock"}, ("runtimeSocket",)),
    "no node at a time": ({"maxUnavailable": 0}, ("maxUnavailable",)),
    "no share of nodes": ({"maxUnavailable": "0%"}, ("maxUnavailable",)),
    "no time to uninstall": ({"uninstall": {"seconds": 0}}, ("uninstall", "seconds")),
    "no image": ({"image": {"repository": ""}}, ("image", "repository")),
    "variable without name": ({"extraEnv": [{"value": "x"}]}, ("extraEnv", "name")),
    "engine without its means": ({"engine": "iptables"}, ("engine", "iptables.enabled")),
    "engine without half of its means": ({"engine": "socket+iptables"}, ("engine", "iptables.enabled")),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_mistake_is_named(helm: charts.Helm, mistake: str) -> None:
    wrong, words = REFUSED[mistake]
    told = helm.refusal(**wrong)
    assert [word for word in words if word not in told] == [], told
    assert "nil pointer" not in told


ACCEPTED: dict[str, dict[str, Any]] = {
    "iptables with its means": {"engine": "iptables", "iptables": {"enabled": True}},
    "a digest": {"image": {"tag": "1.0@sha256:" + "0" * 64}},
    "one node at a time": {"maxUnavailable": 1},
    "all nodes": {"maxUnavailable": "100%"},
    "no resources": {"resources": {"requests": None}},
    "a limit": {"resources": {"limits": {"memory": "1Gi", "cpu": 0.5}}},
    "no tolerations": {"tolerations": []},
    "any node": {"nodeSelector": {"kubernetes.io/os": None}},
    "an audited policy with dots": {"audit": {"policies": ["shop/web.v1"]}},
    "a variable from a field": {"extraEnv": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]},
    "a long time": {"uninstall": {"seconds": 3600}},
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_right_is_not_refused(helm: charts.Helm, name: str) -> None:
    assert charts.AGENT in helm.template(**ACCEPTED[name])
