"""The graph of policies and of recorded verdicts: nodes, and on each edge what may, what did, and what was turned away.

An edge is there if it was seen, or if some rule allows it, or if it passes and policies in audit would deny it (rule
A51). What is allowed only because no policy isolates either end would be an edge from everybody to everybody; nodes say
so instead (`open_ingress`, `open_egress`), unless `everything` is asked for. Ports that are never seen are those that
pods declare.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Mapping

from agent import snapshot as snapshot_
from agent.flows import workloads
from agent.graph import counting, grouping, judging, model, outside
from agent.graph import seen as seen_
from agent.model import audit as audit_
from agent.model import net, resources
from agent.policy import reachability

PROTOCOLS = {member.value: member for member in net.Protocol}
Pair = tuple[model.Key, model.Key]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which graph is wanted."""

    namespaces: frozenset[str] = frozenset()
    """Only edges with an end in one of these; empty: all."""
    expand: bool = False
    """Pods instead of workloads."""
    everything: bool = False
    """Also what is allowed because no policy isolates either end."""
    audits: Mapping[str, audit_.Audit] = dataclasses.field(default_factory=lambda: reachability.NO_AUDITS)
    """What is in audit at the nodes of the cluster, by name; "" for pods that have none."""


def build(snapshot: snapshot_.Snapshot | None, seen: Iterable[seen_.Seen], *, asked: Asked) -> model.Graph:
    """Return the graph; without a snapshot policies are not asked, and it shows what was seen alone."""
    return _Builder(snapshot, asked).graph(seen)


def with_lost(graph: model.Graph, lost: int) -> model.Graph:
    """Say in the graph that verdicts are missing: who counts them knows it only when all were read."""
    return dataclasses.replace(graph, lost=lost) if lost else graph


