"""What a lab consists of, derived from its resolved manifests alone: the same manifests give the same plan. Pure.

A party is whoever can be an end of a probe: `namespace/pod`, `host/NAME` outside the cluster, `node/NAME`.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import ipaddress
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

from agent import decode, errors, snapshot
from agent.lab import resolve
from agent.model import net, resources

CONTAINER_ID_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


class Topology(enum.Enum):
    """How pods hang on their node, and nodes on each other."""

    ROUTED = "routed"
    """Each pod behind a routed veth, as with ptp or kindnet; nodes route to pods by node address."""
    BRIDGE = "bridge"
    """Pods on the bridge cni0 with br_netfilter; nodes route to pods by node address."""
    VXLAN = "vxlan"
    """As routed, and between nodes through a VXLAN, as with flannel."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """A node."""

    name: str
    addresses: tuple[net.Address, ...]
    ranges: tuple[net.Network, ...]
    gateways: tuple[ipaddress.IPv4Interface | ipaddress.IPv6Interface, ...] = ()
    """Addresses of cni0, bridge topology only."""

    def address(self, family: net.Family) -> net.Address | None:
        """Return the node's first address of a family."""
        return next((address for address in self.addresses if net.family_of(address) is family), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodPlan:
    """A pod that runs; finished ones have no part in the plan (rule A27)."""

    namespace: str
    name: str
    uid: str
    node: str
    addresses: tuple[net.Address, ...]
    host_network: bool
    ports: tuple[tuple[int, net.Protocol], ...]

    @property
    def party(self) -> str:
        """The pod's name in probes."""
        return f"{self.namespace}/{self.name}"

    @property
    def container(self) -> str:
        """The sandbox's id: another one when anything about the sandbox is another, as after a re-creation."""
        content = (self.party, self.uid, self.node, *map(str, self.addresses), str(self.host_network))
        return _digest(*content)

    @property
    def veth(self) -> str:
        """The host side of the pod's veth."""
        return f"veth{self.container[:8]}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """A machine outside the cluster."""

    name: str
    addresses: tuple[net.Address, ...]
    ports: tuple[tuple[int, net.Protocol], ...]

    @property
    def party(self) -> str:
        """The host's name in probes."""
        return f"host/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabPlan:
    """Everything there is to build; mappings are by party, nodes by name."""

    topology: Topology
    nodes: Mapping[str, NodePlan]
    pods: Mapping[str, PodPlan]
    hosts: Mapping[str, HostPlan]
    snapshot: snapshot.Snapshot

    def addresses(self, party: str) -> tuple[net.Address, ...]:
        """Return a party's addresses; InvalidInput if nobody has that name."""
        kind, _, name = party.partition("/")
        if party in self.pods:
            return self.pods[party].addresses
        if party in self.hosts:
            return self.hosts[party].addresses
        if kind == "node" and name in self.nodes:
            return self.nodes[name].addresses
        remedy = f"choose one of {', '.join([*self.pods, *self.hosts, *(f'node/{node}' for node in self.nodes)])}"
        raise errors.InvalidInput(field="party", value=party, remedy=remedy)


def plan(documents: Sequence[resolve.Document], topology: Topology) -> LabPlan:
    """Plan a lab for resolved documents (`resolve.resolve`)."""
    picture = read(documents)
    running = [pod for pod in picture.pods.values() if not pod.finished and pod.addresses]
    pods = {plan_.party: plan_ for plan_ in map(_pod, running)}
    hosts = {f"host/{host.name}": _host(host) for host in picture.hosts.values() if host.addresses}
    _refuse_shared_addresses([*pods.values(), *hosts.values()])
    _refuse_paths(picture, pods.values())
    nodes = {name: _node(node, pods.values(), topology) for name, node in picture.nodes.items()}
    return LabPlan(topology=topology, nodes=nodes, pods=pods, hosts=hosts, snapshot=picture)


def read(documents: Iterable[resolve.Document]) -> snapshot.Snapshot:
    """Decode documents as the agents do."""
    decoded = [item for document in documents for item in decode.decode_all(document)]
    items = [item.resource for item in decoded if item.resource is not None]
    return snapshot.build(items, [problem for item in decoded for problem in item.problems])


def key(party: str) -> str:
    """Return a short name for a party, free of slashes: of its socket, say."""
    return _digest(party)[:12]


def link_name(prefix: str, name: str) -> str:
    """Return an interface name (15 bytes at most) for something with a long name."""
    return f"{prefix}{_digest(name)[:8]}"


def mac(name: str) -> str:
    """Return a locally administered MAC address for `name`."""
    octets = hashlib.blake2b(name.encode(), digest_size=5).digest()
    return ":".join(f"{octet:02x}" for octet in (2, *octets))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=CONTAINER_ID_BYTES).hexdigest()


def _pod(pod: resources.Pod) -> PodPlan:
    return PodPlan(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        node=pod.node or resolve.DEFAULT_NODE,
        addresses=pod.addresses,
        host_network=pod.host_network,
        ports=_ports(pod.ports),
    )


def _host(host: resources.Host) -> HostPlan:
    return HostPlan(name=host.name, addresses=host.addresses, ports=_ports(host.ports))


def _ports(ports: Iterable[resources.ContainerPort]) -> tuple[tuple[int, net.Protocol], ...]:
    return tuple(dict.fromkeys((port.number, port.protocol) for port in ports))


def _node(node: resources.Node, pods: Iterable[PodPlan], topology: Topology) -> NodePlan:
    gateways: list[ipaddress.IPv4Interface | ipaddress.IPv6Interface] = []
    if topology is Topology.BRIDGE:
        everybody = [pod for pod in pods if not pod.host_network]
        taken = {address for pod in everybody for address in pod.addresses}
        mine = [address for pod in everybody if pod.node == node.name for address in pod.addresses]
        subnets = dict.fromkeys([subnet(address) for address in mine])
        gateways = [_gateway(range_, taken) for range_ in subnets]
    return NodePlan(name=node.name, addresses=node.addresses, ranges=node.pod_ranges, gateways=tuple(gateways))


def subnet(address: net.Address) -> net.Network:
    """Return the subnet of a pod on a bridge: its /24 or /64."""
    return ipaddress.ip_network(f"{address}/{resolve.SUBNET_BITS[net.family_of(address)]}", strict=False)


def _gateway(range_: net.Network, taken: set[net.Address]) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    candidates = itertools.islice(range_.hosts(), 1 if range_.version == net.Family.IPV6.value else 0, None)
    address = next(candidate for candidate in candidates if candidate not in taken)
    return ipaddress.ip_interface(f"{address}/{range_.prefixlen}")


def _refuse_paths(picture: snapshot.Snapshot, pods: Iterable[PodPlan]) -> None:
    """Refuse names that would become other paths than one directory: they come from manifests."""
    names = [("Node", name) for name in picture.nodes] + [("Host", name) for name in picture.hosts]
    for pod in pods:
        names += [("Pod", pod.name), ("Namespace", pod.namespace), ("UID", pod.uid)]
    for kind, name in names:
        if not NAME.fullmatch(name):
            raise errors.LabError(f"{kind} {name!r}: a lab builds only what has a name of letters, digits, '-' and '.'")


def _refuse_shared_addresses(parties: Iterable[PodPlan | HostPlan]) -> None:
    owners: dict[net.Address, str] = {}
    for party in parties:
        if isinstance(party, PodPlan) and party.host_network:
            continue
        for address in party.addresses:
            if address in owners:
                raise errors.LabError(f"{owners[address]} and {party.party} both have the address {address}")
            owners[address] = party.party
