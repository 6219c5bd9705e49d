"""Services and their endpoints: only what tells a frontend's backends.

A part that cannot be read is left out. That never widens: a frontend nothing is known of is not
classified, and the packet layer judges the backend it was translated to (rule A42).
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.decode import fields, values, workloads
from agent.model import labels, resources

SERVICE_NAME = "kubernetes.io/service-name"
_NO_ADDRESS = (None, "", "None")


def service(document: fields.Field, meta: resources.ObjectRef, report: fields.Report) -> resources.Service:
    """Decode a Service; headless and ExternalName ones have no cluster address."""
    spec = document.member("spec")
    balancer = document.member("status").member("loadBalancer")
    outside = (
        *workloads.listed(spec.member("externalIPs"), report),
        *(_member(item, "ip") for item in workloads.listed(balancer.member("ingress"), report) if _translated(item)),
    )
    return resources.Service(
        namespace=meta.namespace,
        name=meta.name,
        cluster_addresses=workloads.readable(values.address, _cluster_addresses(spec, report), report),
        external_addresses=workloads.readable(
            values.address, (item for item in outside if item.value not in _NO_ADDRESS), report
        ),
        ports=workloads.readable(_service_port, workloads.listed(spec.member("ports"), report), report),
        selector=_selector(spec.member("selector"), report),
        labels=_labels(document.member("metadata").member("labels"), report),
    )


def _translated(field: fields.Field) -> bool:
    """Tell whether kube-proxy translates a load balancer's address; with ipMode Proxy the balancer does, outside."""
    return not isinstance(field.value, Mapping) or field.value.get("ipMode") != "Proxy"


def endpoint_slice(document: fields.Field, meta: resources.ObjectRef, report: fields.Report) -> resources.EndpointSlice:
    """Decode an EndpointSlice of discovery.k8s.io/v1: its ready or serving addresses."""
    names = document.member("metadata").member("labels").mapping()
    service_name = names.get(SERVICE_NAME)
    endpoints = [item for item in workloads.listed(document.member("endpoints"), report) if _serves(item)]
    addresses = [at for item in endpoints for at in workloads.listed(item.member("addresses"), report)]
    ports = [item for item in workloads.listed(document.member("ports"), report) if _has_number(item)]
    return resources.EndpointSlice(
        namespace=meta.namespace,
        name=meta.name,
        service=service_name if isinstance(service_name, str) else "",
        addresses=workloads.readable(values.address, addresses, report) if _is_ip(document) else (),
        ports=workloads.readable(_endpoint_port, ports, report),
    )


def endpoints(document: fields.Field, meta: resources.ObjectRef, report: fields.Report) -> resources.EndpointSlice:
    """Decode Endpoints of v1 with one subset as the slice it amounts to; it is named so that none collides."""
    subsets = workloads.listed(document.member("subsets"), report)
    if len(subsets) > 1:
        report.add("subsets", "more than one subset is not understood; only the first counts, use EndpointSlices")
    subset = subsets[0] if subsets else fields.Field(None, "subsets[0]")
    addresses = (_member(item, "ip") for item in workloads.listed(subset.member("addresses"), report))
    return resources.EndpointSlice(
        namespace=meta.namespace,
        name=f"endpoints/{meta.name}",
        service=meta.name,
        addresses=workloads.readable(values.address, addresses, report),
        ports=workloads.readable(_endpoint_port, workloads.listed(subset.member("ports"), report), report),
    )


def _cluster_addresses(spec: fields.Field, report: fields.Report) -> list[fields.Field]:
    """Return spec.clusterIPs and spec.clusterIP, unless headless."""
    items = (*workloads.listed(spec.member("clusterIPs"), report), spec.member("clusterIP"))
    return [item for item in items if item.value not in _NO_ADDRESS]


def _selector(field: fields.Field, report: fields.Report) -> labels.Labels | None:
    """Read spec.selector; none, an empty one and one that cannot be read select nothing."""
    try:
        return labels.Labels(values.label_pairs(field)) if field.value not in (None, {}) else None
    except fields.Malformed as malformed:
        report.give_up(malformed, "the Service selects no pod")
        return None


def _labels(field: fields.Field, report: fields.Report) -> labels.Labels:
    """Read metadata.labels; those that cannot be read are none."""
    try:
        return labels.Labels(values.label_pairs(field)) if field.value not in (None, {}) else labels.NO_LABELS
    except fields.Malformed as malformed:
        report.give_up(malformed, "the Service has no labels")
        return labels.NO_LABELS


def _service_port(field: fields.Field) -> resources.ServicePort:
    """Read one port of a Service; targetPort is the same number when not given."""
    number = values.port_number(field.member("port"))
    target = field.member("targetPort")
    node_port = field.member("nodePort")
    return resources.ServicePort(
        port=number,
        protocol=values.protocol(field.member("protocol")),
        target=values.port(target) if target.value not in (None, "", 0) else number,
        name=_name(field),
        node_port=values.port_number(node_port) if node_port.value not in (None, 0) else None,
    )


def _endpoint_port(field: fields.Field) -> resources.EndpointPort:
    """Read one port of an EndpointSlice or of Endpoints."""
    return resources.EndpointPort(
        name=_name(field),
        number=values.port_number(field.member("port")),
        protocol=values.protocol(field.member("protocol")),
    )


def _name(field: fields.Field) -> str:
    """Read the name of a port, "" where it has none."""
    name = field.member("name")
    return name.text() if name.value not in (None, "") else ""


def _member(field: fields.Field, name: str) -> fields.Field:
    """Return a member; the field itself if it is no mapping, to be reported as what it is not."""
    return field.member(name) if isinstance(field.value, Mapping) else field


def _serves(field: fields.Field) -> bool:
    """Tell whether an endpoint takes traffic: ready (missing counts as ready) or serving."""
    if not isinstance(field.value, Mapping):
        return False
    conditions = field.value.get("conditions")
    if not isinstance(conditions, Mapping):
        return True
    return conditions.get("ready") is not False or conditions.get("serving") is True


def _is_ip(document: fields.Field) -> bool:
    """Tell whether the addresses are no host names."""
    return document.member("addressType").value != "FQDN"


def _has_number(field: fields.Field) -> bool:
    """Tell whether a port of a slice has a number; without one it stands for every port, and is left out."""
    return not isinstance(field.value, Mapping) or field.value.get("port") is not None
