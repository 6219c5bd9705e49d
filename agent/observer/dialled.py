"""Which Service listens where an application has dialled, and where kube-proxy may send it.

One look-up costs microseconds and a flow record names the same few frontends over and over, so answers are kept. They
are of one state and its snapshot: a Service whose backends change has other answers in the next.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
from collections.abc import Iterator

from agent import desired as desired_
from agent import snapshot as snapshot_
from agent.model import net, resources
from agent.observer import joining
from agent.services import frontends

REMEMBERED = 4096
"""Addresses that are remembered at most; then all are forgotten."""


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """A frontend of a Service; of several that share it, the first by name."""

    ref: resources.ObjectRef
    backends: joining.Backends


class Services:
    """Looks frontends up, for any thread: two that look the same up at once find the same."""

    def __init__(self, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """Nothing is looked up or indexed yet."""
        self._state = state
        self._snapshot = snapshot
        self._found: dict[tuple[int, bytes, bytes], Service | None] = {}

    def at(self, protocol: int, address: bytes, port: bytes) -> Service | None:
        """Return the Service that listens there (as `joining.Towards` has it); None: none that has backends."""
        key = (protocol, address, port)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= REMEMBERED:
                self._found = {}
            found = self._found[key] = self._look_up(protocol, address, port)
            return found

    def _look_up(self, protocol: int, address: bytes, port: bytes) -> Service | None:
        listens = net.normalize(ipaddress.IPv6Address(address))
        frontend = desired_.Frontend(listens, int.from_bytes(port, "big"), protocol)
        number = self._state.frontends.get(frontend)
        if number is None:
            return None
        backends: set[tuple[bytes, bytes]] = set()
        first: resources.ObjectRef | None = None
        for ref in self._state.services.get(number, ()):
            for found, served in self._ports(ref, frontend):
                first = first or ref
                backends.update(
                    (net.mapped(each), target.to_bytes(2, "big"))
                    for each, target in self._endpoints.of(found, served)
                    if each.version == listens.version
                )
        return Service(first, frozenset(backends)) if first is not None else None

    def _ports(
        self, ref: resources.ObjectRef, frontend: desired_.Frontend
    ) -> Iterator[tuple[resources.Service, resources.ServicePort]]:
        """Yield the ports of a Service that listen at `frontend`."""
        service = self._snapshot.services.get((ref.namespace, ref.name))
        if service is None:
            return
        own = frontend.address in {*service.cluster_addresses, *service.external_addresses}
        for port in service.ports:
            listens = port.port if own else port.node_port
            if port.protocol.value == frontend.protocol and listens == frontend.port:
                yield service, port

    @functools.cached_property
    def _endpoints(self) -> frontends.Endpoints:
        return frontends.Endpoints(self._snapshot)
