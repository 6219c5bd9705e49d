"""From a snapshot to all that one node enforces: pure, whole, and the same along every path.

The rule: compile everything from scratch, every time, fast enough that nothing needs to be remembered.
Identities cover the whole cluster, policy sets only what this node's pods need. Traffic of the pod's own
node, loopback and own addresses are not looked at here: they pass by position (rules A37, A40).
This module must not know maps, generations or what was enforced before.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from agent import desired
from agent import snapshot as snapshot_
from agent.fqdn import classes as name_classes
from agent.identity import ipcache
from agent.model import endpoint, identity, labels, net, numbers, resources
from agent.policy import audited as audited_
from agent.policy import classes, filters, names, selectors, service_asks, sets, subjects, tiers
from agent.policy.dialects import stack as stack_
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


def compile_node(
    snapshot: snapshot_.Snapshot, node: endpoint.NodeView, classify: names.Classify = name_classes.build
) -> Compiled:
    """Compile what `node` enforces of `snapshot`; the revision is left at 0. Only `classify` may remember anything."""
    audited = audited_.find(snapshot, node.audit)
    enforced = audited_.enforced(snapshot, audited)
    ownership = subjects.resolve(enforced, node)
    local = {subject.sandbox.namespace for subject in ownership.subjects}
    stack = stack_.build(snapshot, lambda policy: policy.namespace in local or policy.subject_namespaces is not None)
    cache = ipcache.build(
        ownership.owners, snapshot.namespaces, stack_.mentioned(snapshot), _node_addresses(snapshot, node.name)
    )
    choices = _choose(stack, ownership.subjects, audited.policies.keys(), snapshot.namespaces)
    selections = {selection for choice in choices for selection in choice if selection is not None}
    services = frontends.build(snapshot, ipcache.Lookup(cache).identity_of, node=node.name)
    named = names.find(selections, classify, learns=node.learns_names, filters=node.filters_queries)
    contents, index = named.classes.contents, selectors.Index(cache.identities.values())
    compiled, rules, patterns = sets.build(selections, index, contents, filtering=node.filters_queries)
    asking = service_asks.find(compiled.values() if patterns else (), services.backends)
    hold = subjects.hold(enforced, node)
    state = desired.DesiredState(
        endpoints=_endpoints(ownership.subjects, choices, compiled),
        sets={policy_set.id: policy_set for policy_set in compiled.values()},
        hosts=cache.hosts,
        cidrs=cache.cidrs,
        frontends=services.frontends,
        classes=classes.classify(compiled.values(), services.backends, contents),
        held_ranges=hold.ranges,
        deny_mode=node.deny_mode,
        rules=rules,
        identities=cache.identities,
        services=services.owners,
        names=named.classes,
        filters=filters.admitted(patterns, contents) | asking.nothing,
        service_asks=asking.of,
        filter_patterns=patterns | dict.fromkeys(asking.nothing, filters.NOTHING),
    )
    problems = (*audited.problems, *ownership.problems, *hold.problems, *named.problems, *_ties(selections))
    return Compiled(state=state, problems=problems, audited=audited)


def _node_addresses(snapshot: snapshot_.Snapshot, here: str) -> dict[net.Address, identity.NodePlace]:
    """Tell this node's addresses from those of others (rule E10); of one that two nodes claim it is this node's."""
    places = {address: identity.NodePlace.REMOTE for node in snapshot.nodes.values() for address in node.addresses}
    own = snapshot.nodes.get(here)
    return places | dict.fromkeys(own.addresses if own is not None else (), identity.NodePlace.HOST)


def _ties(selections: Iterable[sets.Selection]) -> list[resources.Problem]:
    """Say where two policies of an ordered tier ask for one place: the API leaves open who wins (rule D6)."""
    return sorted({problem for selection in selections for problem in _ties_of(selection)})


def _ties_of(selection: sets.Selection) -> Iterator[resources.Problem]:
    for tier in selection.stack:
        for one, other in itertools.pairwise(tier.policies if tier.ordered else ()):
            if one.priority == other.priority:
                reason = f"is also that of {one.ref}, which comes first by its name; give each its own"
                yield resources.Problem(other.ref, "spec.priority", reason)


def _by_namespace(
    stack: Sequence[tiers.Tier], local: Iterable[str], namespaces: Mapping[str, resources.Namespace]
) -> dict[str, list[tuple[tiers.Tier, tuple[tiers.Policy, ...]]]]:
    """Return the policies that can select a pod of each namespace, tier by tier (rules A19, D7)."""
    found: dict[str, list[tuple[tiers.Tier, tuple[tiers.Policy, ...]]]] = {namespace: [] for namespace in local}
    for tier in stack:
        members: defaultdict[str, list[tiers.Policy]] = defaultdict(list)
        wide = [policy for policy in tier.policies if policy.namespaces is not None]
        for policy in tier.policies:
            members[policy.namespace].append(policy)
        for namespace, content in found.items():
            known = namespaces.get(namespace)
            meaning = labels.NO_LABELS if known is None else known.labels
            policies = [one for one in wide if one.namespaces is not None and one.namespaces.selects(meaning)]
            policies += members.get(namespace, []) if namespace else []
            if policies:
                content.append((tier, tuple(policies)))
    return found


def _choose(
    stack: Sequence[tiers.Tier],
    found: Sequence[subjects.Subject],
    in_audit: Collection[resources.ObjectRef],
    namespaces: Mapping[str, resources.Namespace],
) -> list[_Choice]:
    """Find what isolates each subject; replicas share the answer."""
    by_namespace = _by_namespace(
        stack, {subject.pod.namespace for subject in found if subject.pod is not None}, namespaces
    )
    known: dict[tuple[str, labels.Labels, tuple[resources.ContainerPort, ...]], _Choice] = {}
    choices: list[_Choice] = []
    for subject in found:
        pod = subject.pod
        if pod is None:
            choices.append(_Choice())
            continue
        profile = (pod.namespace, pod.labels, pod.ports)
        if profile not in known:
            local = by_namespace[pod.namespace]
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
