"""All policies of a cluster as tiers in their order: Admin, NetworkPolicy with CiliumNetworkPolicy, Baseline (D1, E6).

A tier nobody has a policy in is not there. This module must not look at pods: what a policy selects is a selector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from agent import snapshot as snapshot_
from agent.identity import ipcache
from agent.model import net, resources
from agent.policy import selectors, tiers
from agent.policy.dialects import cilium, cluster_network_policy, network_policy

CILIUM = "CiliumNetworkPolicy"
API_SERVER = ("default", "kubernetes")
"""The Service of the API server (rule E10)."""


def api_servers(cluster: snapshot_.Snapshot) -> tuple[net.Address, ...]:
    """Return where the API server answers, in the cluster or out of it."""
    slices = (part for part in cluster.endpoint_slices.values() if (part.namespace, part.service) == API_SERVER)
    return tuple(dict.fromkeys(address for part in slices for address in part.addresses))


def build(cluster: snapshot_.Snapshot, wanted: Callable[[resources.NetworkPolicy], bool]) -> tuple[tiers.Tier, ...]:
    """Put the policies that are `wanted` into tiers; attribution must not depend on arrival, so all are sorted."""
    policies = [policy for policy in cluster.policies.values() if wanted(policy)]
    servers = api_servers(cluster)
    ordered = [
        (resources.Tier.ADMIN, tiers.EndOfTier.NEXT_TIER, sorted(policies, key=cluster_network_policy.order)),
        (resources.Tier.NETWORK_POLICY, tiers.EndOfTier.DENY, sorted(policies, key=lambda policy: policy.ref)),
        (resources.Tier.BASELINE, tiers.EndOfTier.NEXT_TIER, sorted(policies, key=cluster_network_policy.order)),
    ]
    return tuple(
        tiers.Tier(
            name=name.value,
            end=end,
            policies=tuple(_translated(policy, servers) for policy in found if policy.tier is name),
            ordered=name is not resources.Tier.NETWORK_POLICY,
        )
        for name, end, found in ordered
        if any(policy.tier is name for policy in found)
    )


def mentioned(cluster: snapshot_.Snapshot) -> ipcache.Mentioned:
    """Collect what the rules of all policies can tell identities apart by: identities are the whole cluster's."""
    policies = cluster.policies.values()
    found = network_policy.mentioned(policy for policy in policies if not _is_other(policy))
    others = [policy for policy in policies if _is_other(policy)]
    if others:
        servers = api_servers(cluster)
        translated = [_translated(policy, servers) for policy in others]
        found |= selectors.mentioned(_all(translated, net.Direction.INGRESS), _all(translated, net.Direction.EGRESS))
    return found


def _all(policies: Sequence[tiers.Policy], direction: net.Direction) -> Iterable[tiers.Rule]:
    return (rule for policy in policies for rule in policy.rules(direction))


def _is_other(policy: resources.NetworkPolicy) -> bool:
    """Tell the kinds with a dialect of their own from NetworkPolicy, and from what is reduced to it."""
    return policy.kind == CILIUM or policy.tier is not resources.Tier.NETWORK_POLICY


def _translated(policy: resources.NetworkPolicy, servers: Sequence[net.Address]) -> tiers.Policy:
    if policy.tier is not resources.Tier.NETWORK_POLICY:
        return cluster_network_policy.policy(policy)
    return cilium.policy(policy, servers) if policy.kind == CILIUM else network_policy.policy(policy)
