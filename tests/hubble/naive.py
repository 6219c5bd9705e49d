"""Hubble's filters over again, from what a flow says on the wire; slow, and shares nothing with what it tests."""

from __future__ import annotations

import ipaddress
import re

from agent.api.flow import flow_pb2 as pb


def admits(wanted: pb.FlowFilter, flow: pb.Flow) -> bool:
    """Tell whether a filter admits a flow: each field that is given has a value that does."""
    return all(any(_one(field.name, value, flow) for value in values) for field, values in wanted.ListFields())


def _one(field: str, value: object, flow: pb.Flow) -> bool:  # noqa: C901, PLR0911, PLR0912 - a table in words
    side, _, what = field.partition("_")
    end = flow.source if side == "source" else flow.destination
    match field:
        case "verdict":
            return flow.verdict == value
        case "drop_reason_desc":
            return flow.drop_reason_desc == value
        case "traffic_direction":
            return flow.traffic_direction == value
        case "ip_version":
            return flow.IP.ipVersion == value
        case "reply":
            return flow.is_reply.value == value
        case "uuid":
            return flow.uuid == value
        case "dns_query":
            return bool(flow.l7.dns.query) and re.search(str(value), flow.l7.dns.query) is not None
        case "event_type":
            assert isinstance(value, pb.EventTypeFilter)
            same = flow.event_type.type == value.type
            return same and (not value.match_sub_type or flow.event_type.sub_type == value.sub_type)
        case "protocol":
            spoken = flow.l4.WhichOneof("protocol") or ""
            return spoken.lower() == str(value).lower() or (spoken.startswith("ICMP") and value == "icmp")
        case "node_name":
            text = str(value)
            return _like(f"default/{flow.node_name}", (text if "/" in text else f"*/{text}") + "*" * text.endswith("/"))
    address = flow.IP.source if side == "source" else flow.IP.destination
    service = flow.source_service if side == "source" else flow.destination_service
    names = flow.source_names if side == "source" else flow.destination_names
    match what:
        case "ip":
            return ipaddress.ip_address(address) in ipaddress.ip_network(str(value), strict=False)
        case "pod":
            return bool(end.pod_name) and _named(str(value), end.namespace, end.pod_name)
        case "service":
            return bool(service.name) and _named(str(value), service.namespace, service.name)
        case "fqdn":
            return any(_like(name, str(value).rstrip(".").lower()) for name in names)
        case "label":
            return all(_labelled(part, tuple(end.labels)) for part in str(value).split(","))
        case "port":
            return str(_port(flow.l4, side)) == value
        case "identity":
            return end.identity == value
        case "cluster_name":
            return bool(end.cluster_name) and _like(end.cluster_name, str(value))
    raise AssertionError(field)


def _port(l4: pb.Layer4, side: str) -> int | None:
    spoken = l4.WhichOneof("protocol")
    if spoken is None or spoken.startswith("ICMP"):
        return None
    port = getattr(getattr(l4, spoken), f"{side}_port")
    assert isinstance(port, int)
    return port


def _named(pattern: str, namespace: str, name: str) -> bool:
    wanted, prefix = pattern.split("/", 1) if "/" in pattern else ("default", pattern)
    return wanted in ("", namespace) and name.startswith(prefix)


def _labelled(requirement: str, labels: tuple[str, ...]) -> bool:
    """Understand `a=b`, `a!=b`, `a` and `!a` alone."""
    found = dict(label.removeprefix("k8s:").partition("=")[::2] for label in labels)
    requirement = requirement.removeprefix("k8s:")
    if "!=" in requirement:
        key, _, value = requirement.partition("!=")
        return found.get(key) != value
    if "=" in requirement:
        key, _, value = requirement.partition("=")
        return found.get(key) == value
    return requirement[1:] not in found if requirement.startswith("!") else requirement in found


def _like(text: str, pattern: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text) is not None
