"""From a raw event to a verdict that names policies, pods and processes; no I/O, no clock.

The subject's end is named by its endpoint number, which the kernel found by network namespace or interface and nobody
can forge; the other end by its address. Everything unknown stays unknown: a verdict is never invented.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Hashable
from typing import Protocol, TypeAlias

from agent import desired as desired_
from agent.model import identity, net
from agent.model import verdict as verdict_
from agent.observer import history as history_
from agent.observer import joining, names

ISOLATION = frozenset({verdict_.Reason.POLICY_DENIED, verdict_.Reason.SERVICE_DENIED})
"""Reasons that are attributed to the policies that isolate, as no rule decided."""


BY_RULE = frozenset({verdict_.Reason.RULE_ALLOWED, verdict_.Reason.POLICY_DENY})


class Layer4(enum.Enum):
    """What a row says of protocol and port."""

    ANY = 0
    PROTOCOL = 1
    PORT = 2


SHAPES = {
    (True, Layer4.ANY): verdict_.Match.L3_ONLY,
    (True, Layer4.PROTOCOL): verdict_.Match.L3_PROTO,
    (True, Layer4.PORT): verdict_.Match.L3_L4,
    (False, Layer4.ANY): verdict_.Match.ALL,
    (False, Layer4.PROTOCOL): verdict_.Match.PROTO_ONLY,
    (False, Layer4.PORT): verdict_.Match.L4_ONLY,
}
"""By whether a row names a peer, and what it says of the rest."""


class RawEvent(Protocol):
    """`struct event` of bpf/include/types.h in host byte order, addresses normalised; enums are their numbers."""

    @property
    def time_ns(self) -> int:
        """CLOCK_MONOTONIC."""

    @property
    def endpoint(self) -> int:
        """Number of the local pod judged; 0 where none is."""

    @property
    def generation(self) -> int:
        """Generation it was judged under."""

    @property
    def policy_set(self) -> int:
        """Set that was asked; 0 where none was."""

    @property
    def rule(self) -> int:
        """Rule that decided; 0 where none did."""

    @property
    def source_identity(self) -> int:
        """Identity of the client."""

    @property
    def destination_identity(self) -> int:
        """Identity of the server."""

    @property
    def pid(self) -> int:
        """Thread group of the caller; 0 at the packet layer."""

    @property
    def source(self) -> net.Address:
        """Client; all zero where the socket is not bound yet."""

    @property
    def destination(self) -> net.Address:
        """Server."""

    @property
    def source_port(self) -> int:
        """0 where there is none."""

    @property
    def destination_port(self) -> int:
        """0 where there is none."""

    @property
    def protocol(self) -> int:
        """IANA number."""

    @property
    def layer(self) -> int:
        """Who judged."""

    @property
    def direction(self) -> int:
        """Seen from the endpoint."""

    @property
    def verdict(self) -> int:
        """What happened."""

    @property
    def reason(self) -> int:
        """Why."""

    @property
    def command(self) -> str:
        """Name of the calling thread, hostile."""

    @property
    def repeats(self) -> int:
        """Events of this kind that were kept back since the last one."""

    @property
    def towards(self) -> joining.Towards:
        """What was asked for, in raw numbers."""

    @property
    def came_from(self) -> Hashable:
        """Who asked: address and port, in whatever form."""


Told: TypeAlias = RawEvent | joining.Joined[RawEvent]
"""What becomes one verdict."""
Names: TypeAlias = Callable[[int, net.Address, int], tuple[str, ...]]
"""Gives the names by which an endpoint had been told an address at a moment, CLOCK_MONOTONIC."""


def nameless(_endpoint: int, _address: net.Address, _monotonic_ns: int) -> tuple[str, ...]:
    """Return no names: nothing is learned from DNS."""
    return ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What verdicts are named from."""

    node: str
    past: history_.Past
    monotonic_to_unix_ns: int
    """What to add to the clock of events."""
    names: Names = nameless


def enrich(told: Told, context: Context) -> verdict_.VerdictEvent:
    """Return the verdict.

    Raises ValueError on numbers no enum has: an event of other programs than these.
    """
    if isinstance(told, joining.Joined):
        event, past = _verdict(told.packet, context), context.past
        repeats, call = event.repeats + told.more, told.socket
        if call is None:
            return dataclasses.replace(event, repeats=repeats)
        dialled = _dialled(told.packet, call, past)
        return dataclasses.replace(event, process=_process(call), dialled=dialled, joined=True, repeats=repeats)
    return _verdict(told, context)


def layers(told: Told) -> tuple[RawEvent, ...]:
    """Return what each layer said, the socket layer first."""
    if not isinstance(told, joining.Joined):
        return (told,)
    return (told.packet,) if told.socket is None else (told.socket, told.packet)


