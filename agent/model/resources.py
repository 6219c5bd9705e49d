"""The Kubernetes objects the agent reads, only the fields it uses, decoded and validated.

`None` means "not given" and `()` means "given, and nothing in it is usable", everywhere:
a rule whose `peers` is None matches every peer (rule A5), one whose `peers` is () matches none
(each peer was malformed: rule A50).

Policies of every kind are a NetworkPolicy here, for most readers ask the same of all of them: whom one selects, what
it isolates, and what its rules say. What the kinds do not share has a field that says what it is without it.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TypeAlias

from agent.model import fqdn, net
from agent.model import labels as labels_


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """Names one object; cluster-scoped objects have namespace ""."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Show as `NetworkPolicy x/deny-all`, or `Node node-1`."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Show as people write it: `NetworkPolicy/x/deny-all`, or `Node/node-1`."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something in the input could not be honoured; it never widens access (rule A50)."""

    ref: ObjectRef
    path: str
    """Where, in the API's spelling: `spec.ingress[0].from[1].ipBlock.cidr`; "" for the whole object."""
    reason: str
    """What is wrong, what the agent does instead, and what to write."""


class PodPhase(enum.Enum):
    """status.phase; the value is the API's spelling."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class ContainerPort:
    """A port a container declares; only named ones matter to policy (rules A31 to A34)."""

    number: int
    protocol: net.Protocol
    name: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod; `ports` are those of regular and restartable init containers (rule A33)."""

    namespace: str
    name: str
    uid: str
    labels: labels_.Labels = labels_.NO_LABELS
    node: str | None = None
    addresses: tuple[net.Address, ...] = ()
    host_network: bool = False
    phase: PodPhase = PodPhase.RUNNING
    deleting: bool = False
    ready: bool = True
    ports: tuple[ContainerPort, ...] = ()

    @property
    def finished(self) -> bool:
        """Succeeded or Failed: its address may already be another pod's (rule A27)."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def has_identity(self) -> bool:
        """Subject and peer of policies: has an address, not hostNetwork, not finished (rules A26, A27)."""
        return bool(self.addresses) and not self.host_network and not self.finished


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace; decode adds kubernetes.io/metadata.name (rule A13)."""

    name: str
    labels: labels_.Labels = labels_.NO_LABELS
    asks_audit: bool = False
    """Its annotation asks for audit of its policies; whether that counts is the node's admin's to say (rule A51)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node: its own addresses and the ranges its pods get theirs from."""

    name: str
    addresses: tuple[net.Address, ...] = ()
    pod_ranges: tuple[net.Network, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServicePort:
    """One port of a Service; `target` is a number, or the name of a container port."""

    port: int
    protocol: net.Protocol
    target: int | str
    name: str = ""
    node_port: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service with frontends; headless ones have no cluster addresses."""

    namespace: str
    name: str
    cluster_addresses: tuple[net.Address, ...] = ()
    external_addresses: tuple[net.Address, ...] = ()
    """spec.externalIPs and status.loadBalancer.ingress[].ip."""
    ports: tuple[ServicePort, ...] = ()
    selector: labels_.Labels | None = None
    """None: endpoints come only from EndpointSlices. Kubernetes treats an empty selector likewise."""
    labels: labels_.Labels = labels_.NO_LABELS
    """Its own: no policy speaks of them, but the cluster's DNS is known by one (`services.resolvers`)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPort:
    """One port of an EndpointSlice, named as the Service port it serves."""

    name: str
    number: int
    protocol: net.Protocol


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    """Backends of a Service: every ready or serving address."""

    namespace: str
    name: str
    service: str
    addresses: tuple[net.Address, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine outside the cluster (`kind: Host`, `apiVersion: lab.nodewall/v1`); the lab builds it."""

    name: str
    addresses: tuple[net.Address, ...] = ()
    ports: tuple[ContainerPort, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodPeer:
    """Pods by labels (rule A20); None = the selector was not given. Never both None (rule A2)."""

    pods: labels_.LabelSelector | None = None
    namespaces: labels_.LabelSelector | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IPBlock:
    """Addresses by prefix, less `excepts` (rules A10, A22, A23)."""

    cidr: net.Network
    excepts: tuple[net.Network, ...] = ()
    outside: bool = False
    """Only addresses of nobody in the cluster, neither pod nor node (rule E11)."""


class Entity(enum.Enum):
    """Whom Cilium has a word for (rule E10); the value is that word."""

    ALL = "all"
    WORLD = "world"
    WORLD_IPV4 = "world-ipv4"
    WORLD_IPV6 = "world-ipv6"
    CLUSTER = "cluster"
    """Every pod, every node, and the API server wherever it is."""
    HOST = "host"
    """The subject's own node, with what runs on its network."""
    REMOTE_NODE = "remote-node"
    KUBE_APISERVER = "kube-apiserver"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EntityPeer:
    """Everybody of one word."""

    entity: Entity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamesPeer:
    """Addresses that DNS gave the subject for a name that one of `patterns` stands for (rules D14, E15)."""

    patterns: tuple[fqdn.NamePattern, ...]


Peer: TypeAlias = PodPeer | IPBlock | EntityPeer | NamesPeer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PortMatch:
    """One entry of `ports`: a protocol, and a range, a container port's name, or (None) every port."""

    protocol: net.Protocol
    port: net.PortRange | str | None = None
    asks: tuple[fqdn.NamePattern, ...] | None = None
    """DNS queries alone, for names that one of these stands for (rule E17); None: anything. Egress by UDP only."""


class RuleAction(enum.Enum):
    """What a rule does with what it matches; the value sorts, and is what people read."""

    ALLOW = "Allow"
    """ClusterNetworkPolicy says Accept."""
    DENY = "Deny"
    PASS = "Pass"
    """No more of this tier (rule D2)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """An ingress or egress rule; None = any, () = none (see the module docstring)."""

    peers: tuple[Peer, ...] | None = None
    ports: tuple[PortMatch, ...] | None = None
    action: RuleAction = RuleAction.ALLOW


class Tier(enum.Enum):
    """Which policies are judged together, in this order (rules D1, E6); the value is its name."""

    ADMIN = "Admin"
    NETWORK_POLICY = "NetworkPolicy"
    """NetworkPolicy and CiliumNetworkPolicy, of which any may allow what none denies (rule E6)."""
    BASELINE = "Baseline"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPolicy:
    """networking.k8s.io/v1 NetworkPolicy, or what another kind says, or as much of it as isolates.

    `ingress[i]` keeps the index of the manifest, so that verdicts name it; a CiliumNetworkPolicy's denials count on
    after what it allows.
    """

    namespace: str
    name: str
    uid: str = ""
    kind: str = "NetworkPolicy"
    subject: labels_.LabelSelector = labels_.EVERYTHING
    directions: frozenset[net.Direction] = frozenset()
    """Those it isolates: what no rule of the tier allows there is denied (rules A14, E2; D4: never)."""
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()
    asks_audit: bool = False
    """Its annotation asks for audit; whether that counts is the node's admin's to say (rule A51)."""
    subject_namespaces: labels_.LabelSelector | None = None
    """Selects pods of namespaces with these labels instead of `namespace` (rule D7); None: of that one (rule A19)."""
    tier: Tier = Tier.NETWORK_POLICY
    priority: int = 0
    """Lower numbers come first in their tier (rule D1)."""

    @property
    def ref(self) -> ObjectRef:
        """Name this policy."""
        return ObjectRef(self.kind, self.namespace, self.name)

    def rules(self, direction: net.Direction) -> tuple[PolicyRule, ...]:
        """Return the rules of one direction; a NetworkPolicy's count only if it is in `directions` (rule A7)."""
        return self.ingress if direction is net.Direction.INGRESS else self.egress

    def counting(self, direction: net.Direction) -> tuple[PolicyRule, ...]:
        """Return the rules of one direction that have an effect: those of other kinds isolate apart (rules D4, E2)."""
        if self.kind == "NetworkPolicy" and direction not in self.directions:
            return ()
        return self.rules(direction)


Resource: TypeAlias = Pod | Namespace | Node | Service | EndpointSlice | Host | NetworkPolicy
