"""The fields that are read of each kind, for msgspec; what is not here is skipped unread.

Each field takes null as the API's own decoder does. Whatever else is of another type is refused by msgspec.
"""

from __future__ import annotations

import msgspec


class _Struct(msgspec.Struct, gc=False, rename="camel"):
    """Not tracked by the garbage collector: it lives for microseconds and cannot hold itself."""


class Meta(_Struct):
    """metadata of an object."""

    name: str
    namespace: str = ""
    uid: str | None = None
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class Port(_Struct):
    """spec.containers[].ports[] of a Pod."""

    container_port: int = 0
    protocol: str | None = None
    name: str | None = None


class Container(_Struct):
    """spec.containers[] and spec.initContainers[] of a Pod."""

    ports: list[Port] | None = None
    restart_policy: str | None = None


class PodSpec(_Struct):
    """spec of a Pod."""

    node_name: str | None = None
    host_network: bool | None = None
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class IP(_Struct):
    """status.podIPs[] of a Pod."""

    ip: str | None = None


class Condition(_Struct):
    """status.conditions[] of a Pod."""

    type: str | None = None
    status: str | None = None


class PodStatus(_Struct):
    """status of a Pod."""

    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    pod_ips: list[IP] | None = msgspec.field(default=None, name="podIPs")
    conditions: list[Condition] | None = None


class Pod(_Struct):
    """A Pod of v1."""

    metadata: Meta
    spec: PodSpec | None = None
    status: PodStatus | None = None


class AnnotatedMeta(Meta):
    """The same with annotations, which may be long: only of what has few objects."""

    annotations: dict[str, str] | None = None


class Namespace(_Struct):
    """A Namespace of v1."""

    metadata: AnnotatedMeta


class NodeSpec(_Struct):
    """spec of a Node."""

    pod_cidr: str | None = msgspec.field(default=None, name="podCIDR")
    pod_cidrs: list[str] | None = msgspec.field(default=None, name="podCIDRs")


class NodeAddress(_Struct):
    """status.addresses[] of a Node."""

    type: str | None = None
    address: str | None = None


class NodeStatus(_Struct):
    """status of a Node."""

    addresses: list[NodeAddress] | None = None


class Node(_Struct):
    """A Node of v1."""

    metadata: Meta
    spec: NodeSpec | None = None
    status: NodeStatus | None = None


class ServicePort(_Struct):
    """spec.ports[] of a Service."""

    port: int = 0
    protocol: str | None = None
    target_port: int | str | None = None
    node_port: int | None = None
    name: str | None = None


class ServiceSpec(_Struct):
    """spec of a Service."""

    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: list[str | None] | None = msgspec.field(default=None, name="clusterIPs")
    external_ips: list[str | None] | None = msgspec.field(default=None, name="externalIPs")
    ports: list[ServicePort] | None = None
    selector: dict[str, str] | None = None


class Ingress(_Struct):
    """status.loadBalancer.ingress[] of a Service."""

    ip: str | None = None
    ip_mode: str | None = None


class LoadBalancer(_Struct):
    """status.loadBalancer of a Service."""

    ingress: list[Ingress] | None = None


class ServiceStatus(_Struct):
    """status of a Service."""

    load_balancer: LoadBalancer | None = None


class Service(_Struct):
    """A Service of v1."""

    metadata: Meta
    spec: ServiceSpec | None = None
    status: ServiceStatus | None = None


class Conditions(_Struct):
    """endpoints[].conditions of an EndpointSlice."""

    ready: bool | None = None
    serving: bool | None = None


class Endpoint(_Struct):
    """endpoints[] of an EndpointSlice."""

    addresses: list[str] | None = None
    conditions: Conditions | None = None


class EndpointPort(_Struct):
    """ports[] of an EndpointSlice."""

    port: int | None = None
    protocol: str | None = None
    name: str | None = None


class Slice(_Struct):
    """An EndpointSlice of discovery.k8s.io/v1."""

    metadata: Meta
    address_type: str | None = None
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
