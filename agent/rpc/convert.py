"""Model to protobuf and back, one pair of functions a message; nothing is lost on the way there and back.

`x_message` makes the message, `x` reads it. Reading raises InvalidInput where the other side speaks of something this
version does not know.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable
from typing import TypeVar

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import labels as labels_
from agent.model import net, resources, verdict
from agent.rpc import views

Member = TypeVar("Member", bound=enum.Enum)

VERSIONS_DIFFER = "agent and client are of different versions; use those of one release"
PLAIN_STATUS = (
    *("node", "version", "mode", "deny_mode", "hold_mode", "synced", "revision", "enforced_revision", "generation"),
    *("started_unix_ns", "enforced_unix_ns", "last_error", "endpoints", "identities", "policies", "policy_sets"),
    *("rows", "source", "source_changed_unix_ns", "enforced_source_digest", "sandboxes", "held_endpoints"),
    *("iptables", "last_repair", "last_repair_unix_ns", "repair_error", "audited_endpoints"),
)
"""Fields of Status that are the same on both sides."""


def status_message(status: views.Status) -> pb.Status:
    """Return the message for `status`."""
    return pb.Status(
        **{name: getattr(status, name) for name in PLAIN_STATUS},
        mode_reasons=status.mode_reasons,
        not_ready=status.not_ready,
        proved=status.proved,
        audited=status.audited,
        problems=[problem_message(problem) for problem in status.problems],
        counters=dict(status.counters),
    )


def status(message: pb.Status) -> views.Status:
    """Read a Status."""
    return views.Status(
        **{name: getattr(message, name) for name in PLAIN_STATUS},
        mode_reasons=tuple(message.mode_reasons),
        not_ready=tuple(message.not_ready),
        proved=tuple(message.proved),
        audited=tuple(message.audited),
        problems=tuple(problem(one) for one in message.problems),
        counters=dict(message.counters),
    )


def ref_message(ref: resources.ObjectRef) -> pb.ObjectRef:
    """Return the message for `ref`."""
    return pb.ObjectRef(kind=ref.kind, namespace=ref.namespace, name=ref.name)


def ref(message: pb.ObjectRef) -> resources.ObjectRef:
    """Read an ObjectRef."""
    return resources.ObjectRef(message.kind, message.namespace, message.name)


def problem_message(problem: resources.Problem) -> pb.Problem:
    """Return the message for `problem`."""
    return pb.Problem(object=ref_message(problem.ref), path=problem.path, reason=problem.reason)


def problem(message: pb.Problem) -> resources.Problem:
    """Read a Problem."""
    return resources.Problem(ref=ref(message.object), path=message.path, reason=message.reason)


def endpoint_message(endpoint: views.Endpoint) -> pb.Endpoint:
    """Return the message for `endpoint`."""
    return pb.Endpoint(
        id=endpoint.id,
        namespace=endpoint.namespace,
        pod=endpoint.pod,
        uid=endpoint.uid,
        labels=dict(endpoint.labels),
        addresses=[str(address) for address in endpoint.addresses],
        identities=endpoint.identities,
        netns_cookie=endpoint.netns_cookie,
        veth_ifindex=endpoint.veth_ifindex,
        ingress_isolated=endpoint.ingress_isolated,
        egress_isolated=endpoint.egress_isolated,
        ingress_policies=[ref_message(one) for one in endpoint.ingress_policies],
        egress_policies=[ref_message(one) for one in endpoint.egress_policies],
        held=endpoint.held,
        audit_ingress=[ref_message(one) for one in endpoint.audit_ingress],
        audit_egress=[ref_message(one) for one in endpoint.audit_egress],
    )


def endpoint(message: pb.Endpoint) -> views.Endpoint:
    """Read an Endpoint."""
    return views.Endpoint(
        id=message.id,
        namespace=message.namespace,
        pod=message.pod,
        uid=message.uid,
        labels=labels_.Labels(message.labels),
        addresses=_addresses(message.addresses),
        identities=tuple(message.identities),
        netns_cookie=message.netns_cookie,
        veth_ifindex=message.veth_ifindex,
        ingress_isolated=message.ingress_isolated,
        egress_isolated=message.egress_isolated,
        ingress_policies=tuple(ref(one) for one in message.ingress_policies),
        egress_policies=tuple(ref(one) for one in message.egress_policies),
        held=message.held,
        audit_ingress=tuple(ref(one) for one in message.audit_ingress),
        audit_egress=tuple(ref(one) for one in message.audit_egress),
    )


def identity_message(identity: views.Identity) -> pb.Identity:
    """Return the message for `identity`."""
    return pb.Identity(
        id=identity.id,
        namespace=identity.namespace,
        labels=dict(identity.labels),
        namespace_labels=dict(identity.namespace_labels),
        named_ports=identity.named_ports,
        blocks=[str(block) for block in identity.blocks],
        addresses=[str(address) for address in identity.addresses],
        address_count=identity.address_count,
    )


def identity(message: pb.Identity) -> views.Identity:
    """Read an Identity."""
    return views.Identity(
        id=message.id,
        namespace=message.namespace,
        labels=labels_.Labels(message.labels),
        namespace_labels=labels_.Labels(message.namespace_labels),
        named_ports=tuple(message.named_ports),
        blocks=_networks(message.blocks),
        addresses=_addresses(message.addresses),
        address_count=message.address_count,
    )


def policy_message(policy: views.Policy) -> pb.Policy:
    """Return the message for `policy`."""
    return pb.Policy(
        object=ref_message(policy.ref),
        directions=policy.directions,
        selected_endpoints=policy.selected_endpoints,
        ingress_rules=policy.ingress_rules,
        egress_rules=policy.egress_rules,
        problems=[problem_message(one) for one in policy.problems],
        audit=policy.audit,
    )


def policy(message: pb.Policy) -> views.Policy:
    """Read a Policy."""
    return views.Policy(
        ref=ref(message.object),
        directions=tuple(message.directions),
        selected_endpoints=message.selected_endpoints,
        ingress_rules=message.ingress_rules,
        egress_rules=message.egress_rules,
        problems=tuple(problem(one) for one in message.problems),
        audit=tuple(message.audit),
    )


def item_message(item: verdict.Item) -> pb.WatchVerdictsResponse:
    """Return the message of the stream for a verdict, or for verdicts that were lost."""
    if isinstance(item, verdict.Lost):
        return pb.WatchVerdictsResponse(lost=pb.Lost(count=item.count, where=item.where))
    return pb.WatchVerdictsResponse(verdict=verdict_message(item))


def item(message: pb.WatchVerdictsResponse) -> verdict.Item:
    """Read a message of the stream."""
    match message.WhichOneof("event"):
        case "verdict":
            return event(message.verdict)
        case "lost":
            return verdict.Lost(count=message.lost.count, where=message.lost.where)
        case other:
            raise errors.InvalidInput(field="event", value=other, remedy=VERSIONS_DIFFER)


def watch_message(wanted: verdict.Filter, *, follow: bool, last: int) -> pb.WatchVerdictsRequest:
    """Return the request for verdicts that are `wanted`."""
    return pb.WatchVerdictsRequest(
        follow=follow,
        last=last,
        verdict=wanted.verdict.name if wanted.verdict is not None else "",
        namespace=wanted.namespace,
        pod=wanted.pod,
        raw=wanted.raw,
    )


def wanted(message: pb.WatchVerdictsRequest) -> verdict.Filter:
    """Read which verdicts a request wants."""
    return verdict.Filter(
        verdict=_member(verdict.Verdict, "verdict", message.verdict) if message.verdict else None,
        namespace=message.namespace,
        pod=message.pod,
        raw=message.raw,
    )


def verdict_message(event: verdict.VerdictEvent) -> pb.Verdict:
    """Return the message for `event`."""
    known = {member.value: member.name for member in net.Protocol}
    rule, process = event.rule, event.process
    return pb.Verdict(
        time_unix_ns=event.time_ns,
        node=event.node,
        verdict=event.verdict.name,
        direction=event.direction.name.lower(),
        source=_end_message(event.source),
        destination=_end_message(event.destination),
        protocol=event.protocol,
        protocol_name=known.get(event.protocol, ""),
        policy=ref_message(rule.policy) if rule is not None else None,
        rule_index=rule.index if rule is not None else 0,
        isolating_policies=[ref_message(one) for one in event.isolating],
        reason=event.reason.name,
        process_id=process.pid if process is not None else 0,
        process_command=process.command if process is not None else "",
        layer=event.layer.name.lower(),
        generation=event.generation,
        dialled=_end_message(event.dialled) if event.dialled is not None else None,
        repeats=event.repeats,
        joined=event.joined,
        match=event.match.name,
    )


def event(message: pb.Verdict) -> verdict.VerdictEvent:
    """Read a Verdict; its rule, where it has one, is of the verdict's direction."""
    direction = _member(net.Direction, "direction", message.direction.upper())
    rule = None
    if message.HasField("policy"):
        rule = verdict.RuleRef(policy=ref(message.policy), direction=direction, index=message.rule_index)
    process = None
    if message.process_id:
        process = verdict.Process(pid=message.process_id, command=message.process_command)
    return verdict.VerdictEvent(
        time_ns=message.time_unix_ns,
        node=message.node,
        verdict=_member(verdict.Verdict, "verdict", message.verdict),
        reason=_member(verdict.Reason, "reason", message.reason),
        direction=direction,
        layer=_member(verdict.Layer, "layer", message.layer.upper()),
        protocol=message.protocol,
        source=_end(message.source),
        destination=_end(message.destination),
        generation=message.generation,
        rule=rule,
        isolating=tuple(ref(one) for one in message.isolating_policies),
        process=process,
        match=_member(verdict.Match, "match", message.match) if message.match else verdict.Match.NONE,
        dialled=_end(message.dialled) if message.HasField("dialled") else None,
        repeats=message.repeats,
        joined=message.joined,
    )


