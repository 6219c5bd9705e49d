"""What stands behind an address that somebody dials: a Service's endpoints, for they are what is judged (rule A42).

For explaining only, and independent of what the compiler makes of Services. Endpoints are those of the Service's
EndpointSlices; where there is none, as in a directory of manifests, those of the ready pods it selects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from agent import snapshot as snapshot_
from agent.model import net, resources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dialled:
    """A Service that listens where somebody dials."""

    service: resources.ObjectRef
    endpoints: tuple[tuple[net.Address, int], ...]
    """Addresses and ports of the dialled family; none: whoever translates the address refuses."""


def behind(snapshot: snapshot_.Snapshot, address: net.Address, port: int, protocol: net.Protocol) -> Dialled | None:
    """Return the Service that listens there, or None: then the address is nobody's but its owner's."""
    for service in snapshot.services.values():
        for served in service.ports:
            if served.protocol is protocol and _listens(snapshot, service, served, address, port):
                found = dict.fromkeys(_endpoints(snapshot, service, served))
                return Dialled(
                    service=resources.ObjectRef("Service", service.namespace, service.name),
                    endpoints=tuple(end for end in found if end[0].version == address.version),
                )
    return None


def _listens(
    snapshot: snapshot_.Snapshot,
    service: resources.Service,
    served: resources.ServicePort,
    address: net.Address,
    port: int,
) -> bool:
    if port == served.port and address in (*service.cluster_addresses, *service.external_addresses):
        return True
    return port == served.node_port and any(address in node.addresses for node in snapshot.nodes.values())


def _endpoints(
    snapshot: snapshot_.Snapshot, service: resources.Service, served: resources.ServicePort
) -> Iterator[tuple[net.Address, int]]:
    own = (service.namespace, service.name)
    slices = [part for part in snapshot.endpoint_slices.values() if (part.namespace, part.service) == own]
    for part in slices:
        for target in part.ports:
            if (target.name, target.protocol) == (served.name, served.protocol):
                yield from ((address, target.number) for address in part.addresses)
    if slices or not service.selector:
        return
    for pod in snapshot.pods.values():
        selected = pod.namespace == service.namespace and service.selector.items() <= pod.labels.items()
        if selected and pod.ready and not pod.deleting and not pod.finished:
            for number in _numbers(served, pod):
                yield from ((address, number) for address in pod.addresses)


def _numbers(served: resources.ServicePort, pod: resources.Pod) -> list[int]:
    """Return the port at the pod: a name is the first of that name and protocol (rule A31), or nothing."""
    if isinstance(served.target, int):
        return [served.target]
    named = (served.target, served.protocol)
    return [declared.number for declared in pod.ports if (declared.name, declared.protocol) == named][:1]
