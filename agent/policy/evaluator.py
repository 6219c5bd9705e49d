"""Judges one flow by the numbered rules, slowly and in the open: the oracle of the tests, the engine of `explain`.

It reads decoded resources and nothing that the compiler makes: no identities, rows, tiers or prefixes. Whoever
finds the two at odds has found a bug in one of them. Speed is no aim here; a rule that can be read is.

A flow is judged in its original direction, at its final destination: after Service translation (rules A30, A42),
never as a reply (rule A38). Egress is judged at the source pod, ingress at the destination pod (rule A16).
Every rule of every policy is looked at, also after one has matched, so that `walk` can show them all; the rule
that is named is the first that decides, by policy name and then by its place in the manifest.

Left to the datapath, because a flow here has no such facts: ICMP types that always pass (rule A41), replies.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.model import audit as audit_
from agent.model import net, resources, verdict
from agent.policy import matching

Party: TypeAlias = matching.Party
"""Who is behind an address; None: nobody the snapshot knows."""

TIER = resources.Tier.NETWORK_POLICY.value
"""The tier in which any policy may allow; Admin comes before and Baseline after it (rule D1)."""


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
    names: frozenset[str] = frozenset()
    """Names for which DNS gave the source the destination's address, and which have not expired (D15, E15)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The verdict of one end."""

    direction: net.Direction
    subject: resources.ObjectRef | None
    """The pod that was judged; None where this end is nobody policies can select."""
    isolating: tuple[resources.ObjectRef, ...]
    rule: verdict.RuleRef | None
    """The rule that decides; None where none does, or none is needed."""
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
    action: resources.RuleAction = resources.RuleAction.ALLOW


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWalk:
    """One policy that might select the subject; `rules` is empty where it does not."""

    policy: resources.ObjectRef
    isolates: bool
    because: str
    rules: tuple[RuleWalk, ...] = ()
    in_audit: bool = False
    """It decides nothing, and what it would decide is told (rule A51)."""

    @property
    def speaks(self) -> bool:
        """Whether it has something to say of the subject in this direction."""
        return self.isolates or bool(self.rules)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TierWalk:
    """The policies of one tier, by priority and name."""

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
    tiers = tuple(_walk_tiers(snapshot, flow, direction, subject, audit))
    side = _conclude(_enforced(tiers), subject, direction)
    if any(policy.speaks and policy.in_audit for tier in tiers for policy in tier.policies):
        side = dataclasses.replace(side, would=_conclude(tiers, subject, direction))
    return SideWalk(side=side, tiers=tiers)


def _walk_tiers(
    snapshot: snapshot_.Snapshot, flow: Flow, direction: net.Direction, subject: resources.Pod, audit: audit_.Audit
) -> Iterator[TierWalk]:
    """Go through the tiers in their order (rule D1), those around NetworkPolicy only where somebody uses them."""
    for tier in resources.Tier:
        policies = [policy for policy in snapshot.policies.values() if policy.tier is tier]
        if tier is resources.Tier.NETWORK_POLICY:
            policies = [policy for policy in policies if policy.namespace == subject.namespace]
        if policies or tier is resources.Tier.NETWORK_POLICY:
            walks = (
                dataclasses.replace(
                    _walk_policy(snapshot, policy, flow, direction, subject),
                    in_audit=_in_audit(snapshot, policy, audit),
                )
                for policy in sorted(policies, key=lambda policy: (policy.priority, policy.ref))
            )
            yield TierWalk(name=tier.value, policies=tuple(walks))


def _enforced(tiers: tuple[TierWalk, ...]) -> tuple[TierWalk, ...]:
    """Leave out what is in audit (rule A51)."""
    return tuple(
        dataclasses.replace(tier, policies=tuple(policy for policy in tier.policies if not policy.in_audit))
        for tier in tiers
    )


