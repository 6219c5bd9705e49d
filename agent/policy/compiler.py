"""From a snapshot to all that one node enforces: pure, whole, and the same along every path.

The rule: compile everything from scratch, every time, fast enough that nothing needs to be remembered.
Identities cover the whole cluster, policy sets only what this node's pods need. Traffic of the pod's own
node, loopback and own addresses are not looked at here: they pass by position (rules A37, A40).
This module must not know maps, generations or what was enforced before.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from agent import desired
from agent import snapshot as snapshot_
from agent.identity import ipcache
from agent.model import endpoint, labels, net, numbers, resources
from agent.policy import audited as audited_
from agent.policy import classes, selectors, sets, subjects, tiers
from agent.policy.dialects import network_policy
from agent.services import frontends

_Local: TypeAlias = Sequence[tuple[tiers.Tier, Sequence[tiers.Policy]]]
"""The tiers' policies of one namespace."""


class _Choice(NamedTuple):
    """What isolates a subject; None: nothing does."""

    ingress: sets.Selection | None = None
    egress: sets.Selection | None = None
    ingress_audit: sets.Selection | None = None
    """What would, were the policies in audit enforced too; None: none of them selects it (rule A51)."""
    egress_audit: sets.Selection | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What to enforce, and what could not be honoured; problems of decoding stay in the snapshot."""

    state: desired.DesiredState
    problems: tuple[resources.Problem, ...] = ()
    audited: audited_.Audited = audited_.NOTHING


def compile_node(snapshot: snapshot_.Snapshot, node: endpoint.NodeView) -> Compiled:
    """Compile what `node` enforces of `snapshot`; the revision is left at 0."""
    audited = audited_.find(snapshot, node.audit)
    enforced = audited_.enforced(snapshot, audited)
    ownership = subjects.resolve(enforced, node)
    local = {subject.sandbox.namespace for subject in ownership.subjects}
    stack = (network_policy.tier(policy for policy in snapshot.policies.values() if policy.namespace in local),)
    mentioned = network_policy.mentioned(snapshot.policies.values())
    cache = ipcache.build(ownership.owners, snapshot.namespaces, mentioned)
    choices = _choose(stack, ownership.subjects, audited.policies.keys())
    selections = {selection for choice in choices for selection in choice if selection is not None}
    compiled, rules = sets.build(selections, selectors.Index(cache.identities.values()))
    services = frontends.build(snapshot, ipcache.Lookup(cache).identity_of, node=node.name)
    hold = subjects.hold(enforced, node)
    state = desired.DesiredState(
        endpoints=_endpoints(ownership.subjects, choices, compiled),
        sets={policy_set.id: policy_set for policy_set in compiled.values()},
        hosts=cache.hosts,
        cidrs=cache.cidrs,
        frontends=services.frontends,
        classes=classes.classify(compiled.values(), services.backends),
        held_ranges=hold.ranges,
        deny_mode=node.deny_mode,
        rules=rules,
        identities=cache.identities,
        services=services.owners,
    )
    problems = (*audited.problems, *ownership.problems, *hold.problems)
    return Compiled(state=state, problems=problems, audited=audited)


def _choose(
    stack: Sequence[tiers.Tier], found: Iterable[subjects.Subject], in_audit: Collection[resources.ObjectRef]
) -> list[_Choice]:
    """Find what isolates each subject; replicas share the answer."""
    by_namespace: defaultdict[str, list[tuple[tiers.Tier, tuple[tiers.Policy, ...]]]] = defaultdict(list)
    for tier in stack:
        members: defaultdict[str, list[tiers.Policy]] = defaultdict(list)
        for policy in tier.policies:
            members[policy.namespace].append(policy)
        for namespace, policies in members.items():
            by_namespace[namespace].append((tier, tuple(policies)))
    known: dict[tuple[str, labels.Labels, tuple[resources.ContainerPort, ...]], _Choice] = {}
    choices: list[_Choice] = []
    for subject in found:
        pod = subject.pod
        if pod is None:
            choices.append(_Choice())
            continue
        profile = (pod.namespace, pod.labels, pod.ports)
        if profile not in known:
            local = by_namespace.get(pod.namespace, [])
            ingress, ingress_audit = _select(local, net.Direction.INGRESS, pod, in_audit)
            egress, egress_audit = _select(local, net.Direction.EGRESS, pod, in_audit)
            known[profile] = _Choice(ingress, egress, ingress_audit, egress_audit)
        choices.append(known[profile])
    return choices


def _select(
    local: _Local, direction: net.Direction, pod: resources.Pod, in_audit: Collection[resources.ObjectRef]
) -> tuple[sets.Selection | None, sets.Selection | None]:
    """Find what isolates a pod, and what would with the policies in audit, if any of them selects it (rule A51)."""
    everything = sets.select(local, direction, pod.labels, pod.ports)
    if everything is None or not any(policy.ref in in_audit for policy in everything.policies):
        return everything, None
    return sets.select(list(_without(local, in_audit)), direction, pod.labels, pod.ports), everything


def _without(
    local: _Local, in_audit: Collection[resources.ObjectRef]
) -> Iterator[tuple[tiers.Tier, Sequence[tiers.Policy]]]:
    for tier, policies in local:
        yield tier, tuple(policy for policy in policies if policy.ref not in in_audit)


def _endpoints(
    found: Sequence[subjects.Subject],
    choices: Sequence[_Choice],
    compiled: Mapping[sets.Selection, desired.PolicySet],
) -> dict[int, desired.Endpoint]:
    contents = [_sandbox_content(subject.sandbox) for subject in found]
    assigned = numbers.assign(contents)
    endpoints: dict[int, desired.Endpoint] = {}
    for subject, content, choice in zip(found, contents, choices, strict=True):
        ingress, egress, ingress_audit, egress_audit = (
            compiled[one].id if one is not None else desired.NOT_ISOLATED for one in choice
        )
        sandbox = subject.sandbox
        endpoints[assigned[content]] = desired.Endpoint(
            id=assigned[content],
            namespace=sandbox.namespace,
            pod=sandbox.pod,
            uid=sandbox.uid or (subject.pod.uid if subject.pod else ""),
            labels=subject.pod.labels if subject.pod else labels.NO_LABELS,
            netns_cookie=sandbox.netns_cookie,
            veth_ifindex=sandbox.veth_ifindex,
            ingress_ifindex=sandbox.ingress_ifindex,
            addresses=subject.addresses,
            ingress_set=ingress,
            egress_set=egress,
            held=subject.held,
            ingress_audit=ingress_audit,
            egress_audit=egress_audit,
        )
    return endpoints


def _sandbox_content(sandbox: endpoint.Sandbox) -> bytes:
    """Name a sandbox by what the node knows of it, so that the number stays when the API learns of the pod."""
    return repr((sandbox.uid, sandbox.namespace, sandbox.pod, sandbox.netns_cookie)).encode()
