"""Services as this node resolves them: where they listen, what is behind them, what policy sets allow of that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from agent import desired, reconciler
from agent.model import net, resources
from agent.rpc import describe, details
from agent.services import frontends


def services(now: reconciler.Enforcement) -> Iterator[details.Service]:
    """Yield every Service of the cluster, by namespace and name."""
    snapshot = now.snapshot
    behind = frontends.Endpoints(snapshot)
    owners = {address: pod for pod in snapshot.pods.values() if not pod.finished for address in pod.addresses}
    nodes = tuple(address for node in snapshot.nodes.values() for address in node.addresses)
    pods = _pods_by_set(now)
    for service in snapshot.services.values():
        listening = tuple(_frontends(now, service, nodes))
        numbers = dict.fromkeys(one.number for one in listening if one.number)
        yield details.Service(
            namespace=service.namespace,
            name=service.name,
            frontends=listening,
            backends=tuple(_backends(now, service, behind, owners)),
            classes=tuple(one for number in numbers for one in _classes(now, number, pods)),
        )


def _frontends(
    now: reconciler.Enforcement, service: resources.Service, nodes: tuple[net.Address, ...]
) -> Iterator[details.ServiceFrontend]:
    for port in service.ports:
        for one in frontends.listening_at(service, port, nodes):
            number = now.state.frontends.get(one, 0)
            if number or one.address not in nodes:  # node ports listen at this node alone
                yield details.ServiceFrontend(
                    address=one.address, port=one.port, protocol=port.protocol.name, number=number
                )


def _backends(
    now: reconciler.Enforcement,
    service: resources.Service,
    behind: frontends.Endpoints,
    owners: dict[net.Address, resources.Pod],
) -> Iterator[details.ServiceBackend]:
    found = {(address, number, port.protocol) for port in service.ports for address, number in behind.of(service, port)}
    for address, number, protocol in sorted(found, key=lambda one: (one[0].version, int(one[0]), one[1])):
        pod = owners.get(address)
        yield details.ServiceBackend(
            address=address,
            port=number,
            protocol=protocol.name,
            identity=describe.identity_of(address, now.state),
            owner=resources.ObjectRef("Pod", pod.namespace, pod.name) if pod is not None else None,
        )


def _pods_by_set(now: reconciler.Enforcement) -> dict[int, tuple[str, ...]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for endpoint in now.state.endpoints.values():
        found[endpoint.egress_set].append(f"{endpoint.namespace}/{endpoint.pod}")
    return {number: tuple(sorted(pods)) for number, pods in found.items()}


def _classes(
    now: reconciler.Enforcement, number: int, pods: dict[int, tuple[str, ...]]
) -> Iterator[details.ServiceClass]:
    """Yield what each egress set of this node allows of the backends `number`."""
    for policy_set in sorted(now.state.sets.values(), key=lambda one: one.id):
        if policy_set.direction is net.Direction.EGRESS:
            found, rule = now.state.classes.get((policy_set.id, number), (None, 0))
            ref = now.state.rules.get(rule) if found is desired.ServiceClass.ALL else None
            yield details.ServiceClass(
                number=number,
                policy_set=policy_set.id,
                allows=found.name.lower() if found is not None else "mixed",
                rule=str(ref) if ref is not None else "",
                pods=pods.get(policy_set.id, ()),
            )
