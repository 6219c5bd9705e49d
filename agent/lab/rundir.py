"""Where a lab keeps its things.

Everything is below one directory, one cgroup and one bpffs directory, so that `down` can remove a lab of which nothing
but these is known.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

from agent import errors
from agent.lab import kernel

ROOT = pathlib.Path("/run/nodewall-lab")
PREFIX = "nodewall-lab-"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one lab."""

    name: str

    def __post_init__(self) -> None:
        """Refuse a name that could leave the directory, or make a unix socket's path too long."""
        if not NAME.fullmatch(self.name):
            remedy = "use at most 16 lower case letters, digits and dashes, no dash at an end"
            raise errors.InvalidInput(field="name", value=self.name, remedy=remedy)

    @property
    def path(self) -> pathlib.Path:
        """The run directory itself."""
        return ROOT / self.name

    @property
    def manifests(self) -> pathlib.Path:
        """The resolved documents, one a file: what the agents watch."""
        return self.path / "manifests"

    @property
    def record(self) -> pathlib.Path:
        """How the lab was built: name, topology and so on, as JSON; written last, so it marks a lab that is whole."""
        return self.path / "lab.json"

    @property
    def mounted_bpffs(self) -> pathlib.Path:
        """Exists if this lab mounted the bpffs, and holds the mount point."""
        return self.path / "mounted-bpffs"

    @property
    def fabric(self) -> pathlib.Path:
        """The network namespace between nodes and hosts."""
        return self.path / "fabric.netns"

    @property
    def log(self) -> pathlib.Path:
        """What the processes of pods complain about."""
        return self.path / "pods.log"

    def node(self, name: str) -> pathlib.Path:
        """Return a node's directory."""
        return self.path / "nodes" / name

    def node_netns(self, name: str) -> pathlib.Path:
        """Return a node's network namespace."""
        return self.node(name) / "node.netns"

    def pod_netns(self, node: str, container: str) -> pathlib.Path:
        """Return a pod's network namespace, named as CNI plugins are given it."""
        return self.pod_namespaces(node) / f"cni-{container[:32]}"

    def pod_namespaces(self, node: str) -> pathlib.Path:
        """Return the directory of a node's pods' network namespaces."""
        return self.node(node) / "netns"

    def host_netns(self, name: str) -> pathlib.Path:
        """Return the network namespace of a host outside the cluster."""
        return self.path / "hosts" / f"{name}.netns"

    def cni_results(self, node: str) -> pathlib.Path:
        """Return a node's CNI result cache."""
        return self.node(node) / "cni"

    def agent_socket(self, node: str) -> pathlib.Path:
        """Return where a node's agent answers."""
        return self.node(node) / "state" / "agent.sock"

    def agent_log(self, node: str) -> pathlib.Path:
        """Return the file of what a node's agent says."""
        return self.node(node) / "agent.log"

    def server_socket(self, key: str) -> pathlib.Path:
        """Return where the process of a pod, host or node takes orders; unix socket paths end at 108 bytes."""
        return self.path / "s" / key[:16]

    def xtables_lock(self, node: str) -> pathlib.Path:
        """Return the lock of everybody who writes a node's iptables: machines would not share one either."""
        return self.node(node) / "xtables.lock"

    @property
    def cgroup(self) -> pathlib.Path:
        """The cgroup that holds every process of the lab; LabError where no cgroup2 is mounted."""
        return cgroup2() / f"{PREFIX}{self.name}"

    def node_cgroup(self, node: str) -> pathlib.Path:
        """Return what a node's agent takes for the root of cgroups."""
        return self.cgroup / node

    @property
    def bpffs(self) -> pathlib.Path:
        """The agents' directory in the bpffs."""
        return (kernel.mount_of("bpf") or pathlib.Path("/sys/fs/bpf")) / f"{PREFIX}{self.name}"


def cgroup2() -> pathlib.Path:
    """Return where cgroup2 is mounted; LabError if nowhere."""
    mount = kernel.mount_of("cgroup2")
    if mount is None:
        raise errors.LabError("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup")
    return mount


def existing() -> list[str]:
    """Return the names of labs of which anything is left: a directory or a cgroup."""
    found = {entry.name for entry in os.scandir(ROOT) if entry.is_dir()} if ROOT.is_dir() else set()
    found |= {path.name.removeprefix(PREFIX) for path in cgroup2().glob(f"{PREFIX}*")}
    return sorted(name for name in found if NAME.fullmatch(name))
