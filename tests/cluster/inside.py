"""Being in a pod: its network namespace and its control group, so that whatever judges the pod judges us.

The machine shares its process ids with the nodes, so a pod's processes are found by its control group. What enters a
pod leaves it before the pod is deleted: the runtime removes no control group that somebody is in.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tests.cluster import cgroups, commands


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a container runs."""

    party: str
    """`namespace/pod`."""
    node: str
    netns: pathlib.Path
    cgroup: pathlib.Path
    """In version 2 of control groups, where the hooks are."""
    addresses: tuple[str, ...]
    """As the API has them: IPv4 first."""

    def command(self, *words: str) -> list[str]:
        """Return a command that runs another as a process of the pod, from the top of the repository."""
        return [sys.executable, "-m", "agent.lab.enter", str(self.netns), str(self.cgroup), *words]

    def python(self, *words: str) -> list[str]:
        """Return a command that runs this Python there."""
        return self.command(sys.executable, *words)


def place(cluster: str, pod: Mapping[str, Any]) -> Place:
    """Return where a running pod of the API is; `cluster` is the cluster's name. Raises TimeoutError."""
    metadata, status = pod["metadata"], pod["status"]
    identifier = status["containerStatuses"][0]["containerID"].rpartition("/")[2]
    node = pod["spec"]["nodeName"]
    groups = version2() / cluster / node
    group = find(groups, uid=metadata["uid"], identifier=identifier)
    commands.wait(f"processes of {metadata['name']}", lambda: bool(_processes(group)), limit_s=10)
    return Place(
        party=f"{metadata['namespace']}/{metadata['name']}",
        node=node,
        netns=pathlib.Path(f"/proc/{_processes(group)[0]}/ns/net"),
        cgroup=group,
        addresses=tuple(one["ip"] for one in status["podIPs"]),
    )


def version2() -> pathlib.Path:
    """Return where this machine has control groups of version 2. Raises FileNotFoundError."""
    for kind, _, root in cgroups.hierarchies():
        if kind == "cgroup2":
            return root
    raise FileNotFoundError("this machine has no control groups of version 2")


def find(groups: pathlib.Path, *, uid: str, identifier: str) -> pathlib.Path:
    """Return a container's group below a node's: guaranteed pods have no directory for their class."""
    for pattern in (f"kubepods/*/pod{uid}/{identifier}", f"kubepods/pod{uid}/{identifier}"):
        for group in groups.glob(pattern):
            return group
    raise FileNotFoundError(f"no group of container {identifier} of pod {uid} below {groups}")


def _processes(group: pathlib.Path) -> Sequence[str]:
    return (group / "cgroup.procs").read_text().split()
