"""networking.k8s.io/v1 NetworkPolicy: any rule may allow, nothing denies, isolation does (rules A14, A15).

Kinds the agent refuses arrive as NetworkPolicy objects without rules, so that what they isolate stays
isolated (rule A50); they join the same tier.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.identity import ipcache
from agent.model import labels, net, resources
from agent.policy import selectors, tiers


def mentioned(policies: Iterable[resources.NetworkPolicy]) -> ipcache.Mentioned:
    """Collect what the rules of `policies` can tell identities apart by; only those in force count (rule A7)."""
    ingress: list[resources.PolicyRule] = []
    egress: list[resources.PolicyRule] = []
    for policy in policies:
        if net.Direction.INGRESS in policy.directions:
            ingress += policy.ingress
        if net.Direction.EGRESS in policy.directions:
            egress += policy.egress
    return selectors.mentioned(ingress, egress)


def policy(policy: resources.NetworkPolicy) -> tiers.Policy:
    """Translate one policy."""
    return tiers.Policy(
        ref=policy.ref,
        namespace=policy.namespace,
        subject=policy.subject,
        directions=policy.directions,
        ingress=_rules(policy, net.Direction.INGRESS),
        egress=_rules(policy, net.Direction.EGRESS),
    )


def _rules(policy: resources.NetworkPolicy, direction: net.Direction) -> tuple[tiers.Rule, ...]:
    """Translate the rules of a direction that policyTypes names; others have no effect (rule A7)."""
    if direction not in policy.directions:
        return ()
    return tuple(
        tiers.Rule(
            action=tiers.Action.ALLOW,
            index=index,
            peers=None if rule.peers is None else tuple(_peer(peer, policy.namespace) for peer in rule.peers),
            ports=rule.ports,
        )
        for index, rule in enumerate(policy.rules(direction))
    )


def _peer(peer: resources.Peer, namespace: str) -> tiers.Peer:
    if isinstance(peer, resources.IPBlock):
        return tiers.BlockPeer(cidr=peer.cidr, excepts=peer.excepts)
    assert isinstance(peer, resources.PodPeer)  # noqa: S101 - this kind has no other
    pods = labels.EVERYTHING if peer.pods is None else peer.pods
    return tiers.PodsPeer(pods=pods, namespaces=peer.namespaces, namespace=namespace)
