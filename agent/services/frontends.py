"""Where Services listen, and what stands behind them, so that connect() to a Service can be judged early.

The problem: connect() sees the frontend, policies speak of backends (rules A30, A42), and kube-proxy picks
one later. The rule: a service is the set of its backends as policies see them (identity, port, protocol),
numbered by that content, so that Services with like backends are one. It never chooses a backend and never
translates an address. A frontend takes only backends of its own family, as kube-proxy does; without any it
is left out, and kube-proxy refuses. A node port listens at this node only: what is dialled at another node
crosses the packet layer here as it was dialled. This module must not know policies: `classify` asks a callable.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from agent import desired, snapshot
from agent.model import identity, net, numbers, resources


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Backend:
    """A backend as policies see it; protocol is the IANA number."""

    identity: int
    port: int
    protocol: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All frontends with backends, by number, and the Services that have that content."""

    frontends: Mapping[desired.Frontend, int]
    backends: Mapping[int, tuple[Backend, ...]]
    """Sorted; never empty."""
    owners: Mapping[int, tuple[resources.ObjectRef, ...]]


def build(
    cluster: snapshot.Snapshot, identity_of: Callable[[net.Address], identity.NumericIdentity], *, node: str
) -> Services:
    """Resolve every Service of `cluster` as `node` does; `identity_of` is the ipcache.

    Services that share an address and port have the backends of all: which of them is served is not defined.
    """
    found: dict[desired.Frontend, tuple[Backend, ...]] = {}
    listening: defaultdict[desired.Frontend, set[resources.ObjectRef]] = defaultdict(set)
    endpoints = Endpoints(cluster)
    here = cluster.nodes.get(node)
    node_addresses = here.addresses if here is not None else ()
    for _, service in sorted(cluster.services.items()):
        ref = resources.ObjectRef("Service", service.namespace, service.name)
        for port in service.ports:
            by_family = _by_family(endpoints.of(service, port), port.protocol, identity_of)
            for frontend in listening_at(service, port, node_addresses):
                backends = by_family.get(net.family_of(frontend.address))
                if backends:
                    others = found.get(frontend)
                    found[frontend] = tuple(sorted({*others, *backends})) if others else backends
                    listening[frontend].add(ref)
    owners: defaultdict[tuple[Backend, ...], set[resources.ObjectRef]] = defaultdict(set)
    for frontend, backends in found.items():
        owners[backends] |= listening[frontend]
    contents = {
        backends: repr([(each.identity, each.port, each.protocol) for each in backends]).encode() for backends in owners
    }
    assigned = numbers.assign(contents.values())
    by_backends = {backends: assigned[content] for backends, content in contents.items()}
    return Services(
        frontends={frontend: by_backends[backends] for frontend, backends in found.items()},
        backends={number: backends for backends, number in by_backends.items()},
        owners={by_backends[backends]: tuple(sorted(refs)) for backends, refs in owners.items()},
    )


def classify(
    backends: Sequence[Backend], judge: Callable[[Backend], desired.Row | None]
) -> tuple[desired.ServiceClass, int] | None:
    """Class what `judge` says to all backends; None: mixed.

    With ALL comes the rule that allows the first one, with NONE the rule that denies every one, 0 if no one rule does.
    `judge` returns the deciding row, or None for the default deny.
    """
    rows = [judge(backend) for backend in backends]
    allowing = [row for row in rows if row is not None and row.action is desired.Action.ALLOW]
    if not allowing:
        rules = {row.rule if row is not None else 0 for row in rows}
        return desired.ServiceClass.NONE, rules.pop() if len(rules) == 1 else 0
    if len(allowing) == len(rows):
        return desired.ServiceClass.ALL, allowing[0].rule
    return None


def listening_at(
    service: resources.Service, port: resources.ServicePort, node_addresses: Iterable[net.Address]
) -> Iterator[desired.Frontend]:
    """Yield where a port of a Service listens; a headless one listens nowhere."""
    for address in (*service.cluster_addresses, *service.external_addresses):
        yield desired.Frontend(address, port.port, port.protocol.value)
    if port.node_port is not None:
        for address in node_addresses:
            yield desired.Frontend(address, port.node_port, port.protocol.value)


def _by_family(
    endpoints: Iterable[tuple[net.Address, int]],
    protocol: net.Protocol,
    identity_of: Callable[[net.Address], identity.NumericIdentity],
) -> dict[net.Family, tuple[Backend, ...]]:
    gathered: defaultdict[net.Family, set[Backend]] = defaultdict(set)
    for address, port in endpoints:
        gathered[net.family_of(address)].add(Backend(identity_of(address), port, protocol.value))
    return {family: tuple(sorted(backends)) for family, backends in gathered.items()}


class Endpoints:
    """Addresses and ports behind a Service port."""

    def __init__(self, cluster: snapshot.Snapshot) -> None:
        """Index slices and pods that are served."""
        self._slices: defaultdict[tuple[str, str], list[resources.EndpointSlice]] = defaultdict(list)
        for endpoint_slice in cluster.endpoint_slices.values():
            self._slices[endpoint_slice.namespace, endpoint_slice.service].append(endpoint_slice)
        self._pods: defaultdict[str, list[resources.Pod]] = defaultdict(list)
        for pod in cluster.pods.values():
            if pod.ready and not pod.deleting and not pod.finished:
                self._pods[pod.namespace].append(pod)

    def of(self, service: resources.Service, port: resources.ServicePort) -> Iterator[tuple[net.Address, int]]:
        """Yield the endpoints: of its slices if there are any, else of the pods it selects.

        Directories of manifests have no endpoint controller; there the selector must do.
        """
        slices = self._slices.get((service.namespace, service.name))
        return self._of_slices(slices, port) if slices else self._of_pods(service, port)

    def _of_slices(
        self, slices: Iterable[resources.EndpointSlice], port: resources.ServicePort
    ) -> Iterator[tuple[net.Address, int]]:
        for endpoint_slice in slices:
            for served in endpoint_slice.ports:
                if served.name == port.name and served.protocol is port.protocol:
                    yield from ((address, served.number) for address in endpoint_slice.addresses)

    def _of_pods(self, service: resources.Service, port: resources.ServicePort) -> Iterator[tuple[net.Address, int]]:
        wanted = tuple((service.selector or {}).items())
        if not wanted:  # Kubernetes gives such a Service no endpoints of its own
            return
        for pod in self._pods.get(service.namespace, ()):
            if all(pod.labels.get(key) == value for key, value in wanted):
                number = _target(port, pod)
                if number is not None:
                    yield from ((address, number) for address in pod.addresses)


def _target(port: resources.ServicePort, pod: resources.Pod) -> int | None:
    """Return the port at the pod; a name means the pod's first port of that name and protocol, or none."""
    if isinstance(port.target, int):
        return port.target
    return next(
        (each.number for each in pod.ports if each.name == port.target and each.protocol is port.protocol), None
    )
