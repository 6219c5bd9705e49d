"""What policies say of two workloads: the evaluator's answer, asked once for all pods that no policy tells apart.

Policies see a pod's namespace, the labels their selectors name, its ports, and whether its addresses are in a block
they name. Pods equal in these are one class, and one of a class answers for all (two, for a class that talks to
itself). Where pods on hostNetwork are, the node counts as well (rule A37), and so does what is in audit there (A51).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.graph import model
from agent.model import audit as audit_
from agent.model import labels as labels_
from agent.model import net, resources
from agent.policy import audited, evaluator, matching, reachability

Mark: TypeAlias = tuple[object, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether one workload reaches another on a port."""

    allowed: bool
    partial: bool
    """Some pods may and some may not; or of some that may it would be denied, of others not."""
    would_deny: bool
    """What is allowed would be denied, were policies in audit enforced; `policies` are these then (rule A51)."""
    policies: tuple[str, ...]
    because: str


class Judge:
    """Asks the evaluator; remembers every answer."""

    def __init__(
        self,
        snapshot: snapshot_.Snapshot,
        members: Mapping[model.Key, Sequence[reachability.End | resources.Node]],
        audits: Mapping[str, audit_.Audit],
    ) -> None:
        """`members` are the pods, or the machine, that a node of the graph stands for; each has an address.

        `audits` say what is in audit at the nodes of the cluster, by name; of a node that is missing it is not known,
        unless none is there: nothing is in audit then.
        """
        self._snapshot = snapshot
        self._audits = audits
        self._supposed = _supposed(snapshot, audits)
        self._in_audit = {audit: frozenset(audited.find(snapshot, audit).policies) for audit in set(audits.values())}
        self._keys = frozenset(_named(snapshot.policies.values()))
        self._blocks = tuple(_blocks(snapshot.policies.values()))
        peers = [peer for policy in snapshot.policies.values() for peer in _peers(policy)]
        told = any(isinstance(peer, resources.EntityPeer) for peer in peers)
        self._nodes_count = told or any(pod.host_network for pod in snapshot.pods.values())
        self._classes: dict[model.Key, dict[Mark, list[reachability.End | resources.Node]]] = {}
        for key, several in members.items():
            classes = self._classes.setdefault(key, {})
            for one in several:
                alike = classes.setdefault(self._mark(one), [])
                if len(alike) < 2:  # noqa: PLR2004 - a class that talks to itself needs two
                    alike.append(one)
        self._answers: dict[tuple[Mark, Mark, bool, reachability.Port], evaluator.Decision | None] = {}

    def judge(self, source: model.Key, target: model.Key, port: reachability.Port) -> Judgement | None:
        """Return what the policies say; None where one of the two is unknown to them, or they share no family."""
        decisions: list[evaluator.Decision] = []
        sources, targets = self._classes.get(source, {}), self._classes.get(target, {})
        for (opening, openers), (answering, receivers) in itertools.product(sources.items(), targets.items()):
            pair = _two(openers, receivers)
            if pair is None:
                continue
            key = (opening, answering, source == target, port)
            if key not in self._answers:
                self._answers[key] = self._ask(*pair, port)
            if (decision := self._answers[key]) is not None:
                decisions.append(decision)
        return _together(decisions) if decisions else None

    def isolated(self, key: model.Key, direction: net.Direction) -> bool:
        """Tell whether some policy isolates every pod of a workload."""
        pods = [one for several in self._classes.get(key, {}).values() for one in several[:1]]
        return all(isinstance(pod, resources.Pod) and self._isolates(pod, direction) for pod in pods)

    def is_in_audit(self, ref: resources.ObjectRef, pod: resources.Pod) -> bool:
        """Tell whether a policy decides nothing for a pod (rule A51)."""
        return ref in self._in_audit.get(self._audit(pod), frozenset())

    def _audit(self, pod: resources.Pod) -> audit_.Audit:
        return self._audits.get(pod.node or "", audit_.NOTHING)

    def _isolates(self, pod: resources.Pod, direction: net.Direction) -> bool:
        return any(
            direction in policy.directions
            and matching.selects(self._snapshot, policy, pod)
            and not self.is_in_audit(policy.ref, pod)
            for policy in self._snapshot.policies.values()
        )

    def _ask(
        self,
        source: reachability.End | resources.Node,
        target: reachability.End | resources.Node,
        port: reachability.Port,
    ) -> evaluator.Decision | None:
        flows = reachability.flows(source, target, port)
        decisions = [self._decide(flow) for flow in flows]
        order = sorted((one for one in decisions if one is not None), key=lambda one: (one.allowed, not one.would_deny))
        return order[0] if order else None

    def _decide(self, flow: evaluator.Flow) -> evaluator.Decision | None:
        """Judge a flow; None: it is denied unless a node of which nothing is known has in audit what others have."""
        found = reachability.judged(self._snapshot, flow, self._audits)
        if found.allowed or not self._supposed:
            return found
        return None if reachability.judged(self._snapshot, flow, self._supposed).allowed else found

    def _mark(self, one: reachability.End | resources.Node) -> Mark:
        if not isinstance(one, resources.Pod):
            return (type(one).__name__, one.name, one.addresses)
        return (
            one.namespace,
            labels_.Labels({key: value for key, value in one.labels.items() if key in self._keys}),
            one.ports,
            one.host_network,
            one.node if self._nodes_count else None,
            self._audit(one),
            tuple(place for place, block in enumerate(self._blocks) if any(at in block for at in one.addresses)),
            tuple(at.version for at in one.addresses),
        )


