"""Turns a step of a truth table into a snapshot, and its names into flows between addresses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from agent import decode, snapshot
from agent.model import net, resources
from agent.policy import evaluator
from tests.support import cases

Backend = tuple[net.Address, int]
"""Where a Service leads: an address and the port there."""


def snapshot_of(step: cases.Step) -> snapshot.Snapshot:
    """Decode a whole cluster as the sources do."""
    decoded = [item for document in step.documents() for item in decode.decode_all(document)]
    found = (item.resource for item in decoded if item.resource is not None)
    return snapshot.build(found, (problem for item in decoded for problem in item.problems))


def party(cluster: snapshot.Snapshot, name: str) -> resources.Pod | resources.Host:
    """Return who is called `namespace/pod` or `host/NAME` in a table."""
    kind, _, rest = name.partition("/")
    return cluster.hosts[rest] if kind == "host" else cluster.pods[kind, rest]


def flows(cluster: snapshot.Snapshot, pair: cases.Pair, check: cases.Check) -> Iterator[evaluator.Flow]:
    """Yield the flow of a pair in every family that the check means and both ends have."""
    source, destination = (party(cluster, name) for name in pair)
    for source_address in source.addresses:
        for destination_address in destination.addresses:
            family = net.family_of(destination_address)
            if family is net.family_of(source_address) and check.family in (None, family):
                yield evaluator.Flow(
                    source=source,
                    destination=destination,
                    source_address=source_address,
                    destination_address=destination_address,
                    protocol=check.protocol,
                    port=check.port,
                )


def knowing(step: cases.Step, flow: evaluator.Flow) -> evaluator.Flow:
    """Return a flow with the names for which DNS gave its source the destination's address by this step."""
    source = flow.source
    if not isinstance(source, resources.Pod):
        return flow
    names = {
        answer.name
        for answer in step.learned
        if answer.pod == f"{source.namespace}/{source.name}" and flow.destination_address in answer.addresses
    }
    return dataclasses.replace(flow, names=frozenset(names))


def backends(cluster: snapshot.Snapshot, check: cases.ServiceCheck) -> tuple[Backend, ...]:
    """Return where a Service's port leads, as its EndpointSlices say."""
    service = cluster.services[check.namespace, check.service]
    (port,) = (port for port in service.ports if (port.port, port.protocol) == (check.port, check.protocol))
    return tuple(
        (address, served.number)
        for part in cluster.endpoint_slices.values()
        if (part.namespace, part.service) == (check.namespace, check.service)
        for served in part.ports
        if (served.name, served.protocol) == (port.name, port.protocol)
        for address in part.addresses
    )


def flow_to(
    cluster: snapshot.Snapshot, source: resources.Pod | resources.Host, backend: Backend, protocol: net.Protocol
) -> evaluator.Flow:
    """Return the flow of somebody who dialled a Service and got this backend."""
    address, port = backend
    return evaluator.Flow(
        source=source,
        destination=evaluator.party_at(cluster, address),
        source_address=next(own for own in source.addresses if own.version == address.version),
        destination_address=address,
        protocol=protocol,
        port=port,
        via_service=True,
    )


def outcome(allowed: list[bool]) -> str:
    """Say in a table's word what somebody gets who may reach these backends."""
    if not allowed:
        return "refused"
    if all(allowed):
        return "all"
    return "mixed" if any(allowed) else "none"
