"""Which local pods are enforced on, which are held, and which pod an address belongs to.

A sandbox is what the node sees, a pod what the cluster says; they meet by namespace, name and UID. The
node is believed about addresses (the API's podIP is always too late) and the cluster about labels. A
sandbox whose pod the snapshot does not have yet is held or passes by `endpoint.HoldMode` (rule A45);
hostNetwork pods are never subjects (rule A26), finished ones no longer (rule A27): what is left of their
sandboxes is no endpoint.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

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


def resolve(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> Ownership:
    """Join the sandboxes of `node` with the pods of `cluster`, and settle who owns which address."""
    guarded = {policy.namespace for policy in cluster.policies.values()}
    subjects = sorted(filter(None, (_join(cluster, node, guarded, sandbox) for sandbox in node.sandboxes)), key=_claim)
    taken: dict[net.Address, Subject] = {}
    settled: list[Subject] = []
    for subject in subjects:
        kept = tuple(address for address in subject.addresses if taken.setdefault(address, subject) is subject)
        settled.append(dataclasses.replace(subject, addresses=kept))
    owners, problems = _owners(cluster.pods.values(), taken)
    return Ownership(subjects=tuple(settled), owners=owners, problems=problems)


def held_ranges(cluster: snapshot.Snapshot, node: endpoint.NodeView) -> frozenset[net.Network]:
    """Return the ranges in which addresses without an endpoint are held (rule A45)."""
    here = cluster.nodes.get(node.name)
    match node.hold_mode:
        case endpoint.HoldMode.STRICT:
            hold = True
        case endpoint.HoldMode.AUTO:
            hold = bool(cluster.policies)
        case endpoint.HoldMode.PERMISSIVE:
            hold = False
    return frozenset(here.pod_ranges) if here is not None and hold else frozenset()


def _join(
    cluster: snapshot.Snapshot, node: endpoint.NodeView, guarded: set[str], sandbox: endpoint.Sandbox
) -> Subject | None:
    pod = cluster.pods.get((sandbox.namespace, sandbox.pod))
    if pod is not None and not _is_of(sandbox, pod, node.name):
        pod = None
    if pod is not None and (pod.host_network or pod.finished):
        return None
    known = pod is not None and pod.namespace in cluster.namespaces
    addresses = sandbox.addresses or (pod.addresses if pod is not None else ())
    return Subject(
        sandbox=sandbox,
        pod=pod if known else None,
        held=not known and _holds(node.hold_mode, guarded=sandbox.namespace in guarded),
        addresses=tuple(dict.fromkeys(map(net.normalize, addresses))),
    )


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


def _claim(subject: Subject) -> tuple[object, ...]:
    """Order local claims to one address: a pod not known yet is the newest there, and held is the safe side."""
    pod, sandbox = subject.pod, subject.sandbox
    return (pod is not None, *(_rank(pod) if pod else ()), sandbox.namespace, sandbox.pod, sandbox.netns_cookie)


def _rank(pod: resources.Pod) -> tuple[bool, bool]:
    """Prefer a running pod, then one that stays (rules A27, A28)."""
    return pod.phase is not resources.PodPhase.RUNNING, pod.deleting


def _owners(
    pods: Iterable[resources.Pod], local: Mapping[net.Address, Subject]
) -> tuple[dict[net.Address, resources.Pod], tuple[resources.Problem, ...]]:
    """Give each address to one pod; what a local sandbox has is its pod's, whatever others claim (rule A49)."""
    owners = {address: subject.pod for address, subject in local.items() if subject.pod is not None}
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