def _verdict(event: RawEvent, context: Context) -> verdict_.VerdictEvent:
    past = context.past
    moment = past.at(event.generation)
    direction = net.Direction(event.direction)
    reason = verdict_.Reason(event.reason)
    isolated = reason in ISOLATION and event.policy_set and not event.rule
    policy_set = past.policy_set(event.policy_set, moment) if isolated else None
    source, destination = _ends(event, direction, moment, context.names)
    return verdict_.VerdictEvent(
        time_ns=event.time_ns + context.monotonic_to_unix_ns,
        node=context.node,
        verdict=verdict_.Verdict(event.verdict),
        reason=reason,
        direction=direction,
        layer=verdict_.Layer(event.layer),
        protocol=event.protocol,
        source=source,
        destination=destination,
        generation=event.generation,
        rule=past.rule(event.rule, moment) if event.rule else None,
        isolating=policy_set.isolating if policy_set is not None else (),
        process=_process(event),
        match=_match(event, reason, direction, moment),
        repeats=event.repeats,
    )


def _process(event: RawEvent) -> verdict_.Process | None:
    return verdict_.Process(pid=event.pid, command=event.command) if event.pid else None


def _dialled(packet: RawEvent, socket: RawEvent, past: history_.Past) -> verdict_.FlowEnd | None:
    """Return where the call of a packet went, if that is elsewhere; a node port is the Service's as well."""
    if packet.towards == socket.towards:
        return None
    moment = past.at(socket.generation)
    called = end(net.normalize(socket.destination), socket.destination_port, socket.destination_identity, None, moment)
    service = moment.services.at(*socket.towards[1:])
    return dataclasses.replace(called, owner=service.ref) if service is not None else called


def _match(
    event: RawEvent, reason: verdict_.Reason, direction: net.Direction, moment: history_.Moment
) -> verdict_.Match:
    """Return the shape of the row that decided; NONE where it is not sure to be that row."""
    if reason is verdict_.Reason.NOT_ISOLATED:
        return verdict_.Match.ALL
    peer = event.destination_identity if direction is net.Direction.EGRESS else event.source_identity
    if reason not in BY_RULE or not peer or not event.policy_set:
        return verdict_.Match.NONE
    if event.layer == verdict_.Layer.SOCKET.value and moment.services.at(*event.towards[1:]) is not None:
        return verdict_.Match.NONE  # decided by what the rows say of its backends
    flow = (direction, event.protocol, event.destination_port)
    for who in (peer, identity.ANY):
        key = moment.lookups.matched(event.policy_set, who, *flow)
        if key is not None:
            found = moment.state.sets[event.policy_set].rows[key]
            return SHAPES[who != identity.ANY, _layer4(key)] if found.rule == event.rule else verdict_.Match.NONE
    return verdict_.Match.NONE


def _layer4(key: desired_.RowKey) -> Layer4:
    if key.port_bits:
        return Layer4.PORT
    return Layer4.ANY if key.protocol == desired_.ANY_PROTOCOL else Layer4.PROTOCOL


def _ends(
    event: RawEvent, direction: net.Direction, moment: history_.Moment, names_of: Names
) -> tuple[verdict_.FlowEnd, verdict_.FlowEnd]:
    endpoint = moment.state.endpoints.get(event.endpoint)
    named = subject(event.endpoint, moment)
    source = net.normalize(event.source)
    destination = net.normalize(event.destination)
    if source.is_unspecified and endpoint is not None and direction is net.Direction.EGRESS:
        # Not bound yet: the kernel will choose one of the pod's addresses, of the destination's family.
        source = next((one for one in endpoint.addresses if one.version == destination.version), source)
    egress = direction is net.Direction.EGRESS
    told = names_of(event.endpoint, destination if egress else source, event.time_ns)
    client = end(source, event.source_port, event.source_identity, named if egress else None, moment)
    server = end(destination, event.destination_port, event.destination_identity, None if egress else named, moment)
    if not told:
        return client, server
    if egress:
        return client, dataclasses.replace(server, names=told)
    return dataclasses.replace(client, names=told), server


def subject(endpoint: int, moment: history_.Moment) -> names.Name | None:
    """Name an endpoint; None: it is not known."""
    found = moment.state.endpoints.get(endpoint)
    return names.of_endpoint(found, moment.snapshot) if found is not None else None


def end(
    address: net.Address, port: int, identity: int, subject: names.Name | None, moment: history_.Moment
) -> verdict_.FlowEnd:
    """Return one end of a flow: the `subject`, else whoever has the address; identity 0 where it is not known."""
    name = subject or moment.names.get(address, names.NOBODY)
    return verdict_.FlowEnd(
        address=address,
        port=port,
        identity=identity or moment.state.hosts.get(address, 0),
        namespace=name.namespace,
        pod=name.pod,
        labels=name.labels,
        owner=name.owner,
    )