def _supposed(snapshot: snapshot_.Snapshot, audits: Mapping[str, audit_.Audit]) -> Mapping[str, audit_.Audit]:
    """Return `audits`, and for nodes that are missing all that is in audit anywhere; empty where none is missing."""
    missing = {pod.node for pod in snapshot.pods.values() if pod.node} - audits.keys()
    if not audits or not missing:
        return {}
    anywhere = audit_.Audit(
        flags=frozenset().union(*(one.flags | one.commands for one in audits.values())),
        annotations=any(one.annotations for one in audits.values()),
    )
    return {**audits, **dict.fromkeys(missing, anywhere)}


def rules(decision: evaluator.Decision) -> tuple[str, ...]:
    """Return the rules that allow, or the policies that isolate at the first end that denies, or would for an audit."""
    sides = (decision.egress, decision.ingress)
    denying = next((side for side in (*sides, *decision.would_deny) if not side.allowed), None)
    if denying is not None:
        return (str(denying.rule),) if denying.rule is not None else tuple(map(str, denying.isolating))
    return tuple(str(side.rule) for side in sides if side.rule is not None)


def _together(decisions: Sequence[evaluator.Decision]) -> Judgement:
    allowed = [one for one in decisions if one.allowed]
    audited_ = [one for one in allowed if one.would_deny]
    told = audited_ or allowed or decisions
    names = dict.fromkeys(name for one in told for name in rules(one))
    sides = (told[0].egress, told[0].ingress, *told[0].would_deny)
    side = next((side for side in sides if not side.allowed), told[0].ingress)
    return Judgement(
        allowed=bool(allowed),
        partial=0 < len(allowed) < len(decisions) or 0 < len(audited_) < len(allowed),
        would_deny=bool(audited_),
        policies=tuple(names),
        because=side.because,
    )


def _two(
    openers: Sequence[reachability.End | resources.Node], receivers: Sequence[reachability.End | resources.Node]
) -> tuple[reachability.End | resources.Node, reachability.End | resources.Node] | None:
    """Return one of each that are not the same pod."""
    pairs = ((one, other) for one in openers for other in receivers if one is not other)
    return next(pairs, None)


def _named(policies: Iterable[resources.NetworkPolicy]) -> Iterator[str]:
    """Yield the keys that selectors of pods look at."""
    for policy in policies:
        selectors = [policy.subject]
        pods = (peer for peer in _peers(policy) if isinstance(peer, resources.PodPeer))
        selectors += [peer.pods for peer in pods if peer.pods is not None]
        for selector in selectors:
            yield from (requirement.key for requirement in selector.requirements)


def _blocks(policies: Iterable[resources.NetworkPolicy]) -> Iterator[net.Network]:
    for policy in policies:
        for peer in _peers(policy):
            if isinstance(peer, resources.IPBlock):
                yield from (peer.cidr, *peer.excepts)


def _peers(policy: resources.NetworkPolicy) -> Iterator[resources.Peer]:
    for rule in (*policy.ingress, *policy.egress):
        yield from rule.peers or ()
