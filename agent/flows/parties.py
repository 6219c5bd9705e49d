"""Who a recorded end is in a cluster of another moment; what cannot be told is said, never guessed.

A pod is known by namespace and name, and must still have its address: a name may be given to another pod. A pod that
is gone is stood in for by one of its namespace with the same stable labels, as selectors see the same in both. An
address that no pod had and one has now is nobody's that could be judged; nor is one that nobody named, while there are
pods whose addresses are not known (`placing` finds what a recording knows of those).
"""

from __future__ import annotations

import dataclasses

from agent.flows import placing, records, talks, workloads
from agent.model import identity, net, resources
from agent.policy import dialled, evaluator


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A party at an address; with `why` set there is none, and with `stands_in` it is another pod of the workload."""

    party: evaluator.Party = None
    address: net.Address
    port: int = 0
    """Where it is a destination."""
    stands_in: bool = False
    why: str = ""
    """Why it cannot be told who this is; holds names, escape it to print."""


class Directory:
    """The parties of one snapshot, found by what records say of them."""

    def __init__(self, placed: placing.Placed) -> None:
        """Index pods by what stands in for them, and everybody by address."""
        snapshot = self._snapshot = placed.snapshot
        self._nodes = placed.nodes
        self._bare: dict[tuple[str, object], resources.Pod] = {}
        self._twins: dict[tuple[str, object, int], resources.Pod] = {}
        self._owners: dict[net.Address, evaluator.Party] = {}
        others: tuple[resources.Node | resources.Host, ...] = (*snapshot.hosts.values(), *snapshot.nodes.values())
        for other in others:
            self._owners.update(dict.fromkeys(other.addresses, other))
        for pod in snapshot.pods.values():
            if pod.has_identity:
                self._owners.update(dict.fromkeys(pod.addresses, pod))
                for address in pod.addresses:
                    key = pod.namespace, workloads.stable(pod.labels), address.version
                    self._twins.setdefault(key, pod)
            elif placing.lacks_address(pod):
                self._bare.setdefault((pod.namespace, workloads.stable(pod.labels)), pod)

    def source(self, end: records.End) -> Found:
        """Return who opened a flow."""
        return self._pod(end) if end.pod else self._other(end)

    def destinations(self, talk: talks.Talk) -> tuple[Found, ...]:
        """Return who a flow leads to: of a Service's address each backend, and never nobody."""
        end = talk.destination
        service = talks.service_of(end)
        if service is None:
            return (dataclasses.replace(self.source(end), port=end.port),)
        protocol = protocol_of(talk.key.protocol)
        behind = dialled.behind(self._snapshot, end.address, end.port, protocol) if protocol else None
        if (bare := self._bare_backend(service)) is not None:
            why = f"{service} has a backend without an address: pod {bare.namespace}/{bare.name}"
            return (Found(address=end.address, why=why),)
        if behind is None or not behind.endpoints:
            return (Found(address=end.address, why=f"{service} has no backends now, or another address"),)
        return tuple(
            Found(party=self._owners.get(address), address=address, port=port) for address, port in behind.endpoints
        )

    def _bare_backend(self, ref: resources.ObjectRef) -> resources.Pod | None:
        """Return a backend whose address nobody knows: a Service passes where any does, so all must be known."""
        service = self._snapshot.services.get((ref.namespace, ref.name))
        own = ((part.namespace, part.service) for part in self._snapshot.endpoint_slices.values())
        if service is None or not service.selector or (ref.namespace, ref.name) in own:
            return None
        wanted = service.selector.items()
        mates = (pod for pod in self._snapshot.pods.values() if pod.namespace == ref.namespace and pod.ready)
        return next((pod for pod in mates if placing.lacks_address(pod) and wanted <= pod.labels.items()), None)

    def _pod(self, end: records.End) -> Found:
        pod = self._snapshot.pods.get((end.namespace, end.pod))
        if pod is not None and end.address in pod.addresses:
            return Found(party=pod, address=end.address)
        workload = end.namespace, workloads.stable(end.labels)
        twin = self._twins.get((*workload, end.address.version))
        if twin is not None:
            address = next(one for one in twin.addresses if one.version == end.address.version)
            return Found(party=twin, address=address, stands_in=True)
        if (bare := self._bare.get(workload)) is not None:
            node = bare.node or self._nodes.get((end.namespace, end.pod))
            party = dataclasses.replace(bare, addresses=(end.address,), node=node)
            return Found(party=party, address=end.address, stands_in=True)
        why = f"pod {end.namespace}/{end.pod} is gone, and no pod of {end.namespace} has its labels"
        if pod is not None and placing.lacks_address(pod):
            why = (
                f"pod {end.namespace}/{end.pod} has no address in the manifests, "
                "and other labels than it was recorded with"
            )
        return Found(address=end.address, why=why)

    def _other(self, end: records.End) -> Found:
        owner = self._owners.get(end.address)
        if isinstance(owner, resources.Pod):
            why = f"{end.address} was no pod's and is now {owner.namespace}/{owner.name}'s"
            return Found(address=end.address, why=why)
        if owner is None and end.identity == identity.UNMANAGED and not end.names:
            return Found(address=end.address, why=f"{end.address} was a pod's that nobody knew")
        if owner is None and self._bare and not (end.identity or end.reserved or end.names):
            why = (
                f"{end.address} may be a pod's: some have no address in the manifests, "
                "and it was recorded without a name"
            )
            return Found(address=end.address, why=why)
        return Found(party=owner, address=end.address)


def protocol_of(number: int) -> net.Protocol | None:
    """Return the protocol of an IANA number, or None for one that policies do not know."""
    return next((one for one in net.Protocol if one.value == number), None)
