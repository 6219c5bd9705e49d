"""From a snapshot to all that one node enforces: pure, whole, and the same along every path.

The rule: compile everything from scratch, every time, fast enough that nothing needs to be remembered.
Identities cover the whole cluster, policy sets only what this node's pods need. Traffic of the pod's own
node, loopback and own addresses are not looked at here: they pass by position (rules A37, A40).
This module must not know maps, generations or what was enforced before.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from agent import desired
from agent import snapshot as snapshot_
from agent.identity import ipcache
from agent.model import endpoint, labels, net, numbers, resources
from agent.policy import classes, selectors, sets, subjects, tiers
from agent.policy.dialects import network_policy
from agent.services import frontends

_Choice: TypeAlias = tuple[sets.Selection | None, sets.Selection | None]
"""What isolates a subject: ingress, egress; None: nothing does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What to enforce, and what could not be honoured; problems of decoding stay in the snapshot."""

    state: desired.DesiredState
    problems: tuple[resources.Problem, ...] = ()


def compile_node(snapshot: snapshot_.Snapshot, node: endpoint.NodeView) -> Compiled:
    """Compile what `node` enforces of `snapshot`; the revision is left at 0."""
    ownership = subjects.resolve(snapshot, node)
    local = {subject.sandbox.namespace for subject in ownership.subjects}
    stack = (network_policy.tier(policy for policy in snapshot.policies.values() if policy.namespace in local),)
    mentioned = network_policy.mentioned(snapshot.policies.values())
    cache = ipcache.build(ownership.owners, snapshot.namespaces, mentioned)
    choices = _choose(stack, ownership.subjects)
    selections = {selection for choice in choices for selection in choice if selection is not None}
    compiled, rules = sets.build(selections, selectors.Index(cache.identities.values()))
    services = frontends.build(snapshot, ipcache.Lookup(cache).identity_of, node=node.name)
    hold = subjects.hold(snapshot, node)
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
    return Compiled(state=state, problems=(*ownership.problems, *hold.problems))


def _choose(stack: Sequence[tiers.Tier], found: Iterable[subjects.Subject]) -> list[_Choice]:
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
            choices.append((None, None))
            continue
        profile = (pod.namespace, pod.labels, pod.ports)
        if profile not in known:
            local = by_namespace.get(pod.namespace, [])
            known[profile] = (
                sets.select(local, net.Direction.INGRESS, pod.labels, pod.ports),
                sets.select(local, net.Direction.EGRESS, pod.labels, pod.ports),
            )
        choices.append(known[profile])
    return choices


def _endpoints(
    found: Sequence[subjects.Subject],
    choices: Sequence[_Choice],
    compiled: Mapping[sets.Selection, desired.PolicySet],
) -> dict[int, desired.Endpoint]:
    contents = [_sandbox_content(subject.sandbox) for subject in found]
    assigned = numbers.assign(contents)
    endpoints: dict[int, desired.Endpoint] = {}
    for subject, content, (ingress, egress) in zip(found, contents, choices, strict=True):
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
            ingress_set=compiled[ingress].id if ingress else desired.NOT_ISOLATED,
            egress_set=compiled[egress].id if egress else desired.NOT_ISOLATED,
            held=subject.held,
        )
    return endpoints


def _sandbox_content(sandbox: endpoint.Sandbox) -> bytes:
    """Name a sandbox by what the node knows of it, so that the number stays when the API learns of the pod."""
    return repr((sandbox.uid, sandbox.namespace, sandbox.pod, sandbox.netns_cookie)).encode()
