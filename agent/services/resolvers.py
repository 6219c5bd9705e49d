"""Whose DNS answers are believed: the cluster's own resolvers, and those the node's admin names.

The problem: an answer opens addresses, so whoever may answer may open them. The rule: an answer counts only from

    Services of kube-system with the label k8s-app=kube-dns    their cluster addresses, where kube-proxy translates in
                                                               the node, and the addresses behind them, where sockets
                                                               are translated or a pod asks a backend itself
    169.254.20.10                                              NodeLocal DNSCache, which answers in the Service's place
    --resolver                                                 what else the admin names: the node's own resolver, say

Nothing else is found by itself: the resolver of another namespace belongs to whoever may write there (requirement F11).
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from agent import snapshot as snapshot_
from agent.model import net
from agent.services import frontends

NAMESPACE = "kube-system"
LABEL, VALUE = "k8s-app", "kube-dns"
"""Every distribution's CoreDNS has it: autoscalers and dashboards have looked for it since kube-dns was another."""
NODE_LOCAL: net.Address = ipaddress.IPv4Address("169.254.20.10")
"""Link-local, and so never routed: who answers from there is on the node (requirement F29)."""

Value = TypeVar("Value")


def trusted(snapshot: snapshot_.Snapshot, named: Collection[net.Address] = ()) -> frozenset[net.Address]:
    """Return the resolvers of a cluster, and those that are `named`."""
    return frozenset(map(net.normalize, (NODE_LOCAL, *named, *_of_cluster(snapshot))))


def _of_cluster(snapshot: snapshot_.Snapshot) -> Iterator[net.Address]:
    services = [one for one in _there(snapshot.services).values() if one.labels.get(LABEL) == VALUE]
    if not services:
        return
    endpoints = frontends.Endpoints(
        dataclasses.replace(snapshot, endpoint_slices=_there(snapshot.endpoint_slices), pods=_there(snapshot.pods))
    )
    for service in services:
        yield from service.cluster_addresses
        for port in service.ports:
            yield from (address for address, _ in endpoints.of(service, port))


def _there(found: Mapping[snapshot_.NamespacedName, Value]) -> dict[snapshot_.NamespacedName, Value]:
    return {key: value for key, value in found.items() if key[0] == NAMESPACE}
