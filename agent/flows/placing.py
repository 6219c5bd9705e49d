"""Where the pods of manifests were when a recording was made: people write manifests without addresses.

A recording names the pods at its flows' ends. A pod of that namespace and name which has no address is given those it
was recorded with, and the node that told of it: with these, its labels and its ports policies see it as they did then.
A name may be given to another pod, so every label that was recorded, and that a roll-out leaves alone, must be one the
manifests give it; a recording may lack some, as Cilium's do. What has an address in the manifests keeps it.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.flows import records, talks, workloads
from agent.model import net, resources

PodName: TypeAlias = tuple[str, str]
OWN_NODE = "host"
"""The reserved word of the node that tells of a flow."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A cluster whose pods have the addresses that a recording knows."""

    snapshot: snapshot_.Snapshot
    pods: int = 0
    """How many got theirs from the recording."""
    nodes: Mapping[PodName, str] = dataclasses.field(default_factory=dict)
    """Who told of each pod that was recorded."""


def place(cluster: snapshot_.Snapshot, told: Sequence[talks.Talk]) -> Placed:
    """Give pods, Services and nodes of `cluster` that have no address those in `told`, if any pod has none."""
    if not any(map(lacks_address, cluster.pods.values())):
        return Placed(snapshot=cluster)
    seen: dict[PodName, list[records.End]] = collections.defaultdict(list)
    for end in (end for talk in told for end in (talk.source, talk.destination) if end.pod):
        seen[end.namespace, end.pod].append(end)
    nodes = dict(_tellers(told))
    pods = dict(cluster.pods)
    for key, ends in seen.items():
        pod = pods.get(key)
        if pod is not None and lacks_address(pod) and all(agrees(end, pod) for end in ends):
            addresses = tuple(dict.fromkeys(end.address for end in ends))
            pods[key] = dataclasses.replace(pod, addresses=addresses, node=pod.node or nodes.get(key))
    placed = dataclasses.replace(
        cluster, pods=pods, nodes=_nodes(cluster.nodes, told), services=_services(cluster.services, told)
    )
    return Placed(snapshot=placed, pods=sum(pod is not cluster.pods[key] for key, pod in pods.items()), nodes=nodes)


def lacks_address(pod: resources.Pod) -> bool:
    """Tell whether a pod would be a party of policies if anybody knew its address."""
    return not pod.addresses and not pod.host_network and not pod.finished


def agrees(end: records.End, pod: resources.Pod) -> bool:
    """Tell whether an end was recorded with no other stable label than the pod has."""
    return workloads.stable(end.labels).items() <= pod.labels.items()


def _tellers(told: Iterable[talks.Talk]) -> Iterator[tuple[PodName, str]]:
    """Yield pods and their nodes: a verdict is given at the node of the pod whose side it is."""
    for talk in told:
        for direction, record in talk.last.items():
            end = record.source if direction is net.Direction.EGRESS else record.destination
            if end.pod and record.node:
                yield (end.namespace, end.pod), node_of(record)


def node_of(record: records.Record) -> str:
    """Return the node's own name: where there are several clusters, Cilium puts theirs before it."""
    return record.node.rpartition("/")[2]


def _nodes(known: Mapping[str, resources.Node], told: Iterable[talks.Talk]) -> Mapping[str, resources.Node]:
    """Add the addresses by which nodes reached their own pods (rule A37), where the manifests have none for them."""
    nodes = dict(known)
    for talk in told:
        record = talk.last.get(net.Direction.INGRESS)
        if record is None or OWN_NODE not in record.source.reserved or not record.node:
            continue
        name = node_of(record)
        if (node := known.get(name)) is None or not node.addresses:
            node = nodes.get(name, resources.Node(name=name))
            addresses = tuple(dict.fromkeys((*node.addresses, record.source.address)))
            nodes[name] = dataclasses.replace(node, addresses=addresses)
    return nodes


def _services(
    known: Mapping[PodName, resources.Service], told: Iterable[talks.Talk]
) -> Mapping[PodName, resources.Service]:
    """Add the addresses by which Services were dialled, where the manifests have none for them."""
    services = dict(known)
    for talk in told:
        ref = talks.service_of(talk.destination)
        own = known.get((ref.namespace, ref.name)) if ref is not None else None
        if own is not None and not own.cluster_addresses:
            there = services[own.namespace, own.name]
            addresses = tuple(dict.fromkeys((*there.cluster_addresses, talk.destination.address)))
            services[own.namespace, own.name] = dataclasses.replace(there, cluster_addresses=addresses)
    return services
