"""Policies of every kind that is read, in files: offline and watched, alone and in lists."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from agent.sources import manifests
from tests.decode import samples

REFS = [
    "CiliumNetworkPolicy x/c",
    "CiliumNetworkPolicy y/l",
    "ClusterNetworkPolicy w",
    "NetworkPolicy x/p",
]


def listed(kind: str, document: dict[str, Any]) -> dict[str, Any]:
    """Return a list as the API server writes it: its items say no kind."""
    item = {name: value for name, value in document.items() if name not in ("apiVersion", "kind")}
    return {"apiVersion": document["apiVersion"], "kind": kind, "items": [item]}


def test_policies_of_every_kind_are_read_offline_and_watched(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "manifests"
    directory.mkdir()
    cilium = samples.cilium_policy(ingress=[{"fromEndpoints": [{}]}])
    other = {**cilium, "metadata": {"name": "l", "namespace": "y"}}
    isolating = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {"podSelector": {}},
    }
    documents = [cilium, samples.cluster_policy(), isolating, listed("CiliumNetworkPolicyList", other)]
    for number, document in enumerate(documents):
        (directory / f"{number}.json").write_text(json.dumps(document))
    source = manifests.ManifestSource(directory=directory, state_directory=tmp_path / "state")
    for found in (manifests.load([directory]), source.read().snapshot):
        assert [str(ref) for ref in found.policies] == REFS
        assert found.problems == ()
