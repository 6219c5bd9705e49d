"""What the cluster is like: names, addresses, versions of images. Everything a shape does not say is said here."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import pathlib
import re

NAME = re.compile(r"[a-z][a-z0-9]{0,7}")
"""The prefix of every namespace, link and cgroup; a link's name holds 15 characters."""
NODES_MAX = 9
API_ADDRESS = "192.168.77.10"
API_PORT = 6443
API_ADDRESS6 = "fd00:77::10"
POD_RANGES = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICE_RANGES = ("10.96.0.0/16", "fd00:10:96::/112")
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
SANDBOX_IMAGE = "nodewall.test/sandbox:1"
BUSYBOX_IMAGE = "docker.io/library/busybox:latest"
AGNHOST_IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.59"
"""The name that upstream's policy suite of this Kubernetes asks for."""
COREDNS_IMAGE = "registry.k8s.io/coredns/coredns:v1.13.1"
AGENT_IMAGE = "docker.io/library/nodewall:dev"
"""What daemonset/base names, with the registry that a runtime takes for granted."""
STATE = pathlib.Path(os.environ.get("NODEWALL_CLUSTER_STATE", "/var/lib/nodewall-cluster"))
"""Not below /run: every node has a /run of its own, and three nodes unpack images here."""


class Cni(enum.Enum):
    """How pods of a node are connected."""

    PTP = "ptp"
    """Routed: a veth and a host route each, as kind's own."""
    BRIDGE = "bridge"
    """A bridge with br_netfilter, as flannel's."""


class Proxy(enum.Enum):
    """What kube-proxy writes."""

    IPTABLES = "iptables"
    NFTABLES = "nftables"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What somebody asked for."""

    name: str = "nwc"
    nodes: int = 3
    cni: Cni = Cni.PTP
    proxy: Proxy = Proxy.IPTABLES
    dns: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if NAME.fullmatch(self.name) is None:
            raise ValueError(f"a cluster's name is a letter and at most seven letters and digits, not {self.name!r}")
        if not 1 <= self.nodes <= NODES_MAX:
            raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {self.nodes}")

    @property
    def state(self) -> pathlib.Path:
        """Everything of it that is a file."""
        return STATE / self.name

    @property
    def kubeconfig(self) -> pathlib.Path:
        """The administrator's; the server is in the network namespace of the control plane."""
        return self.state / "admin.kubeconfig"

    def netns(self, member: str) -> str:
        """Return the network namespace of a node, or of `cp` and `fabric`."""
        return f"{self.name}-{member}"

    def members(self) -> tuple[Member, ...]:
        """Return the nodes."""
        return tuple(Member(number=number) for number in range(1, self.nodes + 1))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node: its addresses follow from its number."""

    number: int

    @property
    def name(self) -> str:
        """The node's name in Kubernetes."""
        return f"node{self.number}"

    @property
    def addresses(self) -> tuple[str, str]:
        """IPv4 and IPv6, without a length."""
        return f"192.168.77.1{self.number}", f"fd00:77::1{self.number}"

    @property
    def pod_ranges(self) -> tuple[str, str]:
        """IPv4 and IPv6."""
        return f"10.244.{self.number}.0/24", f"fd00:10:244:{self.number}::/64"


def write(shape: Shape, path: pathlib.Path) -> None:
    """Keep a shape for those who come later."""
    path.write_text(
        json.dumps(dataclasses.asdict(shape) | {"cni": shape.cni.value, "proxy": shape.proxy.value}, indent=1)
    )


def read(path: pathlib.Path) -> Shape:
    """Return the shape that was kept."""
    kept = json.loads(path.read_text())
    return Shape(**kept | {"cni": Cni(kept["cni"]), "proxy": Proxy(kept["proxy"])})
