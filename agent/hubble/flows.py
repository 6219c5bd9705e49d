"""A record as the bytes of Hubble's flow.Flow; no I/O, no clock.

The policy that decided stands in `*_allowed_by` or `*_denied_by` of the verdict's direction. Where nothing allowed the
flow these are the policies that isolate, each labelled as such: a default deny has its authors as well. Whatever a
field of Hubble's has no room for is said in `Summary`, with control characters escaped: names of processes are chosen
by whoever runs in a pod.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2
from agent.hubble import records, words
from agent.model import net, resources, verdict

RULE_LABEL = "nodewall:rule="
DEFAULT_DENY_LABEL = "nodewall:default-deny"
EMITTER = "nodewall"
LOST_SOURCES = {
    "ring": pb.PERF_EVENT_RING_BUFFER,
    "queue": pb.OBSERVER_EVENTS_QUEUE,
    "client": pb.HUBBLE_RING_BUFFER,
}


def lost(what: verdict.Lost, *, node: str, first_ns: int, last_ns: int) -> bytes:
    """Return a serialised observer.GetFlowsResponse that tells of flows lost between two moments (Unix time)."""
    event = pb.LostEvent(source=LOST_SOURCES[what.where], num_events_lost=what.count)
    event.first.FromNanoseconds(first_ns)
    event.last.FromNanoseconds(last_ns)
    message = observer_pb2.GetFlowsResponse(lost_events=event, node_name=node)
    message.time.CopyFrom(event.last)
    return message.SerializeToString()


def flow(record: records.Record, *, version: str) -> pb.Flow:
    """Return the message for a record."""
    event = record.event
    source, destination = event.source, event.destination
    message = pb.Flow(
        verdict=event.verdict.name,
        drop_reason=record.drop_reason,
        drop_reason_desc=pb.DropReason.Name(record.drop_reason),
        IP=pb.IP(
            source=str(source.address),
            destination=str(destination.address),
            ipVersion=pb.IPVersion.Name(record.ip_version),
        ),
        l4=layer4(event),
        l7=layer7(event),
        source=_endpoint(source, event.node),
        destination=_endpoint(destination, event.node),
        Type=pb.L7 if event.query is not None else pb.SOCK if event.layer is verdict.Layer.SOCKET else pb.L3_L4,
        node_name=words.name(event.node),
        source_names=[words.name(words.plain(name)) for name in records.names(source)],
        destination_names=[words.name(words.plain(name)) for name in records.names(destination)],
        event_type=pb.CiliumEventType(type=record.event_type, sub_type=record.event_sub_type),
        source_service=_service(source),
        destination_service=_service(records.dialled(event)),
        traffic_direction=pb.INGRESS if event.direction is net.Direction.INGRESS else pb.EGRESS,
        policy_match_type=event.match.value,
        uuid=record.uuid,
        emitter=pb.Emitter(name=EMITTER, version=version),
        Summary=words.with_call(words.summary(event), event),
        aggregate=aggregate(event),
    )
    message.time.FromNanoseconds(event.time_ns)
    message.is_reply.value = False  # what is judged is always the original direction
    _attribute(message, event)
    return message


def aggregate(event: verdict.VerdictEvent) -> pb.Aggregate | None:
    """Return how many verdicts this one stands for, itself among them; None: for no other."""
    if not event.repeats:
        return None
    count = event.repeats + 1
    if event.direction is net.Direction.INGRESS:
        return pb.Aggregate(ingress_flow_count=count)
    return pb.Aggregate(egress_flow_count=count)


def layer4(event: verdict.VerdictEvent) -> pb.Layer4 | None:
    """Return protocol and ports; None for a protocol that Hubble has no message for."""
    ports = {"source_port": event.source.port, "destination_port": event.destination.port}
    match event.protocol:
        case net.Protocol.TCP.value:
            return pb.Layer4(TCP=pb.TCP(**ports))
        case net.Protocol.UDP.value | net.Protocol.UDPLITE.value:
            return pb.Layer4(UDP=pb.UDP(**ports))
        case net.Protocol.SCTP.value:
            return pb.Layer4(SCTP=pb.SCTP(**ports))
        case net.Protocol.ICMP.value:
            return pb.Layer4(ICMPv4=pb.ICMPv4())
        case net.Protocol.ICMPV6.value:
            return pb.Layer4(ICMPv6=pb.ICMPv6())
        case _:
            return None


def layer7(event: verdict.VerdictEvent) -> pb.Layer7 | None:
    """Return the query that was refused; None where the flow tells of none."""
    if event.query is None:
        return None
    return pb.Layer7(type=pb.REQUEST, dns=pb.DNS(query=event.query.name, qtypes=[event.query.type]))


def _endpoint(end: verdict.FlowEnd, node: str) -> pb.Endpoint:
    word = records.reserved(end, node)
    derived = [f"k8s:{records.NAMESPACE_LABEL}={words.name(end.namespace)}"] if end.pod else []
    return pb.Endpoint(
        identity=end.identity,
        namespace=words.name(end.namespace),
        labels=[*_labels(end), *derived, *([records.RESERVED + word] if word else [])],
        pod_name=words.name(end.pod),
        cluster_name=records.cluster(end),
    )


def _labels(end: verdict.FlowEnd) -> Iterable[str]:
    shown = ((key, value) for key, value in end.labels.items() if key != records.NAMESPACE_LABEL)
    return (words.name(words.plain(f"k8s:{key}={value}")) for key, value in shown)


def _service(end: verdict.FlowEnd) -> pb.Service | None:
    found = records.service(end)
    return pb.Service(name=words.name(found.name), namespace=words.name(found.namespace)) if found is not None else None


def _attribute(message: pb.Flow, event: verdict.VerdictEvent) -> None:
    ingress = event.direction is net.Direction.INGRESS
    denied = event.verdict is not verdict.Verdict.FORWARDED
    if denied:
        field = message.ingress_denied_by if ingress else message.egress_denied_by
    else:
        field = message.ingress_allowed_by if ingress else message.egress_allowed_by
    if event.rule is not None:
        rule = f"{RULE_LABEL}{event.rule.direction.name.lower()}[{event.rule.index}]"
        field.append(_policy(event.rule.policy, rule))
    elif denied:
        field.extend(_policy(ref, DEFAULT_DENY_LABEL) for ref in event.isolating)


def _policy(ref: resources.ObjectRef, label: str) -> pb.Policy:
    return pb.Policy(
        name=words.name(ref.name), namespace=words.name(ref.namespace), kind=words.name(ref.kind), labels=[label]
    )
