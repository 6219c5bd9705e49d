"""For every component of kustomize the chart has a value that makes the same pod."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from agent import config
from tests.chart import charts, conftest, kustomized

VALUES: dict[str, dict[str, Any]] = {
    "iptables": {"iptables": {"enabled": True}},
    "older-kernel": {"olderKernel": True},
    "mount-bpffs": {"mountBpffs": True},
    "br-netfilter": {"brNetfilter": True},
    "containerd": {"runtimeSocket": "/run/containerd/containerd.sock"},
    "crio": {"runtimeSocket": "/run/crio/crio.sock"},
}
"""In the order in which the chart puts them."""
TOGETHER = [
    ("mount-bpffs", "iptables"),
    ("iptables", "older-kernel", "br-netfilter", "mount-bpffs", "containerd"),
]
"""What kind has, and all that go together: a node has one runtime."""
SOCKET = "--cri-socket="


def made(helm: charts.Helm, *components: str) -> charts.Object:
    """Return the chart's DaemonSet, without the one flag that a component has no need of.

    The agent finds the sockets that components are for by itself; the chart takes any, so it has to name it.
    """
    values = charts.merged(*(VALUES[component] for component in components))
    one = charts.plain(helm.template(**values)[charts.AGENT])
    args = one["spec"]["template"]["spec"]["containers"][0]["args"]
    flag = [word for word in args if word.startswith(SOCKET)]
    asked = values.get("runtimeSocket")
    assert flag == ([SOCKET + asked] if asked else [])
    if asked:
        assert pathlib.Path(asked) in config.CRI_SOCKETS
    args[:] = [word for word in args if word not in flag]
    return one


def released(one: charts.Object) -> charts.Object:
    """Return a DaemonSet of kustomize with the chart's name for the ConfigMap; see test_default."""
    one["spec"]["template"]["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "nodewall-agent"}}]
    return one


def test_every_component_has_a_value() -> None:
    assert VALUES.keys() == kustomized.names()


@pytest.mark.parametrize("component", VALUES)
def test_the_value_makes_the_pod_that_the_component_makes(helm: charts.Helm, component: str) -> None:
    assert made(helm, component) == released(kustomized.patched(component))


@pytest.mark.parametrize("components", TOGETHER, ids="+".join)
def test_values_go_together_as_components_do(helm: charts.Helm, components: tuple[str, ...]) -> None:
    assert made(helm, *components) == released(kustomized.patched(*components))


@pytest.mark.parametrize("components", [*((component,) for component in VALUES), *TOGETHER], ids="+".join)
def test_kustomize_itself_agrees(components: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    kubectl = shutil.which("kubectl", path=str(conftest.found("cluster"))) or pytest.fail("no kubectl")
    kustomized.kustomization(tmp_path / "x", *components)
    command = [kubectl, "kustomize", "--load-restrictor=LoadRestrictionsNone", str(tmp_path / "x")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert charts.read(done.stdout)[charts.AGENT] == kustomized.patched(*components)