class _Builder:
    def __init__(self, snapshot: snapshot_.Snapshot | None, asked: Asked) -> None:
        self._asked = asked
        self._known = snapshot is not None
        self._snapshot = reachability.place(snapshot or snapshot_.Snapshot()).snapshot
        pods = [end for end in reachability.ends(self._snapshot).values() if isinstance(end, resources.Pod)]
        self._hosts = {
            address: model.Key(outside.OUTSIDE, host.name, model.Kind.NAME.value)
            for host in self._snapshot.hosts.values()
            for address in host.addresses
        }
        self._machines = {at: node.name for node in self._snapshot.nodes.values() for at in node.addresses}
        self._blocks = outside.ranges(self._snapshot)
        self._group = grouping.group(pods, expand=asked.expand)
        self._pods: dict[model.Key, list[resources.Pod]] = collections.defaultdict(list)
        for pod in pods:
            self._pods[self._group[pod.namespace, pod.name]].append(pod)
        members: dict[model.Key, list[reachability.End | resources.Node]] = {
            key: list(several) for key, several in self._pods.items()
        }
        members.update(
            {self._hosts[host.addresses[0]]: [host] for host in self._snapshot.hosts.values() if host.addresses}
        )
        members.update({_machine(node.name): [node] for node in self._snapshot.nodes.values() if node.addresses})
        self._judge = judging.Judge(self._snapshot, members, asked.audits)
        self._counts = counting.Counts()
        self._lanes: dict[Pair, dict[tuple[int | None, int | None, str], model.Lane]] = collections.defaultdict(dict)

    def graph(self, seen: Iterable[seen_.Seen]) -> model.Graph:
        for one in seen:
            self._count(one)
        self._add_seen()
        if self._known:
            self._add_allowed()
            self._add_openings()
        return self._assembled()

    def _count(self, one: seen_.Seen) -> None:
        source, target = self._key(one.source), self._key(one.destination)
        self._counts.count((source, target, one.port, one.protocol), one)

    def _key(self, party: seen_.Party) -> model.Key:
        """Return the node that an end belongs to, and remember whom it stood for."""
        if party.pod:
            kind = model.Kind.POD if self._asked.expand else model.Kind.WORKLOAD
            name = party.pod if self._asked.expand else party.workload or party.pod
            key = self._group.get((party.namespace, party.pod)) or model.Key(party.namespace, name, kind.value)
        elif party.service is not None:
            kind = model.Kind.SERVICE
            key = model.Key(party.service.namespace, party.service.name, kind.value)
        elif party.machine or party.address in self._machines:
            kind, key = model.Kind.NODE, _machine(party.machine or self._machines[party.address])
        elif party.name or party.address in self._hosts:
            kind = model.Kind.NAME
            key = self._hosts.get(party.address) or model.Key(outside.OUTSIDE, party.name, kind.value)
        else:
            key = outside.owner(party.address, self._blocks)
            kind = model.Kind(key.kind)
        self._counts.saw(key, kind, pod=party.pod, address=str(party.address))
        return key

    def _add_seen(self) -> None:
        for (source, target, number, protocol), count in self._counts.lanes.items():
            judgement = None
            if self._known and protocol in PROTOCOLS:
                judgement = self._judge.judge(source, target, (number, PROTOCOLS[protocol]))
            would_deny = judgement is not None and judgement.would_deny
            policies = tuple(count.policies)
            if judgement is not None and (not policies or (would_deny and not count.denied and not count.audited)):
                policies = judgement.policies
            self._lanes[source, target][number, protocol, ""] = model.Lane(
                port=number,
                protocol=protocol,
                allowed=judgement.allowed if judgement is not None else None,
                partial=judgement.partial if judgement is not None else False,
                policies=policies,
                because=judgement.because if judgement is not None else "",
                forwarded=count.forwarded,
                denied=count.denied,
                audited=count.audited,
                would_deny=would_deny,
                last_ns=count.last_ns,
            )

    def _add_allowed(self) -> None:
        """Add what rules allow between pods, and between pods and machines with names, on declared ports."""
        hosts = [self._hosts[host.addresses[0]] for host in self._snapshot.hosts.values() if host.addresses]
        ports = {key: _declared(pods) for key, pods in self._pods.items()}
        for host in self._snapshot.hosts.values():
            if host.addresses:
                ports[self._hosts[host.addresses[0]]] = _declared([host])
        for source, target in itertools.product((*self._pods, *hosts), ports):
            if not source.namespace and not target.namespace:
                continue
            for number, protocol in ports[target]:
                lane = (number, protocol.value, "")
                if lane in self._lanes.get((source, target), {}):
                    continue
                judgement = self._judge.judge(source, target, (number, protocol))
                if judgement is None or not judgement.allowed:
                    continue
                if not judgement.policies and not self._asked.everything:
                    continue
                self._lanes[source, target][lane] = model.Lane(
                    port=number,
                    protocol=protocol.value,
                    allowed=True,
                    partial=judgement.partial,
                    would_deny=judgement.would_deny,
                    policies=judgement.policies,
                    because=judgement.because,
                )

    def _add_openings(self) -> None:
        """Add what rules allow to and from blocks; what was seen of it says more."""
        for opening in outside.openings(self._snapshot, lambda ref, pod: not self._judge.is_in_audit(ref, pod)):
            for key in dict.fromkeys(self._group[pod.namespace, pod.name] for pod in opening.pods):
                egress = opening.direction is net.Direction.EGRESS
                lanes = self._lanes[(key, opening.block) if egress else (opening.block, key)]
                place = (opening.port, opening.protocol, opening.note)
                known = lanes.get(place)
                if known is None:
                    lanes[place] = model.Lane(
                        port=opening.port,
                        protocol=opening.protocol,
                        allowed=True,
                        partial=len(opening.pods) < len(self._pods[key]) and not self._covers(opening, key),
                        policies=(str(opening.rule),),
                        because=f"ports {opening.note}" if opening.note else "",
                    )
                elif not known.denied and not known.audited:
                    policies = tuple(dict.fromkeys((*known.policies, str(opening.rule))))
                    lanes[place] = dataclasses.replace(known, policies=policies, allowed=True)

    def _covers(self, opening: outside.Opening, key: model.Key) -> bool:
        return set(self._pods[key]) <= set(opening.pods)

    def _assembled(self) -> model.Graph:
        wanted = self._asked.namespaces
        pairs = {
            pair: tuple(sorted((one for one in lanes.values() if one.state is not None), key=_lane_order))
            for pair, lanes in self._lanes.items()
            if not wanted or {key.namespace for key in pair} & wanted
        }
        pairs = {pair: lanes for pair, lanes in pairs.items() if lanes}
        keys = {key for pair in pairs for key in pair}
        keys |= {key for key in self._pods if not wanted or key.namespace in wanted}
        order = sorted(keys, key=lambda key: (not key.namespace, key))
        places = {key: place for place, key in enumerate(order)}
        return model.Graph(
            nodes=tuple(map(self._node, order)),
            edges=tuple(
                model.Edge(source=places[source], target=places[target], lanes=lanes)
                for (source, target), lanes in sorted(
                    pairs.items(), key=lambda one: tuple(places[key] for key in one[0])
                )
            ),
            policies=len(self._snapshot.policies),
            verdicts=self._counts.verdicts,
            first_ns=self._counts.first_ns,
            last_ns=self._counts.last_ns,
        )

    def _node(self, key: model.Key) -> model.Node:
        pods = self._pods.get(key, [])
        names = {pod.name for pod in pods} | set(self._counts.pods.get(key, ()))
        return model.Node(
            key=key,
            kind=model.Kind(key.kind),
            pods=tuple(sorted(names)),
            labels=_shared(pods),
            open_ingress=self._open(key, net.Direction.INGRESS),
            open_egress=self._open(key, net.Direction.EGRESS),
            addresses=tuple(self._counts.addresses.get(key, ())),
        )

    def _open(self, key: model.Key, direction: net.Direction) -> bool:
        return self._known and key in self._pods and not self._judge.isolated(key, direction)


def _machine(name: str) -> model.Key:
    return model.Key(outside.OUTSIDE, name, model.Kind.NODE.value)


def _declared(ends: Iterable[reachability.End]) -> list[reachability.Port]:
    found = {(port.number, port.protocol) for end in ends for port in end.ports}
    return sorted(found, key=lambda port: (port[1].value, port[0]))


def _shared(pods: Iterable[resources.Pod]) -> Mapping[str, str]:
    """Return the labels that all of them have, and will have after the next roll-out."""
    every = [set(workloads.stable(pod.labels).items()) for pod in pods]
    return dict(sorted(set.intersection(*every))) if every else {}


def _lane_order(lane: model.Lane) -> tuple[int, int, int]:
    return lane.rank, lane.protocol if lane.protocol is not None else -1, lane.port if lane.port is not None else -1
