"""What is applied to a cluster: what daemonset/ ships, with the components that its machine and an engine ask for.

Written where the cluster keeps its files, because only the machine knows whether its control groups are hybrid.
"""

from __future__ import annotations

import json
import os
import pathlib

from tests.cluster import cgroups, programs

SHIPPED = programs.ROOT / "daemonset"
NAMESPACE = "kube-system"
HYBRID = "/host/cgroup/unified"
AUTO = "auto"


def write(directory: pathlib.Path, *, engine: str = AUTO) -> None:
    """Write the kustomizations `agent` and `uninstall` below a directory."""
    components = []
    if len(cgroups.hierarchies()) > 1:
        components.append("hybrid-cgroup")
    if "iptables" in engine:
        components.append("iptables")
    _write(
        directory / "agent",
        resource="base",
        components=components,
        settings=_settings("nodewall-agent", [] if engine == AUTO else [f"ENGINE={engine}"]),
    )
    places = [f"CGROUP_ROOT={HYBRID}"] if "hybrid-cgroup" in components else []
    _write(
        directory / "uninstall", resource="uninstall", components=[], settings=_settings("nodewall-uninstall", places)
    )


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