def _end_message(end: verdict.FlowEnd) -> pb.FlowEnd:
    return pb.FlowEnd(
        address=str(end.address),
        port=end.port,
        identity=end.identity,
        namespace=end.namespace,
        pod=end.pod,
        labels=dict(end.labels),
        owner=ref_message(end.owner) if end.owner is not None else None,
    )


def _end(message: pb.FlowEnd) -> verdict.FlowEnd:
    return verdict.FlowEnd(
        address=_addresses([message.address])[0],
        port=message.port,
        identity=message.identity,
        namespace=message.namespace,
        pod=message.pod,
        labels=labels_.Labels(message.labels),
        owner=ref(message.owner) if message.HasField("owner") else None,
    )


def _addresses(texts: Iterable[str]) -> tuple[net.Address, ...]:
    try:
        return tuple(ipaddress.ip_address(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidInput(field="address", value=str(error), remedy=VERSIONS_DIFFER) from error


def _networks(texts: Iterable[str]) -> tuple[net.Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise errors.InvalidInput(field="block", value=str(error), remedy=VERSIONS_DIFFER) from error


def _member(kind: type[Member], field: str, name: str) -> Member:
    try:
        return kind[name]
    except KeyError as error:
        raise errors.InvalidInput(field=field, value=name, remedy=VERSIONS_DIFFER) from error
