"""cilium.io/v2 CiliumNetworkPolicy: denials come first, in the tier of NetworkPolicy (rules E2 to E11).

What allows is united with what NetworkPolicy allows, and what one of them isolates is denied else (rule E6), so both
kinds are one tier; a policy that does not isolate still allows and denies there. World is every address that is
neither a pod's nor a node's, which is what prefixes mean to this kind, too (rules E10, E11).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from agent.model import identity, labels, net, resources
from agent.policy import tiers

_ACTIONS = {
    resources.RuleAction.ALLOW: tiers.Action.ALLOW,
    resources.RuleAction.DENY: tiers.Action.DENY,
    resources.RuleAction.PASS: tiers.Action.PASS,
}
_WORLD = {
    resources.Entity.WORLD: ("0.0.0.0/0", "::/0"),
    resources.Entity.WORLD_IPV4: ("0.0.0.0/0",),
    resources.Entity.WORLD_IPV6: ("::/0",),
}
_NODES = {
    resources.Entity.HOST: (identity.NodePlace.HOST,),
    resources.Entity.REMOTE_NODE: (identity.NodePlace.REMOTE,),
    resources.Entity.CLUSTER: (identity.NodePlace.HOST, identity.NodePlace.REMOTE),
}


def policy(policy: resources.NetworkPolicy, api_servers: Iterable[net.Address]) -> tiers.Policy:
    """Translate one policy; `api_servers` are the addresses behind the Service of the API server."""
    servers = tuple(sorted(map(net.host_network, api_servers), key=lambda one: (one.version, int(one.network_address))))
    return tiers.Policy(
        ref=policy.ref,
        namespace=policy.namespace,
        subject=policy.subject,
        directions=policy.directions,
        ingress=tuple(_rules(policy.ingress, policy.namespace, servers)),
        egress=tuple(_rules(policy.egress, policy.namespace, servers)),
    )


def _rules(
    rules: Iterable[resources.PolicyRule], namespace: str, servers: tuple[net.Network, ...]
) -> Iterator[tiers.Rule]:
    for index, rule in enumerate(rules):
        peers = None if rule.peers is None else tuple(_peers(rule.peers, namespace, servers))
        anybody = resources.EntityPeer(entity=resources.Entity.ALL) in (rule.peers or ())
        yield tiers.Rule(action=_ACTIONS[rule.action], index=index, peers=None if anybody else peers, ports=rule.ports)


def _peers(peers: Iterable[resources.Peer], namespace: str, servers: tuple[net.Network, ...]) -> Iterator[tiers.Peer]:
    for peer in peers:
        match peer:
            case resources.PodPeer():
                pods = labels.EVERYTHING if peer.pods is None else peer.pods
                yield tiers.PodsPeer(pods=pods, namespaces=peer.namespaces, namespace=namespace)
            case resources.IPBlock():
                yield tiers.BlockPeer(cidr=peer.cidr, excepts=peer.excepts, outside=peer.outside)
            case resources.NamesPeer():
                yield tiers.NamesPeer(patterns=peer.patterns)
            case resources.EntityPeer():
                yield from _entity(peer.entity, servers)


def _entity(entity: resources.Entity, servers: tuple[net.Network, ...]) -> Iterator[tiers.Peer]:
    """Say whom an entity means; ALL is no peer but the absence of any."""
    for text in _WORLD.get(entity, ()):
        yield tiers.BlockPeer(cidr=ipaddress.ip_network(text), outside=True)
    for place in _NODES.get(entity, ()):
        yield tiers.NodesPeer(place=place)
    if entity is resources.Entity.CLUSTER:
        yield tiers.PodsPeer(pods=labels.EVERYTHING, namespaces=labels.EVERYTHING)
    if entity in (resources.Entity.CLUSTER, resources.Entity.KUBE_APISERVER):
        yield from (tiers.BlockPeer(cidr=server) for server in servers)
