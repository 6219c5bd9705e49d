"""Uninstalling after an agent's death leaves nothing of it, and taking a lab down leaves nothing of the lab."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from agent.lab import agents, exchange, lab, removal
from tests.system import conftest, engines, remains

pytestmark = pytest.mark.root

NODES = ("node-1", "node-2")


def pod(name: str, node: str) -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "example/serve", "ports": [{"containerPort": 80}]}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "x"}, "spec": spec}


DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "namespace": "x"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
CLUSTER = [pod("a", "node-1"), pod("b", "node-2")]


def kernel_objects(pins: pathlib.Path) -> dict[str, set[int]]:
    """Return the ids of every program, map and link that is pinned below `pins`."""
    found: dict[str, set[int]] = {}
    for kind in ("prog", "map", "link"):
        shown = json.loads(
            subprocess.run(["bpftool", "-j", "-f", kind, "show"], capture_output=True, check=True).stdout
        )
        mine = [one for one in shown if any(str(pins) in pin for pin in one.get("pinned", ()))]
        found[kind] = {one["id"] for one in mine}
        if kind == "link":
            found["prog"] |= {one["prog_id"] for one in mine}
    return found


def alive(objects: dict[str, set[int]]) -> dict[str, set[int]]:
    now = {
        kind: {
            one["id"]
            for one in json.loads(
                subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=True).stdout
            )
        }
        for kind in objects
    }
    return {kind: ids & now[kind] for kind, ids in objects.items() if ids & now[kind]}


def connects(each: lab.Lab) -> bool:
    (result,) = each.probe([exchange.ProbeRequest(source="x/a", destination="x/b", port=80)], 1.0)
    return result.allowed


def uninstall(each: lab.Lab, node: str) -> None:
    flags = ["--node", node, "--state-dir", str(each.paths.node(node) / "state"), "--bpffs", str(each.paths.bpffs)]
    root = ["--cgroup-root", str(each.paths.node_cgroup(node)), "--yes"]
    program = [sys.executable, "-c", "from agent.cli.main import main; main()"]
    remains.in_node(each, node, *program, "uninstall", *flags, *root)


@pytest.mark.parametrize("combination", engines.by_combination(engines.FEWER))
def test_nothing_is_left_after_uninstall(combination: engines.Combination, capsys: pytest.CaptureFixture[str]) -> None:
    with combination.engine.lab(conftest.lab_name("uninstall"), combination.topology) as each:
        each.up([*CLUSTER, DENY])
        conftest.check_engine(each, combination.engine)
        assert not connects(each)
        for node in NODES:
            for pid in removal.processes(agents.cgroup(node, each.paths)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert not connects(each), "the policy outlives the agent"
        before = kernel_objects(each.paths.bpffs)
        assert all(before.values()) or not combination.engine.sockets
        kept = [remains.of(each, node) for node in NODES]
        assert [one.keys() for one in kept] == [remains.expected(combination)] * len(NODES)
        for node in NODES:
            uninstall(each, node)
            uninstall(each, node)  # safe to repeat
        left = [path for path in each.paths.bpffs.rglob("*") if path.is_file()]
        after = alive(before)
        with capsys.disabled():
            counts = [f"{len(ids)} {kind}s" for kind, ids in before.items()]
            counts += [f"{count} {part} on {NODES[0]}" for part, count in kept[0].items() if "links" not in part]
            print(f"\n{combination.name}, before: {', '.join(counts)}; after: {after or 'none'}, {len(left)} pins")
        assert not left
        assert not after
        assert not any(remains.of(each, node) for node in NODES)
        assert connects(each), "nothing is enforced any more"
        remaining = (each.paths.path, each.paths.cgroup, each.paths.bpffs)
    assert not any(path.exists() for path in remaining)
    assert str(each.paths.path) not in pathlib.Path("/proc/mounts").read_text()
