"""Who a recorded end is in a cluster of another moment; what cannot be told is said, never guessed.

A pod is known by namespace and name, and must still have its address: a name may be given to another pod. A pod that
is gone is stood in for by one of its namespace with the same stable labels, as selectors see the same in both. An
address that no pod had and one has now is nobody's that could be judged.
"""

from __future__ import annotations

import dataclasses

from agent import snapshot as snapshot_
from agent.flows import records, talks, workloads
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

    def __init__(self, snapshot: snapshot_.Snapshot) -> None:
        """Index pods by what stands in for them, and everybody by address."""
        self._snapshot = snapshot
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
        if behind is None or not behind.endpoints:
            return (Found(address=end.address, why=f"{service} has no backends now, or another address"),)
        return tuple(
            Found(party=self._owners.get(address), address=address, port=port) for address, port in behind.endpoints
        )

    def _pod(self, end: records.End) -> Found:
        pod = self._snapshot.pods.get((end.namespace, end.pod))
        if pod is not None and end.address in pod.addresses:
            return Found(party=pod, address=end.address)
        twin = self._twins.get((end.namespace, workloads.stable(end.labels), end.address.version))
        if twin is None:
            why = f"pod {end.namespace}/{end.pod} is gone, and no pod of {end.namespace} has its labels"
            return Found(address=end.address, why=why)
        address = next(one for one in twin.addresses if one.version == end.address.version)
        return Found(party=twin, address=address, stands_in=True)

    def _other(self, end: records.End) -> Found:
        owner = self._owners.get(end.address)
        if isinstance(owner, resources.Pod):
            why = f"{end.address} was no pod's and is now {owner.namespace}/{owner.name}'s"
            return Found(address=end.address, why=why)
        if owner is None and end.identity == identity.UNMANAGED and not end.names:
            return Found(address=end.address, why=f"{end.address} was a pod's that nobody knew")
        return Found(party=owner, address=end.address)


def protocol_of(number: int) -> net.Protocol | None:
    """Return the protocol of an IANA number, or None for one that policies do not know."""
    return next((one for one in net.Protocol if one.value == number), None)
