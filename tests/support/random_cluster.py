"""Random clusters, policies and flows: small, dense in corner cases, and the same for the same seed.

Few names, labels and addresses, so that selectors, blocks and ports meet each other often. Every draw goes
through one `random.Random`; nothing depends on the order of sets.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from agent import snapshot
from agent.model import endpoint, labels, net, resources

TRANSPORTS = (net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP)
NUMBERS = (53, 80, 81, 443, 8080)
EDGES = (0, 1, 79, 80, 81, 82, 127, 128, 1023, 1024, 8079, 8080, 8443, 32767, 32768, 65534, 65535)
PORT_NAMES = ("web", "dns", "admin")
NAMESPACES = ("x", "y", "z")
KEYS = ("app", "tier", "track")
VALUES = ("a", "b", "")
METADATA_NAME = "kubernetes.io/metadata.name"

Holder: TypeAlias = resources.Pod | resources.Node | resources.Host


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A snapshot, and what each of its nodes sees."""

    seed: int
    snapshot: snapshot.Snapshot
    views: Mapping[str, endpoint.NodeView]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A connection between two addresses of one family."""

    client: net.Address
    server: net.Address
    protocol: net.Protocol
    port: int


def cluster(seed: int, *, hold_mode: endpoint.HoldMode = endpoint.HoldMode.PERMISSIVE) -> Cluster:
    """Draw the cluster of `seed`."""
    return Draw(seed).cluster(hold_mode)


def attempts(of: Cluster, count: int) -> Iterator[Attempt]:
    """Draw `count` connections, most of them to ports that some policy or pod mentions."""
    rng = random.Random(of.seed ^ 0x5EED)
    ends = _addresses(of.snapshot)
    ports = _ports(of.snapshot)
    by_family = {family: [end for end in ends if net.family_of(end) is family] for family in net.Family}
    for _ in range(count):
        client = rng.choice(ends)
        protocol = rng.choice((*TRANSPORTS, net.Protocol.TCP, net.Protocol.TCP))
        if rng.random() < 0.05:
            protocol = net.Protocol.ICMP if client.version == net.Family.IPV4.value else net.Protocol.ICMPV6
        has_ports = protocol in TRANSPORTS
        yield Attempt(
            client=client,
            server=rng.choice(by_family[net.family_of(client)]),
            protocol=protocol,
            port=rng.choice(ports) if has_ports else 0,
        )


def views(
    of: snapshot.Snapshot, hold_mode: endpoint.HoldMode = endpoint.HoldMode.PERMISSIVE
) -> dict[str, endpoint.NodeView]:
    """Return what each node sees: a sandbox for every pod with an address that is not on the node's network."""
    sandboxes: dict[str, list[endpoint.Sandbox]] = {name: [] for name in of.nodes}
    for index, pod in enumerate(of.pods.values(), start=1):
        if pod.addresses and not pod.host_network and pod.node in sandboxes:
            sandbox = endpoint.Sandbox(
                namespace=pod.namespace,
                pod=pod.name,
                uid=pod.uid,
                netns_cookie=1000 + index,
                veth_ifindex=100 + index,
                ingress_ifindex=100 + index,
                addresses=pod.addresses,
            )
            sandboxes[pod.node].append(sandbox)
    return {
        name: endpoint.NodeView(name=name, sandboxes=tuple(found), hold_mode=hold_mode)
        for name, found in sandboxes.items()
    }


def _addresses(of: snapshot.Snapshot) -> list[net.Address]:
    found: dict[net.Address, None] = {}
    holders: tuple[Holder, ...] = (*of.pods.values(), *of.nodes.values(), *of.hosts.values())
    for holder in holders:
        found.update(dict.fromkeys(holder.addresses))
    return list(found)


def _ports(of: snapshot.Snapshot) -> list[int]:
    """Return the ports where something may change: those mentioned, and their neighbours."""
    found = set(NUMBERS)
    for policy in of.policies.values():
        for rule in (*policy.ingress, *policy.egress):
            for match in rule.ports or ():
                if isinstance(match.port, net.PortRange):
                    found |= {match.port.first - 1, match.port.first, match.port.last, match.port.last + 1}
    for pod in of.pods.values():
        found |= {port.number for port in pod.ports}
    return sorted(port for port in found if 0 < port <= net.PORT_MAX)


