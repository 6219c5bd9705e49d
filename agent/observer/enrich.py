"""From a raw event to a verdict that names policies, pods and processes; no I/O, no clock.

The subject's end is named by its endpoint number, which the kernel found by network namespace or interface and nobody
can forge; the other end by its address. Everything unknown stays unknown: a verdict is never invented.
"""

from __future__ import annotations

from typing import Protocol

from agent.model import net
from agent.model import verdict as verdict_
from agent.observer import history as history_
from agent.observer import names

ISOLATION = frozenset({verdict_.Reason.POLICY_DENIED, verdict_.Reason.SERVICE_DENIED})
"""Reasons that are attributed to the policies that isolate, as no rule decided."""


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


def enrich(event: RawEvent, *, node: str, past: history_.Past, monotonic_to_unix_ns: int) -> verdict_.VerdictEvent:
    """Return the verdict; `monotonic_to_unix_ns` is what to add to the event's clock.

    Raises ValueError on numbers no enum has: an event of other programs than these.
    """
    moment = past.at(event.generation)
    direction = net.Direction(event.direction)
    reason = verdict_.Reason(event.reason)
    policy_set = past.policy_set(event.policy_set, moment) if reason in ISOLATION and event.policy_set else None
    source, destination = _ends(event, direction, moment)
    return verdict_.VerdictEvent(
        time_ns=event.time_ns + monotonic_to_unix_ns,
        node=node,
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
        process=verdict_.Process(pid=event.pid, command=event.command) if event.pid else None,
    )


def _ends(
    event: RawEvent, direction: net.Direction, moment: history_.Moment
) -> tuple[verdict_.FlowEnd, verdict_.FlowEnd]:
    endpoint = moment.state.endpoints.get(event.endpoint)
    subject = names.of_endpoint(endpoint, moment.snapshot) if endpoint is not None else None
    source = net.normalize(event.source)
    destination = net.normalize(event.destination)
    if source.is_unspecified and endpoint is not None and direction is net.Direction.EGRESS:
        # Not bound yet: the kernel will choose one of the pod's addresses, of the destination's family.
        source = next((one for one in endpoint.addresses if one.version == destination.version), source)
    egress = direction is net.Direction.EGRESS
    return (
        _end(source, event.source_port, event.source_identity, subject if egress else None, moment),
        _end(destination, event.destination_port, event.destination_identity, None if egress else subject, moment),
    )


def _end(
    address: net.Address, port: int, identity: int, subject: names.Name | None, moment: history_.Moment
) -> verdict_.FlowEnd:
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
