"""What rules say, as values whose repr no other content has: what policy sets are numbered by.

repr quotes what could run together. Everything that decides must be here: a policy set's rows are a function of it.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.identity import allocator
from agent.model import fqdn, labels, net, resources
from agent.policy import tiers


def ref(named: resources.ObjectRef) -> tuple[str, str, str]:
    """Spell the name of an object."""
    return named.kind, named.namespace, named.name


def rule(said: tiers.Rule) -> object:
    """Spell a rule."""
    peers = None if said.peers is None else [_peer(peer) for peer in said.peers]
    ports = None if said.ports is None else [_port(match) for match in said.ports]
    return said.action.value, said.index, peers, ports


def _peer(peer: tiers.Peer) -> object:
    match peer:
        case tiers.BlockPeer():
            block = allocator.network_key(peer.cidr), sorted(map(allocator.network_key, peer.excepts))
            return (*block, "outside") if peer.outside else block
        case tiers.NodesPeer():
            return "nodes", peer.place.value
        case tiers.NamesPeer():
            return "names", _patterns(peer.patterns)
        case tiers.PodsPeer():
            return _pods(peer)


def _patterns(patterns: Iterable[fqdn.NamePattern]) -> object:
    return sorted((pattern.text, pattern.dialect.value) for pattern in patterns)


def _pods(peer: tiers.PodsPeer) -> object:
    namespaces = None if peer.namespaces is None else _selector(peer.namespaces)
    return _selector(peer.pods), namespaces, peer.namespace if namespaces is None else ""


def _selector(selector: labels.LabelSelector) -> object:
    return [(each.key, each.operator.value, sorted(each.values)) for each in selector.requirements]


def _port(match: resources.PortMatch) -> object:
    port = (match.port.first, match.port.last) if isinstance(match.port, net.PortRange) else match.port
    spelt = match.protocol.value, port
    return spelt if match.asks is None else (*spelt, _patterns(match.asks))
