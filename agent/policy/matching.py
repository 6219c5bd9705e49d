"""Matches one part of a rule against one party of a flow, and says why: selectors, blocks, ports.

Part of the evaluator, and as slow and open as it: no identities, no prefixes, no rows, nothing of the compiler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.fqdn import patterns
from agent.model import fqdn, net, resources
from agent.model import labels as labels_

Party: TypeAlias = resources.Pod | resources.Node | resources.Host | None
"""Who is behind an address; None: nobody the snapshot knows."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether one peer or one entry of `ports` matches, and why."""

    matches: bool
    because: str
    asks: tuple[fqdn.NamePattern, ...] | None = None
    """Of an entry of `ports`: the names that DNS queries alone may ask for (rule E17); None: it is for anything."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What else a peer may be matched by."""

    node: str | None = None
    """The subject's own node (rule E10)."""
    names: frozenset[str] = frozenset()
    """Names for which DNS gave the subject the address, and which have not expired (rules D15, E15)."""


_NOTHING_ELSE = Beside()


def match_peer(
    snapshot: snapshot_.Snapshot,
    peer: resources.Peer,
    *,
    policy_namespace: str,
    party: Party,
    address: net.Address,
    beside: Beside = _NOTHING_ELSE,
) -> Finding:
    """Match a peer of a policy of `policy_namespace` against `party` at `address`."""
    match peer:
        case resources.IPBlock():
            finding = match_block(peer, address)
            member = _member(snapshot, party, address) if peer.outside and finding.matches else None
            if member is None:
                return finding
            return Finding(matches=False, because=f"{address} is {member}, which no prefix means (E11)")
        case resources.EntityPeer():
            return _match_entity(snapshot, peer.entity, party, address, beside.node)
        case resources.NamesPeer():
            return _match_names(snapshot, peer, party, address, beside.names)
        case resources.PodPeer():
            return _match_pod(snapshot, peer, policy_namespace, party)


def selects(snapshot: snapshot_.Snapshot, policy: resources.NetworkPolicy, pod: resources.Pod) -> bool:
    """Tell whether a policy of any kind means a pod: by namespace, or by what its namespace is labelled (A19, D7)."""
    if policy.subject_namespaces is None:
        return policy.namespace == pod.namespace and policy.subject.selects(pod.labels)
    spaces = _namespace_labels(snapshot, pod.namespace)
    return policy.subject_namespaces.selects(spaces) and policy.subject.selects(pod.labels)


def _member(snapshot: snapshot_.Snapshot, party: Party, address: net.Address) -> str | None:
    """Return what in the cluster has an address, a pod or a node; None: it is outside (rules E10, E11)."""
    if isinstance(party, resources.Pod) and party.has_identity:
        return f"pod {name(party)}"
    return next((f"node {node.name}" for node in snapshot.nodes.values() if address in node.addresses), None)


def _match_entity(
    snapshot: snapshot_.Snapshot, entity: resources.Entity, party: Party, address: net.Address, own: str | None
) -> Finding:
    """Match one of Cilium's words (rule E10)."""
    pod = isinstance(party, resources.Pod) and party.has_identity
    here = own is not None and own in snapshot.nodes and address in snapshot.nodes[own].addresses
    node = not pod and any(address in one.addresses for one in snapshot.nodes.values())
    server = any(
        address in part.addresses
        for part in snapshot.endpoint_slices.values()
        if (part.namespace, part.service) == ("default", "kubernetes")
    )
    outside = not pod and not node
    matches = {
        resources.Entity.ALL: True,
        resources.Entity.WORLD: outside,
        resources.Entity.WORLD_IPV4: outside and net.family_of(address) is net.Family.IPV4,
        resources.Entity.WORLD_IPV6: outside and net.family_of(address) is net.Family.IPV6,
        resources.Entity.CLUSTER: pod or node or server,
        resources.Entity.HOST: node and here,
        resources.Entity.REMOTE_NODE: node and not here,
        resources.Entity.KUBE_APISERVER: server,
    }[entity]
    because = f"{address} is {'' if matches else 'not '}of the entity {entity.value} (E10)"
    return Finding(matches=matches, because=because)


def _match_names(
    snapshot: snapshot_.Snapshot,
    peer: resources.NamesPeer,
    party: Party,
    address: net.Address,
    names: frozenset[str],
) -> Finding:
    """Match an address by the names DNS gave it for; Cilium's names mean nobody in the cluster (rules D14, E15)."""
    if not names:
        return Finding(matches=False, because=f"DNS gave the pod {address} for no name it knows of (D15, E15)")
    member = _member(snapshot, party, address)
    for learned in sorted(names):
        for pattern in peer.patterns:
            if not patterns.matches(pattern, learned):
                continue
            if pattern.dialect is fqdn.Dialect.CILIUM and member is not None:
                return Finding(matches=False, because=f"{learned} leads to {member}, which no name means (E15)")
            return Finding(matches=True, because=f"DNS gave the pod {address} for {learned}, as {pattern} (D14, E15)")
    wanted = ", ".join(map(str, peer.patterns))
    because = f"DNS gave the pod {address} for {', '.join(sorted(names))}, wanted {wanted} (D14, E15)"
    return Finding(matches=False, because=because)


