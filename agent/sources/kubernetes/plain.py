"""Objects whose fields are all as the API writes them, read by msgspec into only the fields the agent uses.

A shape refuses any other type with ValidationError, a reader any other value with ValueError; `objects` then takes
the long way. What is missing or null means here what it means to `agent.decode` (rules A1 to A3).
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from agent import snapshot
from agent.decode import fields, services, values
from agent.model import audit, labels, net, resources
from agent.sources.kubernetes import api, shapes

_SHARED_MAX = 4_096
"""Values kept for sharing, a table; then the table starts anew. What was handed out lives on."""
_PHASES = {phase.value: phase for phase in resources.PodPhase} | {"": resources.PodPhase.RUNNING}
_NODE_ADDRESS_TYPES = ("InternalIP", "ExternalIP")
_HEADLESS = "None"
"""What a Service has in place of a cluster address."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Shared:
    """One copy of what many objects say alike: labels of replicas, ports of a template."""

    def __init__(self) -> None:
        """Start empty."""
        self._labels: dict[tuple[tuple[str, str], ...], labels.Labels] = {}
        self._ports: dict[tuple[tuple[int, str | None, str | None], ...], tuple[resources.ContainerPort, ...]] = {}

    def labels(self, pairs: Mapping[str, str] | None) -> labels.Labels:
        """Return labels of that content."""
        if not pairs:
            return labels.NO_LABELS
        key = tuple(pairs.items())
        found = self._labels.get(key)
        if found is None:
            interned = {sys.intern(name): sys.intern(value) for name, value in key}
            found = _keep(self._labels, key, labels.Labels(interned))
        return found

    def ports(self, found: Iterable[shapes.Port]) -> tuple[resources.ContainerPort, ...]:
        """Return the ports, each once. Raises ValueError."""
        key = tuple((port.container_port, port.protocol, port.name) for port in found)
        known = self._ports.get(key)
        if known is None:
            known = _keep(self._ports, key, tuple(dict.fromkeys(_container_port(*port) for port in key)))
        return known


def _keep(table: dict[Key, Value], key: Key, value: Value) -> Value:
    if len(table) >= _SHARED_MAX:
        table.clear()
    table[key] = value
    return value


def _pod(content: msgspec.Raw, shared: Shared) -> resources.Pod:
    read = _POD.decode(content)
    meta, spec, status = read.metadata, read.spec or shapes.PodSpec(), read.status or shapes.PodStatus()
    phase = _phase(status.phase)
    ready = next((one.status == "True" for one in status.conditions or () if one.type == "Ready"), None)
    containers = [*(spec.containers or ()), *(one for one in spec.init_containers or () if _restarts(one))]
    namespace = _namespace_of(meta)
    return resources.Pod(
        namespace=namespace,
        name=_name(meta),
        uid=meta.uid or f"{namespace}/{meta.name}",
        labels=shared.labels(meta.labels),
        node=sys.intern(spec.node_name) if spec.node_name else None,
        addresses=_addresses((*(one.ip for one in status.pod_ips or ()), status.pod_ip)),
        host_network=bool(spec.host_network),
        phase=phase,
        deleting=meta.deletion_timestamp is not None,
        ready=phase is resources.PodPhase.RUNNING if ready is None else ready,
        ports=shared.ports(port for one in containers for port in one.ports or ()),
    )


def _namespace(content: msgspec.Raw, _shared: Shared) -> resources.Namespace:
    meta = _NAMESPACE.decode(content).metadata
    pairs = (meta.labels or {}) | {snapshot.METADATA_NAME: _name(meta)}
    asked = (meta.annotations or {}).get(audit.ANNOTATION, "false")
    if asked not in {"true", "false"}:
        raise ValueError("an annotation asks for neither audit nor none")
    return resources.Namespace(name=meta.name, labels=labels.Labels(pairs), asks_audit=asked == "true")


def _node(content: msgspec.Raw, _shared: Shared) -> resources.Node:
    read = _NODE.decode(content)
    spec, status = read.spec or shapes.NodeSpec(), read.status or shapes.NodeStatus()
    own = [one.address for one in status.addresses or () if one.type in _NODE_ADDRESS_TYPES]
    if not all(own):
        raise ValueError("an address of a node is empty")
    ranges = [*(spec.pod_cidrs or ()), *([spec.pod_cidr] if spec.pod_cidr is not None else [])]
    return resources.Node(
        name=_name(read.metadata),
        addresses=_addresses(own),
        pod_ranges=tuple(dict.fromkeys(_network(one) for one in ranges)),
    )


