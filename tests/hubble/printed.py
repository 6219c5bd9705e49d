"""What Hubble's own command line prints of a flow in each of its forms, from what the flow says on the wire.

It is no other printer but the way to tell, line by line, that nothing was lost or made up between a flow that was
offered and what people read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from google.protobuf import json_format

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2

FORMS = ("compact", "dict", "table", "json", "jsonpb")
HEADINGS = ("TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")
BETWEEN_BLOCKS = "------------"
BETWEEN_COLUMNS = re.compile(" {3,}")
POLICY_VERDICT = 5
MATCHES = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
DECIDED = {pb.FORWARDED: "ALLOWED", pb.DROPPED: "DENIED", pb.AUDIT: "AUDITED"}
DROPS = {
    132: "Invalid source ip",
    134: "Invalid packet",
    165: "No configuration available to perform policy decision",
    203: "Endpoint policy program not available",
}
IDENTITIES = {1: "host", 2: "world", 3: "unmanaged"}


def expected(flows: Sequence[pb.Flow], form: str) -> list[str]:
    """Return what is to be read of `flows`; see `read`."""
    of_flow = {"compact": _line, "dict": _block, "table": _row}.get(form, _document)
    heading = ["|".join(HEADINGS)] if form == "table" else []
    return [*heading, *map(of_flow, flows)]


def read(said: str, form: str) -> list[str]:
    """Return the lines, blocks, rows or documents that were printed; a number that each life draws anew is no more."""
    match form:
        case "dict":
            return said.removesuffix("\n").split(f"\n{BETWEEN_BLOCKS}\n")
        case "table":
            return [BETWEEN_COLUMNS.sub("|", line.rstrip()) for line in said.splitlines()]
        case "json" | "jsonpb":
            return [_sorted(json.loads(line)) for line in said.splitlines()]
    return said.splitlines()


def lines(count: int, form: str) -> int:
    """Return how many lines the first `count` flows have, with what is between them."""
    return count * (len(HEADINGS) + 1) - 1 if form == "dict" else count


def _line(flow: pb.Flow) -> str:
    moment, source, destination, kind, outcome, summary = _cells(flow)
    ends = f"{source} {_identity(flow.source)} -> {destination} {_identity(flow.destination)}"
    return f"{moment}: {ends} {kind} {outcome} ({summary})"


def _block(flow: pb.Flow) -> str:
    return "\n".join(f"{name:>11}: {cell}" for name, cell in zip(HEADINGS, _cells(flow), strict=True))


def _row(flow: pb.Flow) -> str:
    return "|".join(map(str.rstrip, _cells(flow)))


def _document(flow: pb.Flow) -> str:
    answer = observer_pb2.GetFlowsResponse(flow=flow, node_name=flow.node_name, time=flow.time)
    return _sorted(json_format.MessageToDict(answer, preserving_proto_field_name=True))


def _sorted(document: dict[str, Any]) -> str:
    serial = document["flow"]["uuid"].rpartition("-")[2]
    return json.dumps({**document, "flow": {**document["flow"], "uuid": serial}}, sort_keys=True)


def _kind(flow: pb.Flow) -> str:
    if flow.HasField("l7"):
        return f"dns-{pb.L7FlowType.Name(flow.l7.type).lower()} "  # without a direction
    if flow.event_type.type != POLICY_VERDICT:
        return DROPS[flow.event_type.sub_type]
    return f"policy-verdict:{MATCHES[flow.policy_match_type]} {pb.TrafficDirection.Name(flow.traffic_direction)}"


def _cells(flow: pb.Flow) -> tuple[str, ...]:
    moment = flow.time.ToDatetime()
    ports = getattr(flow.l4, flow.l4.WhichOneof("protocol") or "TCP")
    source_port, destination_port = (getattr(ports, f"{side}_port", 0) for side in ("source", "destination"))
    by_policy = flow.event_type.type == POLICY_VERDICT
    return (
        f"{moment:%b %d %H:%M:%S}.{moment.microsecond // 1000:03}",
        _end(flow.source, flow.source_service, flow.source_names, flow.IP.source, source_port),
        _end(flow.destination, flow.destination_service, flow.destination_names, flow.IP.destination, destination_port),
        _kind(flow),
        DECIDED[flow.verdict] if by_policy else "DROPPED",
        flow.Summary,
    )


def _end(end: pb.Endpoint, service: pb.Service, names: Sequence[str], address: str, port: int) -> str:
    """Name an end as the command line does: a Service's namespace also stands before a pod."""
    namespace = service.namespace or end.namespace
    name = f"{namespace}/{end.pod_name or service.name}" if end.pod_name or service.name else ",".join(names) or address
    if not port:
        return name
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _identity(end: pb.Endpoint) -> str:
    return f"({IDENTITIES.get(end.identity) or f'ID:{end.identity}'})"
