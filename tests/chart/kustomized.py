"""What kustomize makes of a component, where there is no kustomize: machines that have helm need have no kubectl.

It knows what the components here use and no more: JSON patches that add, and merges into a pod that has nothing of that
name yet. `test_components` holds it to kustomize itself where that is there.
"""

from __future__ import annotations

import copy
import pathlib
from typing import Any

import yaml

from tests.chart import charts

COMPONENTS = charts.SHIPPED / "components"


def names() -> set[str]:
    """Return the components that are shipped."""
    return {path.parent.name for path in COMPONENTS.glob("*/kustomization.yaml")}


def agent() -> charts.Object:
    """Return the agents' DaemonSet as it is installed without components."""
    return charts.read((charts.SHIPPED / "install.yaml").read_text())[charts.AGENT]


def patched(*components: str) -> charts.Object:
    """Return the agents' DaemonSet with components, in this order."""
    result = copy.deepcopy(agent())
    for component in components:
        content = yaml.safe_load((COMPONENTS / component / "kustomization.yaml").read_text())
        unknown = content.keys() - {"apiVersion", "kind", "patches"}
        assert not unknown, f"{component}: {unknown} needs kustomize itself"
        for patch in content["patches"]:
            assert patch["target"]["kind"] == "DaemonSet"
            _apply(result, yaml.safe_load(patch["patch"]))
    return result


def kustomization(directory: pathlib.Path, *components: str) -> None:
    """Write the same for kustomize, which takes only relative paths."""
    directory.mkdir()
    (directory / "daemonset").symlink_to(charts.SHIPPED)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["daemonset/base"],
        "components": [f"daemonset/components/{component}" for component in components],
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(content))


def _apply(document: Any, patch: Any) -> None:
    if isinstance(patch, dict):
        _merge(document, patch)
        return
    for operation in patch:
        assert operation["op"] == "add"
        *steps, last = operation["path"].strip("/").split("/")
        place = document
        for step in steps:
            place = place[int(step) if isinstance(place, list) else step]
        assert last == "-", "only to the end of lists"
        place.append(operation["value"])


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif isinstance(value, list):
            there = into.setdefault(key, [])
            assert not {one["name"] for one in there} & {one["name"] for one in value}
            into[key] = value + there
        else:
            into[key] = value