def _in_audit(snapshot: snapshot_.Snapshot, policy: resources.NetworkPolicy, audit: audit_.Audit) -> bool:
    """Tell whether a policy is in audit: by its namespace, by its own name, or by an annotation that counts (A51)."""
    told = audit.flags | audit.commands
    if audit_.Target(policy.namespace) in told:
        return True
    if policy.kind == "NetworkPolicy" and audit_.Target(policy.namespace, policy.name) in told:
        return True
    namespace = snapshot.namespaces.get(policy.namespace)
    return audit.annotations and (policy.asks_audit or (namespace is not None and namespace.asks_audit))


def _conclude(tiers: tuple[TierWalk, ...], subject: resources.Pod, direction: net.Direction) -> Side:
    """Ask the tiers in order until one decides; what none decides is allowed (rules A15, D1)."""
    isolating = tuple(policy.policy for tier in tiers for policy in tier.policies if policy.isolates)
    for tier in tiers:
        shared = tier.name == TIER
        decided = _union(tier) if shared else _first(tier)
        if decided is not None and decided.action is not resources.RuleAction.PASS:
            allowed = decided.action is resources.RuleAction.ALLOW
            rules = ("(A15, A17)" if allowed else "(E6)") if shared else "(D1, D2)"
            because = f"{decided.rule} {'allows' if allowed else 'denies'} it {rules}"
            return _side(subject, direction, allowed=allowed, because=because, isolating=isolating, rule=decided.rule)
        if shared and isolating:
            names = ", ".join(str(policy) for policy in isolating)
            because = (
                f"{matching.name(subject)} is isolated for {_word(direction)} by {names}, and no rule allows it (A15)"
            )
            return _side(subject, direction, allowed=False, because=because, isolating=isolating)
    speaks = any(policy.speaks for tier in tiers for policy in tier.policies)
    because = (
        f"no rule decides about {matching.name(subject)}'s {_word(direction)} and nobody isolates it (D1, D4)"
        if speaks
        else f"no policy selects {matching.name(subject)} for {_word(direction)}, so all of it is allowed (A15)"
    )
    return _side(subject, direction, allowed=True, because=because)


def _union(tier: TierWalk) -> RuleWalk | None:
    """Ask who denies before who allows; any rule of any policy will do (rules A15, E6)."""
    matching_rules = [rule for policy in tier.policies for rule in policy.rules if rule.matches]
    denying = (rule for rule in matching_rules if rule.action is resources.RuleAction.DENY)
    allowing = (rule for rule in matching_rules if rule.action is resources.RuleAction.ALLOW)
    return next(denying, None) or next(allowing, None)


def _first(tier: TierWalk) -> RuleWalk | None:
    """Return the first rule that matches, by priority, then name, then place (rules D1, D2, D6)."""
    return next((rule for policy in tier.policies for rule in policy.rules if rule.matches), None)


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
    missing = None
    if policy.subject_namespaces is not None:
        space = snapshot.namespaces.get(subject.namespace)
        missing = matching.unmet(policy.subject_namespaces, {} if space is None else space.labels)
    missing = missing or matching.unmet(policy.subject, subject.labels)
    if missing is not None:
        because = f"does not select {matching.name(subject)}: {missing} (A11)"
        return PolicyWalk(policy=policy.ref, isolates=False, because=because)
    isolates = direction in policy.directions
    if not isolates and policy.kind == "NetworkPolicy":
        because = (
            f"selects {matching.name(subject)} but {direction.name.capitalize()} is not among its policyTypes (A6, A7)"
        )
        return PolicyWalk(policy=policy.ref, isolates=False, because=because)
    because = f"isolates {matching.name(subject)} for {_word(direction)} (A14, E2)"
    return PolicyWalk(
        policy=policy.ref,
        isolates=isolates,
        because=because if isolates else f"selects {matching.name(subject)} and does not isolate it (D4, E2)",
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
        subject = flow.source if egress else flow.destination
        beside = matching.Beside(
            node=subject.node if isinstance(subject, resources.Pod) else None,
            names=flow.names if egress else frozenset(),
        )
        peers = tuple(
            matching.match_peer(
                snapshot, peer, policy_namespace=ref.policy.namespace, party=party, address=address, beside=beside
            )
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
    return RuleWalk(rule=ref, matches=matches, peers=peers, ports=ports, action=rule.action)


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