def match_block(block: resources.IPBlock, address: net.Address) -> Finding:
    """Match an address, whoever owns it (rule A22), inside `cidr` and in no `except` (rule A23)."""
    if address.version != block.cidr.version:
        return Finding(matches=False, because=f"{block.cidr} says nothing of the other family's {address} (A24)")
    if address not in block.cidr:
        return Finding(matches=False, because=f"{address} is not in {block.cidr} (A22)")
    for hole in block.excepts:
        if address in hole:
            return Finding(matches=False, because=f"{address} is in the exception {hole} of {block.cidr} (A23)")
    return Finding(matches=True, because=f"{address} is in {block.cidr} (A22)")


def _match_pod(snapshot: snapshot_.Snapshot, peer: resources.PodPeer, policy_namespace: str, party: Party) -> Finding:
    """Selectors match pods and never bare addresses (rule A21); both selectors of one peer must hold (rule A20)."""
    if not isinstance(party, resources.Pod):
        return Finding(matches=False, because=f"selectors match pods, and {describe(party)} is none (A21)")
    if not party.has_identity:
        rule = "A26" if party.host_network else "A27"
        state = "on its node's network" if party.host_network else "finished or without an address"
        return Finding(matches=False, because=f"{name(party)} is {state}, so no selector matches it ({rule})")
    if peer.namespaces is None:
        if party.namespace != policy_namespace:
            because = f"{name(party)} is not in the policy's namespace {policy_namespace} (A20)"
            return Finding(matches=False, because=because)
    else:
        missing = unmet(peer.namespaces, _namespace_labels(snapshot, party.namespace))
        if missing is not None:
            return Finding(matches=False, because=f"namespace {party.namespace} is not selected: {missing} (A11, A20)")
    missing = None if peer.pods is None else unmet(peer.pods, party.labels)
    if missing is not None:
        return Finding(matches=False, because=f"{name(party)} is not selected: {missing} (A11, A20)")
    return Finding(matches=True, because=f"{name(party)} is selected (A20)")


def match_port(entry: resources.PortMatch, *, protocol: net.Protocol, port: int, destination: Party) -> Finding:
    """Match the port, and say which names may be asked for through it (rule E17)."""
    finding = _match_port(entry, protocol=protocol, port=port, destination=destination)
    if entry.asks is None:
        return finding
    because = f"{finding.because}, for DNS queries for {' or '.join(map(str, entry.asks))} alone (E17)"
    return dataclasses.replace(finding, because=because, asks=entry.asks)


def _match_port(entry: resources.PortMatch, *, protocol: net.Protocol, port: int, destination: Party) -> Finding:
    """Match the port at the destination pod (rule A30), a name by what that pod declares (rules A31 to A33)."""
    if entry.protocol is not protocol:
        because = f"{entry.protocol.name} entries never match {protocol.name} (A8, A35, A41)"
        return Finding(matches=False, because=because)
    if entry.port is None:
        return Finding(matches=True, because=f"every {entry.protocol.name} port (A8)")
    if isinstance(entry.port, net.PortRange):
        matches = entry.port.first <= port <= entry.port.last
        span = f"{entry.port.first} to {entry.port.last}" if entry.port.first != entry.port.last else entry.port.first
        return Finding(matches=matches, because=f"port {port} is {'' if matches else 'not '}{span} (A9, A34)")
    if not isinstance(destination, resources.Pod) or not destination.has_identity:
        because = f"port name {entry.port} means nothing at {describe(destination)}, which is no pod (A32)"
        return Finding(matches=False, because=because)
    numbers = {
        declared.number
        for declared in destination.ports
        if (declared.name, declared.protocol) == (entry.port, entry.protocol)
    }
    if not numbers:
        because = f"{name(destination)} declares no {entry.protocol.name} port {entry.port} (A32)"
        return Finding(matches=False, because=because)
    meant = " and ".join(str(number) for number in sorted(numbers))
    because = f"port {entry.port} of {name(destination)} is {meant} (A31, A33)"
    return Finding(matches=port in numbers, because=because)


def unmet(selector: labels_.LabelSelector, labels: Mapping[str, str]) -> str | None:
    """Return the first requirement that `labels` do not satisfy, in words; None where they satisfy all (rule A11)."""
    return next(_unmet_requirements(selector, labels), None)


def _unmet_requirements(selector: labels_.LabelSelector, labels: Mapping[str, str]) -> Iterator[str]:
    for requirement in selector.requirements:
        present = requirement.key in labels
        value = labels.get(requirement.key)
        shown = f"{requirement.key}={value}" if present else f"no label {requirement.key}"
        wanted = ", ".join(repr(item) for item in sorted(requirement.values))
        match requirement.operator:
            case labels_.Operator.IN:
                if not present or value not in requirement.values:
                    yield f"{shown}, wanted one of {wanted}"
            case labels_.Operator.NOT_IN:
                if present and value in requirement.values:
                    yield f"{shown}, wanted none of {wanted}"
            case labels_.Operator.EXISTS:
                if not present:
                    yield f"{shown}, wanted any"
            case labels_.Operator.DOES_NOT_EXIST:
                if present:
                    yield f"{shown}, wanted none"


def _namespace_labels(snapshot: snapshot_.Snapshot, name: str) -> Mapping[str, str]:
    namespace = snapshot.namespaces.get(name)
    return labels_.NO_LABELS if namespace is None else namespace.labels


def name(pod: resources.Pod) -> str:
    """Show as `namespace/name`."""
    return f"{pod.namespace}/{pod.name}"


def describe(party: Party) -> str:
    """Show who a party is, in a sentence."""
    match party:
        case resources.Pod():
            return name(party)
        case resources.Node():
            return f"node {party.name}"
        case resources.Host():
            return f"host {party.name}"
        case None:
            return "the address"