def _service(content: msgspec.Raw, shared: Shared) -> resources.Service:
    read = _SERVICE.decode(content)
    spec, status = read.spec or shapes.ServiceSpec(), read.status or shapes.ServiceStatus()
    ingress = (status.load_balancer or shapes.LoadBalancer()).ingress or ()
    outside = (*(spec.external_ips or ()), *(one.ip for one in ingress if one.ip_mode != "Proxy"))
    return resources.Service(
        namespace=_namespace_of(read.metadata),
        name=_name(read.metadata),
        cluster_addresses=_addresses(one for one in (*(spec.cluster_ips or ()), spec.cluster_ip) if one != _HEADLESS),
        external_addresses=_addresses(one for one in outside if one != _HEADLESS),
        ports=tuple(dict.fromkeys(_service_port(one) for one in spec.ports or ())),
        selector=shared.labels(spec.selector) if spec.selector else None,
        labels=shared.labels(read.metadata.labels),
    )


def _endpoint_slice(content: msgspec.Raw, _shared: Shared) -> resources.EndpointSlice:
    read = _SLICE.decode(content)
    addresses = [at for one in read.endpoints or () if _serves(one.conditions) for at in one.addresses or ()]
    if not all(addresses):
        raise ValueError("an address of an endpoint is empty")
    return resources.EndpointSlice(
        namespace=_namespace_of(read.metadata),
        name=_name(read.metadata),
        service=(read.metadata.labels or {}).get(services.SERVICE_NAME, ""),
        addresses=_addresses(addresses) if read.address_type != "FQDN" else (),
        ports=tuple(dict.fromkeys(_endpoint_port(one, one.port) for one in read.ports or () if one.port is not None)),
    )


def _name(meta: shapes.Meta) -> str:
    if not meta.name:
        raise ValueError("an object has no name")
    return meta.name


def _namespace_of(meta: shapes.Meta) -> str:
    return sys.intern(meta.namespace or "default")


def _phase(text: str | None) -> resources.PodPhase:
    """Read status.phase; without one the pod counts as running, as for `agent.decode`."""
    found = _PHASES.get(text or "")
    if found is None:
        raise ValueError("a phase is not known")
    return found


def _restarts(container: shapes.Container) -> bool:
    return container.restart_policy == "Always"


def _serves(conditions: shapes.Conditions | None) -> bool:
    return conditions is None or conditions.ready is not False or conditions.serving is True


def _addresses(texts: Iterable[str | None]) -> tuple[net.Address, ...]:
    """Read addresses, each once. Zones and leading zeros, which parsers read in two ways, are ValueError."""
    found: dict[net.Address, None] = {}
    for text in dict.fromkeys(texts):
        if text:
            if "%" in text:
                raise ValueError("an address has a zone")
            found[net.normalize(ipaddress.ip_address(text))] = None
    return tuple(found)


def _network(text: str) -> net.Network:
    return _strictly(values.network, text)


def _protocol(text: str | None) -> net.Protocol:
    return _PROTOCOLS[text] if text in _PROTOCOLS else _strictly(values.protocol, text)


def _port_number(number: int) -> int:
    if not 1 <= number <= net.PORT_MAX:
        raise ValueError("a port is out of range")
    return number


def _container_port(number: int, protocol: str | None, name: str | None) -> resources.ContainerPort:
    return resources.ContainerPort(
        number=_port_number(number),
        protocol=_protocol(protocol),
        name=sys.intern(_strictly(values.port_name, name)) if name else None,
    )


def _service_port(read: shapes.ServicePort) -> resources.ServicePort:
    target = read.target_port
    return resources.ServicePort(
        port=_port_number(read.port),
        protocol=_protocol(read.protocol),
        target=_strictly(values.port, target) if target not in (None, "", 0) else read.port,
        name=read.name or "",
        node_port=_port_number(read.node_port) if read.node_port else None,
    )


def _endpoint_port(read: shapes.EndpointPort, number: int) -> resources.EndpointPort:
    return resources.EndpointPort(name=read.name or "", number=_port_number(number), protocol=_protocol(read.protocol))


def _strictly(read: Callable[[fields.Field], Value], value: object) -> Value:
    """Read a value as `agent.decode` does. Raises ValueError."""
    try:
        return read(fields.Field(value))
    except fields.Malformed as malformed:
        raise ValueError(malformed.reason) from malformed


_PROTOCOLS = {None: net.Protocol.TCP, "TCP": net.Protocol.TCP, "UDP": net.Protocol.UDP}
"""What nearly every port has; the rest is asked of `values`."""
_POD = msgspec.json.Decoder(shapes.Pod)
_NAMESPACE = msgspec.json.Decoder(shapes.Namespace)
_NODE = msgspec.json.Decoder(shapes.Node)
_SERVICE = msgspec.json.Decoder(shapes.Service)
_SLICE = msgspec.json.Decoder(shapes.Slice)
READERS: Mapping[api.Resource, Callable[[msgspec.Raw, Shared], resources.Resource]] = {
    api.Resource.PODS: _pod,
    api.Resource.NAMESPACES: _namespace,
    api.Resource.NODES: _node,
    api.Resource.SERVICES: _service,
    api.Resource.ENDPOINT_SLICES: _endpoint_slice,
}
"""Policies are not here, ever: see `objects`."""
