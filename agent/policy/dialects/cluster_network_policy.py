"""policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy: the Admin and Baseline tiers, in order (rules D1 to D14).

Of two objects of one tier with one priority the API leaves open who comes first: here it is the name that sorts first,
whatever the rules do (rule D6), and whoever compiles them for a pod that both select says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import labels, resources
from agent.policy import tiers

_ACTIONS = {
    resources.RuleAction.ALLOW: tiers.Action.ALLOW,
    resources.RuleAction.DENY: tiers.Action.DENY,
    resources.RuleAction.PASS: tiers.Action.PASS,
}


def order(policy: resources.NetworkPolicy) -> tuple[int, str]:
    """Return what policies of one tier are sorted by (rules D1, D6)."""
    return policy.priority, policy.name


def policy(policy: resources.NetworkPolicy) -> tiers.Policy:
    """Translate one policy."""
    return tiers.Policy(
        ref=policy.ref,
        namespace=policy.namespace,
        subject=policy.subject,
        directions=policy.directions,
        ingress=_rules(policy.ingress),
        egress=_rules(policy.egress),
        namespaces=policy.subject_namespaces,
        priority=policy.priority,
    )


def _rules(rules: Iterable[resources.PolicyRule]) -> tuple[tiers.Rule, ...]:
    return tuple(
        tiers.Rule(
            action=_ACTIONS[rule.action],
            index=index,
            peers=None if rule.peers is None else tuple(map(_peer, rule.peers)),
            ports=rule.ports,
        )
        for index, rule in enumerate(rules)
    )


def _peer(peer: resources.Peer) -> tiers.Peer:
    match peer:
        case resources.IPBlock():
            return tiers.BlockPeer(cidr=peer.cidr, excepts=peer.excepts)
        case resources.NamesPeer():
            return tiers.NamesPeer(patterns=peer.patterns)
        case resources.PodPeer():
            pods = labels.EVERYTHING if peer.pods is None else peer.pods
            return tiers.PodsPeer(pods=pods, namespaces=peer.namespaces or labels.EVERYTHING)
        case resources.EntityPeer():
            raise AssertionError(peer)  # the decoder makes none for this kind
