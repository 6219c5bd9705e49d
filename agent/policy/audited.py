"""Which policies of a cluster are in audit, and by which means (rule A51).

The rule: what is not clearly in audit is enforced. A name means the NetworkPolicy of that name alone, a namespace
whatever policies it has, and an annotation counts only where the node's admin lets it: people who may write policies
would take their own walls down with it otherwise. Where it does not count, a Problem says so.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping

from agent import snapshot
from agent.model import audit as audit_
from agent.model import resources

PATH = f"metadata.annotations[{audit_.ANNOTATION}]"
KIND = "NetworkPolicy"
_REFUSED = "does not count: this node's agent runs without --allow-audit-annotations;"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What is in audit."""

    policies: Mapping[resources.ObjectRef, tuple[audit_.Means, ...]]
    annotated: frozenset[audit_.Target] = frozenset()
    """What an annotation that counts asks for; flags and commands are known to who gave them."""
    problems: tuple[resources.Problem, ...] = ()


NOTHING = Audited(policies={})


def find(cluster: snapshot.Snapshot, audit: audit_.Audit) -> Audited:
    """Find the policies of `cluster` that `audit` means."""
    asking = [one for one in cluster.policies.values() if one.asks_audit]
    spaces = [one for one in cluster.namespaces.values() if one.asks_audit]
    if not audit.annotations:
        problems = tuple(_not_counting(asking, spaces))
        asking, spaces = [], []
    else:
        problems = ()
    means: defaultdict[resources.ObjectRef, set[audit_.Means]] = defaultdict(set)
    for policy in asking:
        means[policy.ref].add(audit_.Means.ANNOTATION)
    annotated = frozenset(audit_.Target(one.name) for one in spaces)
    for targets, by in (
        (audit.flags, audit_.Means.FLAG),
        (audit.commands, audit_.Means.COMMAND),
        (annotated, audit_.Means.ANNOTATION),
    ):
        for policy in cluster.policies.values() if targets else ():
            if not targets.isdisjoint(_named(policy)):
                means[policy.ref].add(by)
    return Audited(
        policies={ref: tuple(sorted(found, key=lambda one: one.value)) for ref, found in means.items()},
        annotated=annotated | {audit_.Target(one.namespace, one.name) for one in asking},
        problems=problems,
    )


def enforced(cluster: snapshot.Snapshot, found: Audited) -> snapshot.Snapshot:
    """Return the cluster without the policies in audit: what isolates, and what pods are held for."""
    if not found.policies:
        return cluster
    return dataclasses.replace(
        cluster, policies={ref: policy for ref, policy in cluster.policies.items() if ref not in found.policies}
    )


def _named(policy: resources.NetworkPolicy) -> Iterator[audit_.Target]:
    yield audit_.Target(policy.namespace)
    if policy.kind == KIND:
        yield audit_.Target(policy.namespace, policy.name)


def _not_counting(
    asking: list[resources.NetworkPolicy], spaces: list[resources.Namespace]
) -> Iterator[resources.Problem]:
    for policy in asking:
        yield resources.Problem(policy.ref, PATH, f"{_REFUSED} the policy is enforced")
    for space in spaces:
        ref = resources.ObjectRef("Namespace", "", space.name)
        yield resources.Problem(ref, PATH, f"{_REFUSED} its policies are enforced")
