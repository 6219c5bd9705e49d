"""The least that policies must allow so that what a recording saw pass goes on passing.

A policy a workload: its pods of today and of the next roll-out. Whoever gave a verdict of its own is isolated both
ways, and may do what passed the last time it was tried, and nothing else. Workloads that are known from the verdicts of
others only get no policy: their own node was not recorded, so nothing is known of what else they do.

What no policy can say, and what needs none, is told in words beside the policy, and never widened into one.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from agent.flows import parties, records, selectors, talks, workloads
from agent.model import net

EXPRESSIBLE = frozenset({net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP})
NODES = frozenset({"host", "remote-node"})
ENTITIES = frozenset({*NODES, "kube-apiserver", "health", "ingress"})
"""Reserved words that some dialects have a peer for."""
DNS_PORT = 53
DNS_LABEL = ("k8s-app", "kube-dns")
DNS_NAMESPACE = "kube-system"
NAMED_MOST = 5
"""Pods of a workload that a note names."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port at the destination."""

    protocol: str
    """TCP, UDP or SCTP."""
    number: int


@dataclasses.dataclass(frozen=True, slots=True)
class PodPeer:
    """The pods of a workload."""

    workload: selectors.Workload
    dns: bool = False
    """Cluster DNS: selected by the label every distribution gives it, and by no other."""


@dataclasses.dataclass(frozen=True, slots=True)
class AddressPeer:
    """One address, and the names a recording has for it."""

    address: net.Address
    names: tuple[str, ...] = dataclasses.field(default=(), compare=False)
    entity: str = ""
    """Which reserved word stands for it, if any."""


Peer = PodPeer | AddressPeer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Every one of these peers on every one of these ports."""

    peers: tuple[Peer, ...]
    ports: tuple[Port, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advised:
    """The policy of one workload; it isolates both ways."""

    workload: selectors.Workload
    name: str
    """Of the workload, as far as it is known; hostile."""
    rules: Mapping[net.Direction, tuple[Rule, ...]]
    notes: tuple[str, ...]
    """What no rule says; hostile, escape to print."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Policies for every workload that was recorded."""

    policies: tuple[Advised, ...]
    known: frozenset[selectors.Workload]
    """Everybody whom a selector must tell apart."""
    notes: tuple[str, ...]
    coverage: talks.Coverage


@dataclasses.dataclass(slots=True)
class _Subject:
    """What was seen of one workload so far."""

    pods: set[str] = dataclasses.field(default_factory=set)
    names: set[str] = dataclasses.field(default_factory=set)
    own: bool = False
    """It gave verdicts of its own."""
    allowed: dict[net.Direction, dict[Peer, set[Port]]] = dataclasses.field(
        default_factory=lambda: {side: collections.defaultdict(set) for side in talks.SIDES}
    )
    notes: set[str] = dataclasses.field(default_factory=set)


def advise(told: talks.Told, others: Iterable[selectors.Workload] = ()) -> Advice:
    """Return a policy for each workload of a recording; `others` are known to be there too, and get none."""
    subjects: dict[selectors.Workload, _Subject] = collections.defaultdict(_Subject)
    for talk in told.talks:
        for side in talks.SIDES:
            _learn(subjects, talk, side)
    known = frozenset(subjects) | frozenset(others)
    given = [(one, seen) for one, seen in sorted(subjects.items(), key=_by_name) if seen.own and one.nameable]
    unseen = [one for one in subjects.items() if not one[1].own]
    unnameable = [one for one in subjects.items() if one[1].own and not one[0].nameable]
    notes = [
        *(f"{_named(*one)}: no policy, as its own node was not recorded" for one in sorted(unseen, key=_by_name)),
        *(f"{_named(*one)}: no policy, as its labels are none" for one in sorted(unnameable, key=_by_name)),
    ]
    return Advice(
        policies=tuple(_advised(one, seen) for one, seen in given),
        known=known,
        notes=tuple(notes),
        coverage=told.coverage,
    )


def workload_of(end: records.End) -> selectors.Workload:
    """Return what a pod's policies are for."""
    return selectors.Workload(end.namespace, workloads.stable(end.labels))


