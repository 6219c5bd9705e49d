"""Which local pods are enforced on, which are held, and which pod an address belongs to.

A sandbox is what the node sees, a pod what the cluster says; they meet by namespace, name and UID. The
node is believed about addresses (the API's podIP is always too late) and the cluster about labels. A
sandbox whose pod the snapshot does not have yet is held or passes by `endpoint.HoldMode` (rule A45). One of which
nobody knows yet whose it is, may be that of a pod that a policy selects: it is held unless no namespace at all has a
policy, and in permissive mode while such a pod is to come. hostNetwork pods are never subjects (rule A26). A finished
pod owns no address (rule A27), but what is left of its sandbox stays isolated as it was (rule A49): a pod may be called
Failed before its processes have ended.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from agent import snapshot
from agent.model import endpoint, net, resources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A local sandbox to enforce on; `pod` is None where the snapshot does not know it."""

    sandbox: endpoint.Sandbox
    pod: resources.Pod | None
    held: bool
    addresses: tuple[net.Address, ...]
    """Those no other pod has a better claim to."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """The local subjects, who owns each pod address of the cluster, and the quarrels about that."""

    subjects: tuple[Subject, ...]
    owners: Mapping[net.Address, resources.Pod]
    problems: tuple[resources.Problem, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The ranges in which addresses without an endpoint are held (rule A45), and why others are not."""

    ranges: frozenset[net.Network] = frozenset()
    problems: tuple[resources.Problem, ...] = ()


