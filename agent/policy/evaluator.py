"""Judges one flow by the numbered rules, slowly and in the open: the oracle of the tests, the engine of `explain`.

It reads decoded resources and nothing that the compiler makes: no identities, rows, tiers or prefixes. Whoever
finds the two at odds has found a bug in one of them. Speed is no aim here; a rule that can be read is.

A flow is judged in its original direction, at its final destination: after Service translation (rules A30, A42),
never as a reply (rule A38). Egress is judged at the source pod, ingress at the destination pod (rule A16).
Every rule of every policy is looked at, also after one has matched, so that `walk` can show them all; the rule
that is named is the first that matches, by policy name and then by its place in the manifest.

Left to the datapath, because a flow here has no such facts: ICMP types that always pass (rule A41), replies.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.model import audit as audit_
from agent.model import net, resources, verdict
from agent.policy import matching

Party: TypeAlias = matching.Party
"""Who is behind an address; None: nobody the snapshot knows."""

TIER = "NetworkPolicy"
"""The one tier of today; Kubernetes puts Admin tiers before and Baseline tiers behind it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A connection or a datagram, from its opener to the pod, node or machine that receives it."""

    source: Party
    destination: Party
    source_address: net.Address
    destination_address: net.Address
    """Behind any Service: the backend's own address (rule A42)."""
    protocol: net.Protocol
    port: int
    """The port at the destination (rule A30); 0 where the protocol has none."""
    via_service: bool = False
    """The opener dialled a Service; it matters only where a pod reaches itself that way (rule A40)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The verdict of one end."""

    direction: net.Direction
    subject: resources.ObjectRef | None
    """The pod that was judged; None where this end is nobody policies can select."""
    isolating: tuple[resources.ObjectRef, ...]
    rule: verdict.RuleRef | None
    """The rule that allows; None where none does, or none is needed."""
    allowed: bool
    because: str
    """One sentence that cites the numbered rule; holds names from manifests, so escape it to print."""
    would: Side | None = None
    """What it would be were the policies in audit enforced too; None: none of them isolates the subject (A51)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Both verdicts; the flow passes where both allow it (rule A16)."""

    allowed: bool
    egress: Side
    ingress: Side

    @property
    def would_deny(self) -> tuple[Side, ...]:
        """Return what the policies in audit would deny of a flow that passes, egress first (rule A51)."""
        wishes = (side.would for side in (self.egress, self.ingress) if self.allowed)
        return tuple(side for side in wishes if side is not None and not side.allowed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RuleWalk:
    """One rule: it matches where some peer and some port do (rule A17)."""

    rule: verdict.RuleRef
    matches: bool
    peers: tuple[matching.Finding, ...]
    ports: tuple[matching.Finding, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWalk:
    """One policy of the subject's namespace; `rules` is empty where it does not isolate the subject."""

    policy: resources.ObjectRef
    isolates: bool
    because: str
    rules: tuple[RuleWalk, ...] = ()
    in_audit: bool = False
    """It decides nothing, and what it would decide is told (rule A51)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierWalk:
    """The policies of one tier, by name."""

    name: str
    policies: tuple[PolicyWalk, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SideWalk:
    """One end's verdict and the way to it; no tiers where no policy was asked."""

    side: Side
    tiers: tuple[TierWalk, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Everything that was looked at for one flow."""

    flow: Flow
    egress: SideWalk
    ingress: SideWalk

    @property
    def decision(self) -> Decision:
        """Put the two verdicts together: each end judges alone, both must allow (rule A16)."""
        egress, ingress = self.egress.side, self.ingress.side
        return Decision(allowed=egress.allowed and ingress.allowed, egress=egress, ingress=ingress)


def evaluate(snapshot: snapshot_.Snapshot, flow: Flow, audit: audit_.Audit = audit_.NOTHING) -> Decision:
    """Judge `flow` by the policies of `snapshot`, of which `audit` may say that they decide nothing."""
    return walk(snapshot, flow, audit).decision


def walk(snapshot: snapshot_.Snapshot, flow: Flow, audit: audit_.Audit = audit_.NOTHING) -> Walk:
    """Judge `flow`, and keep every policy, rule, peer and port that was looked at."""
    flow = dataclasses.replace(
        flow,
        source_address=net.normalize(flow.source_address),
        destination_address=net.normalize(flow.destination_address),
    )
    return Walk(
        flow=flow,
        egress=_judge(snapshot, flow, net.Direction.EGRESS, audit),
        ingress=_judge(snapshot, flow, net.Direction.INGRESS, audit),
    )


def party_at(snapshot: snapshot_.Snapshot, address: net.Address) -> Party:
    """Return who has `address`: a pod, a node, a machine outside; of two pods the running one (rule A27)."""
    address = net.normalize(address)
    claims = [pod for pod in snapshot.pods.values() if pod.has_identity and address in pod.addresses]
    if claims:
        return min(claims, key=lambda pod: (pod.phase is not resources.PodPhase.RUNNING, pod.namespace, pod.name))
    others: tuple[resources.Node | resources.Host, ...] = (*snapshot.nodes.values(), *snapshot.hosts.values())
    return next((other for other in others if address in other.addresses), None)


def _judge(snapshot: snapshot_.Snapshot, flow: Flow, direction: net.Direction, audit: audit_.Audit) -> SideWalk:
    subject = flow.source if direction is net.Direction.EGRESS else flow.destination
    exempt = _exempt(snapshot, flow, direction)
    if exempt is not None:
        return SideWalk(side=_side(subject, direction, allowed=True, because=exempt))
    assert isinstance(subject, resources.Pod)  # noqa: S101 - `_exempt` has dealt with every other party
    policies = tuple(
        dataclasses.replace(
            _walk_policy(snapshot, policy, flow, direction, subject), in_audit=_in_audit(snapshot, policy, audit)
        )
        for policy in sorted(snapshot.policies.values(), key=lambda policy: (policy.name, policy.kind))
        if policy.namespace == subject.namespace
    )
    side = _conclude(tuple(policy for policy in policies if not policy.in_audit), subject, direction)
    if any(policy.isolates and policy.in_audit for policy in policies):
        side = dataclasses.replace(side, would=_conclude(policies, subject, direction))
    return SideWalk(side=side, tiers=(TierWalk(name=TIER, policies=policies),))


def _in_audit(snapshot: snapshot_.Snapshot, policy: resources.NetworkPolicy, audit: audit_.Audit) -> bool:
    """Tell whether a policy is in audit: by its namespace, by its own name, or by an annotation that counts (A51)."""
    told = audit.flags | audit.commands
    if audit_.Target(policy.namespace) in told:
        return True
    if policy.kind == "NetworkPolicy" and audit_.Target(policy.namespace, policy.name) in told:
        return True
    namespace = snapshot.namespaces.get(policy.namespace)
    return audit.annotations and (policy.asks_audit or (namespace is not None and namespace.asks_audit))


def _conclude(policies: tuple[PolicyWalk, ...], subject: resources.Pod, direction: net.Direction) -> Side:
    """No isolation: allow all. Isolation: allow what at least one rule allows (rule A15)."""
    isolating = tuple(policy.policy for policy in policies if policy.isolates)
    if not isolating:
        because = f"no policy selects {matching.name(subject)} for {_word(direction)}, so all of it is allowed (A15)"
        return _side(subject, direction, allowed=True, because=because)
    matched = next((rule.rule for policy in policies for rule in policy.rules if rule.matches), None)
    if matched is not None:
        because = f"{matched} allows it (A15, A17)"
        return _side(subject, direction, allowed=True, because=because, isolating=isolating, rule=matched)
    names = ", ".join(str(policy) for policy in isolating)
    because = f"{matching.name(subject)} is isolated for {_word(direction)} by {names}, and no rule allows it (A15)"
    return _side(subject, direction, allowed=False, because=because, isolating=isolating)


def _exempt(  # noqa: PLR0911 - one line a rule
    snapshot: snapshot_.Snapshot, flow: Flow, direction: net.Direction
) -> str | None:
    """Return why no policy is asked at this end, or None."""
    subject = flow.source if direction is net.Direction.EGRESS else flow.destination
    if flow.source_address.is_loopback or flow.destination_address.is_loopback:
        return "loopback traffic never leaves the pod (A40)"
    if not isinstance(subject, resources.Pod):
        return f"{matching.describe(subject)} is not a pod, and only pods can be isolated (A18)"
    if subject.host_network:
        return f"{matching.name(subject)} is on its node's network and counts as the node (A26)"
    if subject.finished:
        return f"{matching.name(subject)} has finished and is no subject any more (A27)"
    if not subject.addresses:
        return f"{matching.name(subject)} has no address yet and is no subject (A27)"
    if flow.source == flow.destination and not flow.via_service:
        return "a pod always reaches itself at its own address (A40)"
    if direction is net.Direction.INGRESS and _from_own_node(snapshot, flow, subject):
        return (
            f"{matching.describe(flow.source)} is on {matching.name(subject)}'s own node, which always reaches it (A37)"
        )
    return None


def _from_own_node(snapshot: snapshot_.Snapshot, flow: Flow, pod: resources.Pod) -> bool:
    """Rule A37: any address of the pod's own node, in either family, hence also its hostNetwork pods."""
    if pod.node is None:
        return False
    source = flow.source
    if isinstance(source, resources.Node):
        return source.name == pod.node
    if isinstance(source, resources.Pod):
        return source.host_network and source.node == pod.node
    node = snapshot.nodes.get(pod.node)
    return source is None and node is not None and flow.source_address in node.addresses


def _walk_policy(
    snapshot: snapshot_.Snapshot,
    policy: resources.NetworkPolicy,
    flow: Flow,
    direction: net.Direction,
    subject: resources.Pod,
) -> PolicyWalk:
    """Isolation: the policy is of the pod's namespace, selects it, and names the direction (rules A14, A19, A7)."""
    missing = matching.unmet(policy.subject, subject.labels)
    if missing is not None:
        because = f"does not select {matching.name(subject)}: {missing} (A11)"
        return PolicyWalk(policy=policy.ref, isolates=False, because=because)
    if direction not in policy.directions:
        because = (
            f"selects {matching.name(subject)} but {direction.name.capitalize()} is not among its policyTypes (A6, A7)"
        )
        return PolicyWalk(policy=policy.ref, isolates=False, because=because)
    return PolicyWalk(
        policy=policy.ref,
        isolates=True,
        because=f"isolates {matching.name(subject)} for {_word(direction)} (A14)",
        rules=tuple(
            _walk_rule(snapshot, verdict.RuleRef(policy.ref, direction, index), rule, flow)
            for index, rule in enumerate(policy.rules(direction))
        ),
    )


def _walk_rule(
    snapshot: snapshot_.Snapshot,
    ref: verdict.RuleRef,
    rule: resources.PolicyRule,
    flow: Flow,
) -> RuleWalk:
    """Match where a peer and a port do (rule A17); what is not given matches anything (rule A5)."""
    if rule.peers is None:
        peers: tuple[matching.Finding, ...] = (matching.Finding(matches=True, because="every peer (A5)"),)
    else:
        egress = ref.direction is net.Direction.EGRESS
        party = flow.destination if egress else flow.source
        address = flow.destination_address if egress else flow.source_address
        peers = tuple(
            matching.match_peer(snapshot, peer, policy_namespace=ref.policy.namespace, party=party, address=address)
            for peer in rule.peers
        )
    if rule.ports is None:
        ports: tuple[matching.Finding, ...] = (matching.Finding(matches=True, because="every port and protocol (A5)"),)
    else:
        ports = tuple(
            matching.match_port(entry, protocol=flow.protocol, port=flow.port, destination=flow.destination)
            for entry in rule.ports
        )
    matches = any(finding.matches for finding in peers) and any(finding.matches for finding in ports)
    return RuleWalk(rule=ref, matches=matches, peers=peers, ports=ports)


def _side(
    subject: Party,
    direction: net.Direction,
    *,
    allowed: bool,
    because: str,
    isolating: tuple[resources.ObjectRef, ...] = (),
    rule: verdict.RuleRef | None = None,
) -> Side:
    ref = None
    if isinstance(subject, resources.Pod) and subject.has_identity:
        ref = resources.ObjectRef("Pod", subject.namespace, subject.name)
    return Side(direction=direction, subject=ref, isolating=isolating, rule=rule, allowed=allowed, because=because)


def _word(direction: net.Direction) -> str:
    return direction.name.lower()