def _learn(subjects: dict[selectors.Workload, _Subject], talk: talks.Talk, side: net.Direction) -> None:
    """Add a talk to what its end on one side must be allowed."""
    egress = side is net.Direction.EGRESS
    end, other = (talk.source, talk.destination) if egress else (talk.destination, talk.source)
    if not end.pod:
        return
    subject = subjects[workload_of(end)]
    subject.pods.add(end.pod)
    subject.names.add(end.workload or end.pod)
    subject.own = subject.own or side in talk.last
    if not talk.passed:
        return
    shown = talks.ref(talk.key.destination if egress else talk.key.source)
    way = f"{'to' if egress else 'from'} {shown}"
    protocol = parties.protocol_of(talk.key.protocol)
    if protocol not in EXPRESSIBLE:
        word = protocol.name if protocol else f"protocol {talk.key.protocol}"
        subject.notes.add(f"{word} {way} passed; no NetworkPolicy can say so")
        return
    port = Port(protocol.name, talk.key.port)
    service = talks.service_of(talk.destination)
    if service is not None:
        if egress:
            subject.notes.add(f"{service} was dialled on {port.number}/{port.protocol}; its backends are what counts")
        return
    peer = _peer(other, subject, way, port)
    if peer is not None:
        subject.allowed[side][peer].add(port)


def _peer(other: records.End, subject: _Subject, way: str, port: Port) -> Peer | None:
    """Return whom to allow; what needs no rule, or can have none, becomes a note."""
    if other.pod:
        workload = workload_of(other)
        if not workload.nameable:
            subject.notes.add(f"{way} on {port.number}/{port.protocol} passed; its labels are none")
            return None
        dns = workload.namespace == DNS_NAMESPACE and DNS_LABEL in workload.labels.items() and port.number == DNS_PORT
        if dns and port.protocol == "UDP":
            subject.notes.add("DNS: answers that are too long for UDP come over 53/TCP, which was not recorded")
        return PodPeer(workload, dns=dns)
    entity = next(iter(sorted(other.reserved & ENTITIES)), "")
    if entity == "host" and way.startswith("from"):
        subject.notes.add(f"{way}: the pod's own node, which no NetworkPolicy can keep out")
        return None
    if other.address.is_unspecified:
        subject.notes.add(f"{way} on {port.number}/{port.protocol} passed; the record has no address")
        return None
    if entity in NODES:
        subject.notes.add(f"{other.address} is a node's: its processes and hostNetwork pods share it")
    elif "unmanaged" in other.reserved and not other.names:
        subject.notes.add(f"{other.address} was a pod's that nobody knew; its address may be another's next")
    elif other.names:
        subject.notes.add(f"{other.address} is {', '.join(other.names)}; names may get other addresses")
    return AddressPeer(other.address, other.names, entity)


def _advised(workload: selectors.Workload, seen: _Subject) -> Advised:
    return Advised(
        workload=workload,
        name=min(seen.names),
        rules={side: tuple(_rules(seen.allowed[side])) for side in talks.SIDES},
        notes=(f"seen: {_few(seen.pods)}", *sorted(seen.notes)),
    )


def _rules(allowed: Mapping[Peer, set[Port]]) -> Iterator[Rule]:
    """Put peers together that may use the same ports."""
    by_ports: dict[tuple[Port, ...], list[Peer]] = collections.defaultdict(list)
    for peer, ports in allowed.items():
        by_ports[tuple(sorted(ports))].append(peer)
    for same, peers in sorted(by_ports.items()):
        yield Rule(peers=tuple(sorted(peers, key=_peer_order)), ports=same)


def _peer_order(peer: Peer) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    if isinstance(peer, PodPeer):
        return 0, peer.workload.namespace, tuple(peer.workload.labels.items())
    return peer.address.version, peer.address.exploded, ()


def _by_name(one: tuple[selectors.Workload, _Subject]) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    workload, seen = one
    return workload.namespace, min(seen.names), tuple(workload.labels.items())


def _named(workload: selectors.Workload, seen: _Subject) -> str:
    return f"{workload.namespace}/{min(seen.names)}"


def _few(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - NAMED_MOST} more" if len(every) > NAMED_MOST else ""
    return ", ".join(every[:NAMED_MOST]) + more