def resolve(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> Ownership:
    """Join the sandboxes of `node` with the pods of `cluster`, and settle who owns which address."""
    guarded = _guarded(cluster, node)
    unknown = _holds_unknown(cluster, node, guarded=bool(guarded))
    joined = (_join(cluster, node, guarded, sandbox, unknown_held=unknown) for sandbox in node.sandboxes)
    subjects = sorted(filter(None, joined), key=_claim)
    living = [subject for subject in subjects if not _ended(subject)]
    ended = [subject for subject in subjects if _ended(subject)]
    taken: dict[net.Address, Subject | None] = {}
    settled = [_settle(subject, taken) for subject in living]
    owners, problems = _owners(cluster.pods.values(), taken)
    spoken_for = dict.fromkeys(owners) | taken
    settled += [_settle(subject, spoken_for) for subject in ended]
    return Ownership(subjects=tuple(settled), owners=owners, problems=problems)


def _guarded(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> set[str]:
    """Return the namespaces that have a policy; one that is not known yet may be whatever selects namespaces means."""
    policies = cluster.policies.values()
    guarded = {policy.namespace for policy in policies if policy.subject_namespaces is None}
    wide = [policy.subject_namespaces for policy in policies if policy.subject_namespaces is not None]
    if wide:
        for name in {sandbox.namespace for sandbox in node.sandboxes if sandbox.identified}:
            known = cluster.namespaces.get(name)
            if known is None or any(selector.selects(known.labels) for selector in wide):
                guarded.add(name)
        guarded.add("")
    return guarded


def hold(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> Hold:
    """Return what is held of this node's pod ranges.

    A range in which other nodes have pods is none of this node's own: an IPAM that leaves podCIDR alone. Manifests
    that describe no node at all are not blamed for that. In permissive mode both ranges and problems last only while a
    pod is to come that a policy selects.
    """
    if not _holds_unknown(cluster, node, guarded=bool(cluster.policies)):
        return Hold()
    here = cluster.nodes.get(node.name)
    ranges = here.pod_ranges if here is not None else ()
    if not ranges:
        told = bool(cluster.nodes) or node.hold_mode is endpoint.HoldMode.STRICT
        return Hold(problems=(_unheld(node, "no pod range of this node is known"),) if told else ())
    foreign = _foreign(cluster.pods.values(), node.name, ranges)
    problems = [
        _unheld(node, f"{each} is not this node's alone, {address} is a pod of another node")
        for each, address in foreign.items()
    ]
    return Hold(ranges=frozenset(ranges) - foreign.keys(), problems=tuple(sorted(problems)))


def _foreign(pods: Iterable[resources.Pod], node: str, ranges: Iterable[net.Network]) -> dict[net.Network, net.Address]:
    """Return the ranges with a pod of another node, and its address; numbers first, for there are many pods."""
    bounds = [(each, int(each.network_address), int(each.broadcast_address)) for each in ranges]
    found: dict[net.Network, net.Address] = {}
    for pod in pods:
        for address in pod.addresses:
            value = int(address)
            for each, first, last in bounds:
                inside = first <= value <= last and address.version == each.version
                if inside and pod.node not in (None, node) and pod.has_identity:
                    found[each] = address
    return found


def _unheld(node: endpoint.NodeView, cause: str) -> resources.Problem:
    return resources.Problem(
        ref=resources.ObjectRef("Node", "", node.name),
        path="spec.podCIDRs",
        reason=f"{cause}; packets of a pod pass until its sandbox has been read, not only once it is known",
    )


def _ended(subject: Subject) -> bool:
    return subject.pod is not None and subject.pod.finished


def _settle(subject: Subject, taken: dict[net.Address, Subject | None]) -> Subject:
    """Leave a subject the addresses that nobody has taken before, and note them as taken."""
    kept = tuple(address for address in subject.addresses if taken.setdefault(address, subject) is subject)
    return dataclasses.replace(subject, addresses=kept)


def _join(
    cluster: snapshot.Snapshot,
    node: endpoint.NodeView,
    guarded: set[str],
    sandbox: endpoint.Sandbox,
    *,
    unknown_held: bool,
) -> Subject | None:
    pod = cluster.pods.get((sandbox.namespace, sandbox.pod))
    if pod is not None and not _is_of(sandbox, pod, node.name):
        pod = None
    if pod is not None and pod.host_network:
        return None
    known = pod is not None and pod.namespace in cluster.namespaces
    held = _holds(node.hold_mode, guarded=sandbox.namespace in guarded) if sandbox.identified else unknown_held
    held = held and not known
    if not (sandbox.identified or held):
        return None
    addresses = tuple(dict.fromkeys(map(net.normalize, _addresses(sandbox, pod))))
    return Subject(sandbox=sandbox, pod=pod if known else None, held=held, addresses=addresses)


def _addresses(sandbox: endpoint.Sandbox, pod: resources.Pod | None) -> tuple[net.Address, ...]:
    """Return those the node has seen; one that CNI attached without saying which has the API's."""
    return sandbox.addresses or (pod.addresses if pod is not None and sandbox.attached else ())


def _is_of(sandbox: endpoint.Sandbox, pod: resources.Pod, node: str) -> bool:
    """Whether the sandbox is this pod's, and not that of an earlier one of the same name (rule A28)."""
    if sandbox.uid and pod.uid:
        return sandbox.uid == pod.uid
    return pod.node is None or pod.node == node


def _holds(mode: endpoint.HoldMode, *, guarded: bool) -> bool:
    match mode:
        case endpoint.HoldMode.STRICT:
            return True
        case endpoint.HoldMode.AUTO:
            return guarded
        case endpoint.HoldMode.PERMISSIVE:
            return False


def _holds_unknown(cluster: snapshot.Snapshot, node: endpoint.NodeView, *, guarded: bool) -> bool:
    """Whether what may be any pod of this node is held: a network namespace without a name, an address in its range."""
    if node.hold_mode is endpoint.HoldMode.PERMISSIVE:
        return any(_may_be_selected(cluster, pod) for pod in _to_come(cluster, node))
    return _holds(node.hold_mode, guarded=guarded)


def _to_come(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> Iterator[resources.Pod]:
    """Yield the pods of this node without an address that their sandboxes say or vouch for."""
    sandboxes = collections.defaultdict(list)
    for sandbox in node.sandboxes:
        sandboxes[sandbox.namespace, sandbox.pod].append(sandbox)
    for key, pod in cluster.pods.items():
        if pod.node != node.name or pod.host_network or pod.finished:
            continue
        own = (sandbox for sandbox in sandboxes.get(key, ()) if _is_of(sandbox, pod, node.name))
        if not any(_addresses(sandbox, pod) for sandbox in own):
            yield pod


def _may_be_selected(cluster: snapshot.Snapshot, pod: resources.Pod) -> bool:
    space = cluster.namespaces.get(pod.namespace)
    for policy in cluster.policies.values():
        wide = policy.subject_namespaces
        there = policy.namespace == pod.namespace if wide is None else space is None or wide.selects(space.labels)
        if there and policy.subject.selects(pod.labels):
            return True
    return False


def _claim(subject: Subject) -> tuple[object, ...]:
    """Order local claims to one address: a pod not known yet is the newest there, and held is the safe side."""
    pod, sandbox = subject.pod, subject.sandbox
    return (pod is not None, *(_rank(pod) if pod else ()), sandbox.namespace, sandbox.pod, sandbox.netns_cookie)


def _rank(pod: resources.Pod) -> tuple[bool, bool]:
    """Prefer a running pod, then one that stays (rules A27, A28)."""
    return pod.phase is not resources.PodPhase.RUNNING, pod.deleting


def _owners(
    pods: Iterable[resources.Pod], local: Mapping[net.Address, Subject | None]
) -> tuple[dict[net.Address, resources.Pod], tuple[resources.Problem, ...]]:
    """Give each address to one pod; what a local sandbox has is its pod's, whatever others claim (rule A49)."""
    owners = {address: found.pod for address, found in local.items() if found is not None and found.pod is not None}
    problems: list[resources.Problem] = []
    for pod in pods:
        if not pod.has_identity:
            continue
        for address in pod.addresses:
            if address in local:
                continue
            other = owners.setdefault(address, pod)
            if other is not pod:
                winner = min(pod, other, key=lambda each: (*_rank(each), each.namespace, each.name))
                owners[address] = winner
                problems.append(_quarrel(address, winner, pod if winner is other else other))
    return owners, tuple(sorted(problems))


def _quarrel(address: net.Address, winner: resources.Pod, loser: resources.Pod) -> resources.Problem:
    return resources.Problem(
        ref=resources.ObjectRef("Pod", loser.namespace, loser.name),
        path="status.podIPs",
        reason=f"{address} is also claimed by Pod {winner.namespace}/{winner.name}, which gets it; "
        "it is judged as that pod until one of the two is gone",
    )
