"""Every value of the chart arrives where values.yaml says, and the agent understands what arrives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from agent import config
from agent.datapath import engines
from agent.model import audit, collector, endpoint
from tests.chart import charts

SPEC = ("spec", "template", "spec")
CONTAINER = (*SPEC, "containers", 0)
SETTINGS = "ConfigMap/nodewall-agent"
SERVICE = "Service/hubble-peer"
TOLERATION = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
VARIABLE = {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.cluster.name=x"}


class Place(NamedTuple):
    """Where in what is rendered a value shows, and as what."""

    key: str
    path: tuple[str | int, ...]
    shown: Any


class Effect(NamedTuple):
    """A value other than the default, and every place where it shows."""

    value: Any
    places: tuple[Place, ...]


def setting(name: str, value: Any, shown: str) -> Effect:
    return Effect(value, (Place(SETTINGS, ("data", name), shown),))


def everywhere(path: tuple[str | int, ...], value: Any, shown: Any) -> Effect:
    """For all three pods that a release ever has."""
    return Effect(value, tuple(Place(key, path, shown) for key in (charts.AGENT, charts.UNINSTALL, charts.WAIT)))


def agent(path: tuple[str | int, ...], value: Any, shown: Any) -> Effect:
    return Effect(value, (Place(charts.AGENT, path, shown),))


def secret(name: str, index: int) -> tuple[str | int, ...]:
    return (*SPEC, "volumes", index, "secret", name)


EFFECTS: dict[str, Effect] = {
    "image.repository": everywhere((*CONTAINER, "image"), "example.com/nodewall", "example.com/nodewall:dev"),
    "image.tag": everywhere((*CONTAINER, "image"), "1.10", "nodewall:1.10"),
    "image.pullPolicy": everywhere((*CONTAINER, "imagePullPolicy"), "Always", "Always"),
    "imagePullSecrets": everywhere((*SPEC, "imagePullSecrets"), [{"name": "x"}], [{"name": "x"}]),
    "engine": setting("ENGINE", "nfbpf", "nfbpf"),
    "iptables.enabled": agent((*CONTAINER, "securityContext", "capabilities", "add", 3), value=True, shown="NET_RAW"),
    "iptables.variant": setting("IPTABLES", "legacy", "legacy"),
    "denyMode": setting("DENY_MODE", "drop", "drop"),
    "hold": setting("HOLD", "strict", "strict"),
    "audit.namespaces": setting("AUDIT_NAMESPACES", ["x", "y"], "x y"),
    "audit.policies": setting("AUDIT_POLICIES", ["x/p", "y/q"], "x/p y/q"),
    "audit.allowAnnotations": setting("ALLOW_AUDIT_ANNOTATIONS", value=True, shown="true"),
    "logLevel": setting("LOG_LEVEL", "debug", "debug"),
    "extraArgs": agent((*CONTAINER, "args", -1), ["--metrics-address=none"], "--metrics-address=none"),
    "extraEnv": agent((*CONTAINER, "env", -1), [VARIABLE], VARIABLE),
    "olderKernel": agent((*CONTAINER, "securityContext", "capabilities", "add", 4), value=True, shown="SYS_RESOURCE"),
    "runtimeSocket": agent((*CONTAINER, "args", -1), "/run/k3s/x.sock", "--cri-socket=/run/k3s/x.sock"),
    "mountBpffs": agent((*SPEC, "initContainers", 0, "name"), value=True, shown="mount-bpffs"),
    "brNetfilter": agent((*SPEC, "initContainers", 0, "name"), value=True, shown="br-netfilter"),
    "hubble.enabled": setting("HUBBLE_ADDRESS", value=True, shown="0.0.0.0:4244"),
    "hubble.address": setting("HUBBLE_ADDRESS", "[::]", "[::]:4244"),
    "hubble.port": Effect(
        4245,
        (
            Place(SETTINGS, ("data", "HUBBLE_ADDRESS"), "0.0.0.0:4245"),
            Place(SERVICE, ("spec", "ports", 0, "port"), 4245),
            Place(SERVICE, ("spec", "ports", 0, "targetPort"), 4245),
        ),
    ),
    "hubble.secretName": agent(secret("secretName", 5), "x", "x"),
    "otlp.endpoint": setting("OTLP_ENDPOINT", "http://collector:4317", "http://collector:4317"),
    "otlp.flows": setting("OTLP_FLOWS", "all", "all"),
    "otlp.secretName": Effect(
        "x",
        (
            Place(charts.AGENT, secret("secretName", 6), "x"),
            Place(charts.AGENT, (*CONTAINER, "env", 2, "valueFrom", "secretKeyRef", "name"), "x"),
        ),
    ),
    "resources.requests.cpu": agent((*CONTAINER, "resources", "requests", "cpu"), 1, 1),
    "resources.requests.memory": agent((*CONTAINER, "resources", "requests", "memory"), "1Gi", "1Gi"),
    "priorityClassName": everywhere((*SPEC, "priorityClassName"), "high", "high"),
    "tolerations": everywhere((*SPEC, "tolerations"), [TOLERATION], [TOLERATION]),
    "nodeSelector": everywhere((*SPEC, "nodeSelector", "pool"), {"pool": "x"}, "x"),
    "maxUnavailable": agent(("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"), 3, 3),
    "uninstall.seconds": Effect(90, (Place(charts.WAIT, (*CONTAINER, "command"), ["sleep", "90"]),)),
}
NEEDS: dict[str, dict[str, Any]] = {
    "hubble.address": {"hubble": {"enabled": True}},
    "hubble.port": {"hubble": {"enabled": True}},
}
"""What has to be so for a value to show."""


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every value that has no others below it, but for those where an operator chooses the keys."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "nodeSelector":
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_every_value_is_tried() -> None:
    """`uninstall.enabled` takes objects away, below."""
    values = yaml.safe_load((charts.CHART / "values.yaml").read_text())
    assert set(leaves(values)) == EFFECTS.keys() | {"uninstall.enabled"}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_value_shows_where_it_should(helm: charts.Helm, name: str) -> None:
    effect = EFFECTS[name]
    rendered = helm.template(**charts.merged(NEEDS.get(name, {}), charts.nested(name, effect.value)))
    for place in effect.places:
        assert charts.at(rendered, place.key, place.path) == place.shown, place


def test_without_uninstall_there_are_no_hooks(helm: charts.Helm) -> None:
    rendered = helm.template(uninstall={"enabled": False})
    assert not [key for key, one in rendered.items() if charts.is_hook(one)]


def test_all_pods_have_the_same_image(helm: charts.Helm) -> None:
    """Those that only prepare a node, too."""
    values: dict[str, Any] = {"image": {"repository": "example.com/x", "tag": "", "pullPolicy": "Always"}}
    rendered = helm.template(**values, mountBpffs=True, brNetfilter=True)
    version = yaml.safe_load((charts.CHART / "Chart.yaml").read_text())["appVersion"]
    for key in (charts.AGENT, charts.UNINSTALL, charts.WAIT):
        pod = charts.pod(rendered, key)
        for one in pod["containers"] + pod.get("initContainers", []):
            assert (one["image"], one["imagePullPolicy"]) == (f"example.com/x:{version}", "Always"), (key, one["name"])


def understood(rendered: charts.Objects) -> config.Config:
    """Return what the agent makes of its flags."""
    data = rendered[SETTINGS]["data"] | {"NODE_NAME": "n"}
    words = charts.pod(rendered)["containers"][0]["args"]
    return config.parse([re.sub(r"\$\((\w+)\)", lambda found: data[found[1]], word) for word in words])


def test_the_agent_understands_the_defaults(helm: charts.Helm) -> None:
    parsed = understood(helm.template())
    assert (parsed.engine, parsed.hubble_address, parsed.collector) == (engines.Engine.AUTO, None, None)
    assert parsed.audit == audit.NOTHING


def test_the_agent_understands_every_value(helm: charts.Helm) -> None:
    values = (charts.nested(name, effect.value) for name, effect in EFFECTS.items())
    parsed = understood(helm.template(**charts.merged(*values, {"hubble": {"enabled": True}})))
    assert (parsed.engine, parsed.iptables) == (engines.Engine.NFBPF, engines.Iptables.LEGACY)
    assert (parsed.deny_mode, parsed.hold_mode) == (endpoint.DenyMode.DROP, endpoint.HoldMode.STRICT)
    assert parsed.audit.annotations
    assert {str(target) for target in parsed.audit.flags} == {"namespace x", "namespace y", "policy x/p", "policy y/q"}
    assert parsed.metrics_address is None, "extraArgs come last"
    assert str(parsed.cri_socket) == "/run/k3s/x.sock"
    assert parsed.hubble_address is not None
    assert (str(parsed.hubble_address.address), parsed.hubble_address.port) == ("::", 4245)
    assert parsed.collector is not None
    assert (parsed.collector.url, parsed.collector.flows) == ("http://collector:4317", collector.Flows.ALL)
    assert parsed.log_level == "debug"
