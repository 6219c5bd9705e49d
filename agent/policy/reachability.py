"""Who can reach whom: every ordered pair of a cluster on every declared port, judged by the evaluator.

Manifests as people write them name no addresses, and rules may. A pod or node without one gets a placeholder that is
the same for the same manifests: 10.244.N.10 and up for the pods of the Nth node by name (0: of no node), 172.18.0.10
and up for nodes. They stand in for what the cluster will allocate; only an ipBlock can tell the difference.

Left out: finished pods (rule A27), a pod with itself (rule A40), two machines outside, ports nobody declares.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.model import audit as audit_
from agent.model import net, resources, verdict
from agent.policy import evaluator

NO_AUDITS: Mapping[str, audit_.Audit] = MappingProxyType({})
Port: TypeAlias = tuple[int, net.Protocol]
End: TypeAlias = resources.Pod | resources.Host

POD_PLACEHOLDERS = ipaddress.IPv4Address("10.244.0.0")
NODE_PLACEHOLDERS = ipaddress.IPv4Address("172.18.0.0")
FIRST_PLACEHOLDER = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whether one end reaches another on one port in one family."""

    source: str
    """`namespace/pod`, or `host/NAME`."""
    destination: str
    port: Port
    family: net.Family
    decision: evaluator.Decision

    @property
    def would_deny(self) -> evaluator.Side | None:
        """The first side that policies in audit would deny of what passes (rule A51)."""
        return next(iter(self.decision.would_deny), None)

    @property
    def decisive(self) -> evaluator.Side:
        """The side to name: the one that denies, else the one that a rule allows, else the destination's."""
        sides = (self.decision.egress, self.decision.ingress)
        denying = (side for side in sides if not side.allowed)
        by_rule = (side for side in reversed(sides) if side.rule is not None)
        return next(denying, None) or next(by_rule, self.decision.ingress)

    @property
    def reason(self) -> verdict.Reason:
        """Return the decision in the words of verdicts."""
        if not self.decision.allowed:
            return verdict.Reason.POLICY_DENIED
        ruled = self.decisive.rule is not None
        return verdict.Reason.RULE_ALLOWED if ruled else verdict.Reason.NOT_ISOLATED


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A snapshot in which every pod has an address, and how many got a placeholder."""

    snapshot: snapshot_.Snapshot
    pods: int
    nodes: int


def place(snapshot: snapshot_.Snapshot) -> Placed:
    """Give placeholder addresses to pods, and to nodes that have hostNetwork pods, where they have none."""
    names = sorted({pod.node for pod in snapshot.pods.values() if pod.node} | set(snapshot.nodes))
    parties: tuple[resources.Pod | resources.Node | resources.Host, ...] = (
        *snapshot.pods.values(),
        *snapshot.nodes.values(),
        *snapshot.hosts.values(),
    )
    taken = {address for party in parties for address in party.addresses}
    nodes = {name: snapshot.nodes.get(name, resources.Node(name=name)) for name in names}
    bare = [node for node in nodes.values() if not node.addresses]
    for node in bare:
        address = _free(NODE_PLACEHOLDERS, taken)
        nodes[node.name] = dataclasses.replace(node, addresses=(address,))
    pods = dict(snapshot.pods)
    unplaced = [pod for pod in pods.values() if not pod.addresses and not pod.finished]
    for pod in unplaced:
        if pod.host_network and pod.node is not None:
            addresses = nodes[pod.node].addresses
        else:
            number = names.index(pod.node) + 1 if pod.node is not None else 0
            addresses = (_free(POD_PLACEHOLDERS + 256 * number, taken),)
        pods[pod.namespace, pod.name] = dataclasses.replace(pod, addresses=addresses)
    placed = dataclasses.replace(snapshot, pods=pods, nodes=nodes)
    return Placed(snapshot=placed, pods=len(unplaced), nodes=len(bare))


def _free(base: ipaddress.IPv4Address, taken: set[net.Address]) -> ipaddress.IPv4Address:
    address = next(base + step for step in itertools.count(FIRST_PLACEHOLDER) if base + step not in taken)
    taken.add(address)
    return address


def ends(snapshot: snapshot_.Snapshot) -> dict[str, End]:
    """Return everybody who can be an end of a flow, pods before machines outside, by name."""
    pods = {f"{pod.namespace}/{pod.name}": pod for pod in snapshot.pods.values() if pod.addresses and not pod.finished}
    hosts = {f"host/{host.name}": host for host in snapshot.hosts.values() if host.addresses}
    return {**dict(sorted(pods.items())), **dict(sorted(hosts.items()))}


def declared(snapshot: snapshot_.Snapshot) -> list[Port]:
    """Return every port that some end declares, in order."""
    found = {(port.number, port.protocol) for end in ends(snapshot).values() for port in end.ports}
    return sorted(found, key=lambda port: (port[1].value, port[0]))


def everywhere(snapshot: snapshot_.Snapshot, audit: audit_.Audit) -> Mapping[str, audit_.Audit]:
    """Return the same audit for every node, and for pods that have none."""
    return dict.fromkeys(("", *sorted({pod.node for pod in snapshot.pods.values() if pod.node})), audit)


def reach(
    snapshot: snapshot_.Snapshot, ports: Collection[Port], audits: Mapping[str, audit_.Audit] = NO_AUDITS
) -> Iterator[Reach]:
    """Judge every ordered pair on each of `ports` that its destination declares; `audits` go by the node's name."""
    parties = ends(snapshot)
    for port in ports:
        for (source, opener), (destination, receiver) in itertools.product(parties.items(), parties.items()):
            outside = isinstance(opener, resources.Host) and isinstance(receiver, resources.Host)
            if source == destination or outside or not _declares(receiver, port):
                continue
            for flow in flows(opener, receiver, port):
                yield Reach(
                    source=source,
                    destination=destination,
                    port=port,
                    family=net.family_of(flow.destination_address),
                    decision=judged(snapshot, flow, audits),
                )


def judged(
    snapshot: snapshot_.Snapshot, flow: evaluator.Flow, audits: Mapping[str, audit_.Audit]
) -> evaluator.Decision:
    """Judge each end by what is in audit on its own node (rule A51)."""
    at_source, at_destination = (
        audits.get(getattr(party, "node", None) or "", audit_.NOTHING) for party in (flow.source, flow.destination)
    )
    found = evaluator.evaluate(snapshot, flow, at_source)
    if at_source == at_destination:
        return found
    ingress = evaluator.evaluate(snapshot, flow, at_destination).ingress
    return evaluator.Decision(allowed=found.egress.allowed and ingress.allowed, egress=found.egress, ingress=ingress)


def flows(source: End | resources.Node, destination: End | resources.Node, port: Port) -> Iterator[evaluator.Flow]:
    """Yield the flow between two ends once for each family that both have, IPv4 first."""
    for family in net.Family:
        pairs = itertools.product(_of(source, family), _of(destination, family))
        for source_address, destination_address in itertools.islice(pairs, 1):
            yield evaluator.Flow(
                source=source,
                destination=destination,
                source_address=source_address,
                destination_address=destination_address,
                protocol=port[1],
                port=port[0],
            )


def _of(end: End | resources.Node, family: net.Family) -> list[net.Address]:
    return [address for address in end.addresses if net.family_of(address) is family]


def _declares(end: End, port: Port) -> bool:
    return any((declared.number, declared.protocol) == port for declared in end.ports)
