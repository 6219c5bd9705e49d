"""Advice as manifests: NetworkPolicy of Kubernetes, or CiliumNetworkPolicy. Plain values, for whoever writes YAML."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from agent.flows import advise, selectors
from agent.model import net

Document = dict[str, Any]
METADATA_NAME = "kubernetes.io/metadata.name"
CILIUM_NAMESPACE = "k8s:io.kubernetes.pod.namespace"
NAME_MOST = 200
"""Characters of a policy's name before what tells it from others."""
SUFFIX = "advised"
_DOMAIN_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
_NOT_A_NAME = re.compile(r"[^a-z0-9.-]+")


def kubernetes(advice: advise.Advice) -> Iterator[tuple[advise.Advised, Document]]:
    """Yield a networking.k8s.io/v1 NetworkPolicy for each workload."""
    for one, name in _named(advice.policies):
        spec: Document = {
            "podSelector": _selector(selectors.selector(one.workload, advice.known)),
            "policyTypes": ["Ingress", "Egress"],
        }
        for side, word, peers in (
            (net.Direction.INGRESS, "ingress", "from"),
            (net.Direction.EGRESS, "egress", "to"),
        ):
            if one.rules[side]:
                spec[word] = [
                    {
                        peers: [_peer(peer, one.workload, advice.known) for peer in rule.peers],
                        "ports": [{"port": port.number, "protocol": port.protocol} for port in rule.ports],
                    }
                    for rule in one.rules[side]
                ]
        yield (
            one,
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": one.workload.namespace},
                "spec": spec,
            },
        )


def cilium(advice: advise.Advice) -> Iterator[tuple[advise.Advised, Document]]:
    """Yield a cilium.io/v2 CiliumNetworkPolicy for each workload; one empty rule isolates and allows nothing."""
    for one, name in _named(advice.policies):
        spec: Document = {"endpointSelector": _selector(selectors.selector(one.workload, advice.known))}
        for side, word, prefix in (
            (net.Direction.INGRESS, "ingress", "from"),
            (net.Direction.EGRESS, "egress", "to"),
        ):
            rules = [rule for every in one.rules[side] for rule in _cilium_rules(every, prefix, advice.known)]
            spec[word] = rules or [{}]
        yield (
            one,
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": name, "namespace": one.workload.namespace},
                "spec": spec,
            },
        )


def _named(policies: Iterable[advise.Advised]) -> Iterator[tuple[advise.Advised, str]]:
    """Give each policy a name of its own that the API takes."""
    taken: set[tuple[str, str]] = set()
    for one in policies:
        plain = _NOT_A_NAME.sub("-", one.name.lower())[:NAME_MOST].strip("-.") or "pods"
        plain = re.sub(r"\.+-|-+\.|\.\.+", "-", plain)
        base, number = f"{plain}-{SUFFIX}", 1
        name = base
        while (one.workload.namespace, name) in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add((one.workload.namespace, name))
        yield one, name


def _selector(one: selectors.Selector, more: Mapping[str, str] | None = None) -> Document:
    found: Document = {}
    if one.labels or more:
        found["matchLabels"] = {**(more or {}), **one.labels}
    if one.absent:
        found["matchExpressions"] = [{"key": key, "operator": "DoesNotExist"} for key in one.absent]
    return found


def _peer(peer: advise.Peer, subject: selectors.Workload, known: Collection[selectors.Workload]) -> Document:
    if isinstance(peer, advise.AddressPeer):
        return {"ipBlock": {"cidr": str(net.host_network(peer.address))}}
    found: Document = {"podSelector": _selector(_selected(peer, known))}
    if peer.workload.namespace != subject.namespace:
        found["namespaceSelector"] = {"matchLabels": {METADATA_NAME: peer.workload.namespace}}
    return found


def _selected(peer: advise.PodPeer, known: Collection[selectors.Workload]) -> selectors.Selector:
    if peer.dns:
        key, value = advise.DNS_LABEL
        return selectors.Selector(labels={key: value})
    return selectors.selector(peer.workload, known)


def _cilium_rules(rule: advise.Rule, prefix: str, known: Collection[selectors.Workload]) -> Iterator[Document]:
    """Yield a rule a kind of peer: several kinds in one would be asked for together."""
    ports = {"toPorts": [{"ports": [{"port": str(port.number), "protocol": port.protocol} for port in rule.ports]}]}
    pods = [peer for peer in rule.peers if isinstance(peer, advise.PodPeer)]
    outside = [peer for peer in rule.peers if isinstance(peer, advise.AddressPeer)]
    if pods:
        chosen = [_selector(_selected(peer, known), {CILIUM_NAMESPACE: peer.workload.namespace}) for peer in pods]
        yield {f"{prefix}Endpoints": chosen, **ports}
    entities = sorted({peer.entity for peer in outside if peer.entity})
    if entities:
        yield {f"{prefix}Entities": entities, **ports}
    others = [peer for peer in outside if not peer.entity]
    named = {peer: tuple(filter(_DOMAIN_NAME.fullmatch, peer.names)) if prefix == "to" else () for peer in others}
    names = sorted({name for several in named.values() for name in several})
    if names:
        yield {"toFQDNs": [{"matchName": name} for name in names], **ports}
    blocks = [str(net.host_network(peer.address)) for peer, several in named.items() if not several]
    if blocks:
        yield {f"{prefix}CIDR": blocks, **ports}
