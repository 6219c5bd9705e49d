"""What is applied to a cluster: what daemonset/ ships, with the components that its machine and an engine ask for.

Written where the cluster keeps its files.
"""

from __future__ import annotations

import json
import os
import pathlib

from tests.cluster import programs

SHIPPED = programs.ROOT / "daemonset"
NAMESPACE = "kube-system"
AUTO = "auto"


def write(directory: pathlib.Path, *, engine: str = AUTO, hold: str = AUTO) -> None:
    """Write the kustomizations `agent` and `uninstall` below a directory, with what differs from what is shipped."""
    changed = {"ENGINE": engine, "HOLD": hold}
    components = []
    if "iptables" in engine:
        components.append("iptables")
    _write(
        directory / "agent",
        resource="base",
        components=components,
        settings=_settings("nodewall-agent", [f"{name}={value}" for name, value in changed.items() if value != AUTO]),
    )
    _write(directory / "uninstall", resource="uninstall", components=[], settings=[])


def _settings(name: str, literals: list[str]) -> list[dict[str, object]]:
    if not literals:
        return []
    return [{"name": name, "namespace": NAMESPACE, "behavior": "merge", "literals": literals}]


def _write(directory: pathlib.Path, *, resource: str, components: list[str], settings: list[dict[str, object]]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # kustomize takes no absolute path.
    shipped = os.path.relpath(SHIPPED, directory)
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{shipped}/{resource}"],
        "components": [f"{shipped}/components/{component}" for component in components],
        "configMapGenerator": settings,
    }
    (directory / "kustomization.yaml").write_text(json.dumps(content, indent=1))