class Draw:
    """Draws one cluster."""

    def __init__(self, seed: int) -> None:
        """Draw by `seed`."""
        self._seed = seed
        self._rng = random.Random(seed)
        self._families = self._rng.choice(((4,), (6,), (4, 6), (4, 6)))
        self._nodes: list[resources.Node] = []
        self._pods: list[resources.Pod] = []
        self._hosts: list[resources.Host] = []
        self._blocks: list[net.Network] = []

    def cluster(self, hold_mode: endpoint.HoldMode) -> Cluster:
        """Draw nodes, machines, pods, policies and Services, in this order."""
        rng = self._rng
        self._nodes = [self._node(index) for index in range(rng.randint(1, 4))]
        self._hosts = [self._host(index) for index in range(rng.randint(0, 2))]
        for index in range(rng.randint(2, 9)):
            self._pods.append(self._pod(index))
        self._blocks = self._pool()
        built = snapshot.build(
            [
                *self._nodes,
                *self._hosts,
                *self._pods,
                *(self._namespace(name) for name in NAMESPACES),
                *(self._policy(index) for index in range(rng.randint(0, 6))),
                *(item for index in range(rng.randint(0, 3)) for item in self._service(index)),
            ],
            (),
        )
        return Cluster(seed=self._seed, snapshot=built, views=views(built, hold_mode))

    def _some(self, v4: str, v6: str) -> tuple[net.Address, ...]:
        both = {4: v4, 6: v6}
        return tuple(ipaddress.ip_address(both[version]) for version in self._families)

    def _node(self, index: int) -> resources.Node:
        ranges = {4: f"10.0.{index}.0/24", 6: f"fd00:0:0:{index:x}::/64"}
        return resources.Node(
            name=f"node-{index}",
            addresses=self._some(f"192.0.2.{index + 1}", f"2001:db8:1::{index + 1:x}"),
            pod_ranges=tuple(ipaddress.ip_network(ranges[version]) for version in self._families),
        )

    def _host(self, index: int) -> resources.Host:
        return resources.Host(
            name=f"host-{index}", addresses=self._some(f"198.51.100.{index + 1}", f"2001:db8:2::{index + 1:x}")
        )

    def _labels(self) -> labels.Labels:
        return labels.Labels({key: self._rng.choice(VALUES) for key in KEYS if self._rng.random() < 0.5})

    def _namespace(self, name: str) -> resources.Namespace:
        return resources.Namespace(name=name, labels=labels.Labels({**self._labels(), METADATA_NAME: name}))

    def _pod(self, index: int) -> resources.Pod:
        rng = self._rng
        place = rng.randrange(len(self._nodes))
        node = self._nodes[place]
        on_host = rng.random() < 0.12
        phase = rng.choices(list(resources.PodPhase), weights=(1, 14, 1, 1, 1))[0]
        last = rng.choice((index, index + 1, index + 120))
        addresses = self._some(f"10.0.{place}.{last + 2}", f"fd00:0:0:{place:x}::{last + 2:x}")
        if on_host:
            addresses = node.addresses
        elif len(addresses) > 1 and rng.random() < 0.1:
            addresses = addresses[:1]
        elif rng.random() < 0.05:
            addresses = ()
        taken = {address for pod in self._pods_so_far(node) if not pod.finished for address in pod.addresses}
        finished = phase in (resources.PodPhase.SUCCEEDED, resources.PodPhase.FAILED)
        if not on_host and not finished and taken & set(addresses):
            addresses = self._some(f"10.0.{place}.{index + 30}", f"fd00:0:0:{place:x}::{index + 30:x}")
        return resources.Pod(
            namespace=rng.choice(NAMESPACES),
            name=f"pod-{index}",
            uid=f"uid-{index}",
            labels=self._labels(),
            node=node.name,
            addresses=addresses,
            host_network=on_host,
            phase=phase,
            deleting=rng.random() < 0.08,
            ready=rng.random() < 0.9,
            ports=tuple(self._container_port() for _ in range(rng.randint(0, 4))),
        )

    def _pods_so_far(self, node: resources.Node) -> list[resources.Pod]:
        return [pod for pod in self._pods if pod.node == node.name and not pod.host_network]

    def _container_port(self) -> resources.ContainerPort:
        rng = self._rng
        name = rng.choice((*PORT_NAMES, None))
        return resources.ContainerPort(rng.choice(NUMBERS), rng.choice(TRANSPORTS), name)

    def _pool(self) -> list[net.Network]:
        """Gather prefixes worth a rule: everything, ranges, halves, single addresses of every kind of holder."""
        texts = {
            4: ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/23", "10.0.0.0/25", "10.0.1.128/25", "198.51.100.0/24"),
            6: ("::/0", "fd00::/16", "fd00::/63", "fd00:0:0:1::/64", "fd00::/121", "2001:db8:2::/48"),
        }
        pool: list[net.Network] = [ipaddress.ip_network(text) for family in (4, 6) for text in texts[family]]
        holders: tuple[Holder, ...] = (*self._nodes, *self._hosts, *self._pods)
        for holder in holders:
            pool.extend(net.host_network(address) for address in holder.addresses)
        return list(dict.fromkeys(pool))

    def _block(self) -> resources.IPBlock:
        cidr = self._rng.choice(self._blocks)
        inside = [
            other
            for other in self._blocks
            if other.version == cidr.version and other.prefixlen > cidr.prefixlen and other.subnet_of(cidr)  # type: ignore[arg-type]  # same version
        ]
        count = min(len(inside), self._rng.choice((0, 0, 1, 1, 2, 3)))
        return resources.IPBlock(cidr=cidr, excepts=tuple(self._rng.sample(inside, count)))

    def _selector(self, *, keys: tuple[str, ...] = KEYS) -> labels.LabelSelector:
        return labels.LabelSelector(
            tuple(self._requirement(self._rng.choice(keys)) for _ in range(self._rng.choice((0, 1, 1, 2))))
        )

    def _requirement(self, key: str) -> labels.Requirement:
        rng = self._rng
        operator = rng.choice(list(labels.Operator))
        values: frozenset[str] = frozenset()
        if operator in (labels.Operator.IN, labels.Operator.NOT_IN):
            choices = NAMESPACES if key == METADATA_NAME else VALUES
            values = frozenset(rng.sample(choices, rng.randint(1, 2)))
        return labels.Requirement(key=key, operator=operator, values=values)

    def _policy(self, index: int) -> resources.NetworkPolicy:
        rng = self._rng
        directions = rng.choice(
            (
                frozenset({net.Direction.INGRESS}),
                frozenset({net.Direction.EGRESS}),
                frozenset(net.Direction),
                frozenset(net.Direction),
            )
        )
        return resources.NetworkPolicy(
            namespace=rng.choice(NAMESPACES),
            name=f"policy-{index}",
            subject=self._selector(),
            directions=directions,
            ingress=tuple(self._rule() for _ in range(rng.randint(0, 3))),
            egress=tuple(self._rule() for _ in range(rng.randint(0, 3))),
        )

    def _rule(self) -> resources.PolicyRule:
        rng = self._rng
        peers = None if rng.random() < 0.25 else tuple(self._peer() for _ in range(rng.choice((0, 1, 1, 2, 3))))
        ports = None if rng.random() < 0.3 else tuple(self._port() for _ in range(rng.choice((0, 1, 1, 2, 3))))
        return resources.PolicyRule(peers=peers, ports=ports)

    def _peer(self) -> resources.Peer:
        kind = self._rng.randrange(4)
        if kind == 0:
            return self._block()
        pods = self._selector() if kind in (1, 3) else None
        namespaces = self._selector(keys=(*KEYS, METADATA_NAME)) if kind in (2, 3) else None
        return resources.PodPeer(pods=pods, namespaces=namespaces)

    def _port(self) -> resources.PortMatch:
        rng = self._rng
        protocol = rng.choice((*TRANSPORTS, net.Protocol.TCP))
        match rng.randrange(5):
            case 0:
                port: net.PortRange | str | None = None
            case 1:
                port = rng.choice(PORT_NAMES)
            case 2:
                port = net.PortRange(*sorted(max(1, edge) for edge in rng.sample(EDGES, 2)))
            case _:
                number = rng.choice(NUMBERS)
                port = net.PortRange(number, number)
        return resources.PortMatch(protocol=protocol, port=port)

    def _service(self, index: int) -> Iterator[resources.Resource]:
        rng = self._rng
        namespace = rng.choice(NAMESPACES)
        ports = tuple(
            resources.ServicePort(
                port=7000 + 10 * index + offset,
                protocol=rng.choice(TRANSPORTS),
                target=rng.choice((*NUMBERS, *PORT_NAMES)),
                name=f"port-{offset}",
                node_port=30000 + 10 * index + offset if rng.random() < 0.3 else None,
            )
            for offset in range(rng.randint(1, 2))
        )
        yield resources.Service(
            namespace=namespace,
            name=f"service-{index}",
            cluster_addresses=self._some(f"10.96.0.{index + 1}", f"fd96::{index + 1:x}") if rng.random() < 0.9 else (),
            external_addresses=self._some(f"203.0.113.{index + 1}", f"2001:db8:3::{index + 1:x}")
            if rng.random() < 0.2
            else (),
            ports=ports,
            selector=self._labels(),
        )
        if rng.random() < 0.3:
            holders: list[Holder] = [*self._pods, *self._hosts, *self._nodes]
            addresses = [address for holder in holders for address in holder.addresses]
            yield resources.EndpointSlice(
                namespace=namespace,
                name=f"service-{index}-0",
                service=f"service-{index}",
                addresses=tuple(rng.sample(addresses, min(len(addresses), rng.randint(0, 3)))),
                ports=tuple(
                    resources.EndpointPort(name=port.name, number=rng.choice(NUMBERS), protocol=port.protocol)
                    for port in ports
                ),
            )
