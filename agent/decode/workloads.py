"""Pods, namespaces, nodes and hosts.

Labels decide which policies hold for a pod, so a pod whose labels cannot be read is not read at all: the
datapath holds what it knows no pod for, whereas a pod without its labels could escape its policies. Any
other malformed field is left out on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from agent import snapshot
from agent.decode import fields, values
from agent.model import audit, labels, net, resources

_LEFT_OUT = "it is left out"
_NODE_ADDRESS_TYPES = ("InternalIP", "ExternalIP")

Read = TypeVar("Read")


def pod(document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report) -> resources.Pod:
    """Decode a Pod; raises Malformed if its labels or whole sections cannot be read."""
    spec, status = document.member("spec"), document.member("status")
    phase = _phase(status.member("phase"), report)
    return resources.Pod(
        namespace=meta.namespace,
        name=meta.name,
        uid=uid or f"{meta.namespace}/{meta.name}",
        labels=labels.Labels(values.label_pairs(document.member("metadata").member("labels"))),
        node=_optional_text(spec.member("nodeName"), report),
        addresses=_pod_addresses(status, report),
        host_network=spec.member("hostNetwork").truth(),
        phase=phase,
        deleting=document.member("metadata").member("deletionTimestamp").given,
        ready=_ready(status, phase, report),
        ports=_container_ports(spec, report),
    )


def namespace(document: fields.Field, name: str, report: fields.Report) -> resources.Namespace:
    """Decode a Namespace and add the label that every namespace has (rule A13)."""
    pairs: dict[str, str] = {}
    for key, at in _or_none(fields.Field.pairs, document.member("metadata").member("labels"), report, _LEFT_OUT) or ():
        value = _or_none(values.label_value, at, report, _LEFT_OUT) if at.given else ""
        if value is not None:
            pairs[key] = value
    return resources.Namespace(
        name=name,
        labels=labels.Labels(pairs | {snapshot.METADATA_NAME: name}),
        asks_audit=asks_audit(document, report, "its policies are enforced"),
    )


def asks_audit(document: fields.Field, report: fields.Report, consequence: str) -> bool:
    """Read the annotation that asks for audit (rule A51); what is not clearly `true` asks for nothing."""
    try:
        asked = document.member("metadata").member("annotations").element(audit.ANNOTATION)
        if asked.value in ("true", "false", None):
            return asked.value == "true"
        raise asked.malformed('"true" or "false", in quotes')
    except fields.Malformed as malformed:
        report.give_up(malformed, consequence)
        return False


def node(document: fields.Field, name: str, report: fields.Report) -> resources.Node:
    """Decode a Node: its addresses, and the ranges its pods get theirs from."""
    spec, status = document.member("spec"), document.member("status")
    own = (item for item in listed(status.member("addresses"), report) if _is_node_address(item))
    ranges = (*listed(spec.member("podCIDRs"), report), spec.member("podCIDR"))
    return resources.Node(
        name=name,
        addresses=readable(values.address, (item.member("address") for item in own), report),
        pod_ranges=readable(values.network, (item for item in ranges if item.given), report),
    )


def host(document: fields.Field, name: str, report: fields.Report) -> resources.Host:
    """Decode a Host of lab.nodewall/v1: a machine outside the cluster."""
    spec = document.member("spec")
    return resources.Host(
        name=name,
        addresses=readable(values.address, listed(spec.member("addresses"), report), report),
        ports=readable(_host_port, listed(spec.member("ports"), report), report),
    )


def listed(field: fields.Field, report: fields.Report) -> tuple[fields.Field, ...]:
    """Return the items of a list, none if it is no list."""
    return _or_none(fields.Field.items, field, report, _LEFT_OUT) or ()


def readable(
    read: Callable[[fields.Field], Read], items: Iterable[fields.Field], report: fields.Report
) -> tuple[Read, ...]:
    """Read every item, leave out what cannot be read and what is there already."""
    found: dict[Read, None] = {}
    for item in items:
        one = _or_none(read, item, report, _LEFT_OUT)
        if one is not None:
            found[one] = None
    return tuple(found)


def _or_none(
    read: Callable[[fields.Field], Read], field: fields.Field, report: fields.Report, consequence: str
) -> Read | None:
    """Read a field, or note why it cannot be read."""
    try:
        return read(field)
    except fields.Malformed as malformed:
        report.give_up(malformed, consequence)
        return None


def _optional_text(field: fields.Field, report: fields.Report) -> str | None:
    """Read text that may be missing, null or empty."""
    return _or_none(fields.Field.text, field, report, _LEFT_OUT) if field.value not in (None, "") else None


def _pod_addresses(status: fields.Field, report: fields.Report) -> tuple[net.Address, ...]:
    """Return status.podIPs and status.podIP, each address once, the primary one first (rule A25)."""
    items = [at for at in map(_ip_of, listed(status.member("podIPs"), report)) if at.value not in (None, "")]
    primary = status.member("podIP")
    if primary.value not in (None, ""):
        items.append(primary)
    return readable(values.address, items, report)


def _ip_of(field: fields.Field) -> fields.Field:
    """Return the `ip` of an item of podIPs; the item itself if it is no mapping, to be reported as no address."""
    return field.member("ip") if isinstance(field.value, Mapping) else field


def _phase(field: fields.Field, report: fields.Report) -> resources.PodPhase:
    """Read status.phase; a pod without one counts as running, so that policies hold for it."""
    if field.value in (None, ""):
        return resources.PodPhase.RUNNING
    for phase in resources.PodPhase:
        if field.value == phase.value:
            return phase
    report.give_up(field.malformed("a pod phase"), "the pod counts as not finished")
    return resources.PodPhase.UNKNOWN


def _ready(status: fields.Field, phase: resources.PodPhase, report: fields.Report) -> bool:
    """Return the Ready condition; without one, whether the pod runs."""
    for item in listed(status.member("conditions"), report):
        condition = _or_none(fields.Field.mapping, item, report, _LEFT_OUT) or {}
        if condition.get("type") == "Ready":
            return condition.get("status") == "True"
    return phase is resources.PodPhase.RUNNING


def _container_ports(spec: fields.Field, report: fields.Report) -> tuple[resources.ContainerPort, ...]:
    """Return the ports of containers and of restartable init containers (rule A33)."""
    containers = list(listed(spec.member("containers"), report))
    containers += [item for item in listed(spec.member("initContainers"), report) if _restarts(item)]
    found: dict[resources.ContainerPort, None] = {}
    for container in containers:
        at = _or_none(lambda one: one.member("ports"), container, report, _LEFT_OUT)
        ports = listed(at, report) if at is not None else ()
        found.update(dict.fromkeys(readable(_container_port, ports, report)))
    return tuple(found)


def _restarts(container: fields.Field) -> bool:
    return isinstance(container.value, Mapping) and container.value.get("restartPolicy") == "Always"


def _container_port(field: fields.Field) -> resources.ContainerPort:
    """Read one declared port; an empty name is no name."""
    name = field.member("name")
    return resources.ContainerPort(
        number=values.port_number(field.member("containerPort")),
        protocol=values.protocol(field.member("protocol")),
        name=values.port_name(name) if name.value not in (None, "") else None,
    )


def _host_port(field: fields.Field) -> resources.ContainerPort:
    """Read one port a host listens on."""
    return resources.ContainerPort(
        number=values.port_number(field.member("port")), protocol=values.protocol(field.member("protocol"))
    )


def _is_node_address(field: fields.Field) -> bool:
    """Tell whether an item of status.addresses is an address, not a host name."""
    return isinstance(field.value, Mapping) and field.value.get("type") in _NODE_ADDRESS_TYPES
