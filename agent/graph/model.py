"""A graph of a cluster's conversations: workloads, what is outside, and what goes between them.

Nodes and edges are sorted and numbered by their place, so that the same input gives the same picture.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


class Kind(enum.Enum):
    """What a node stands for; the value is what documents say."""

    WORKLOAD = "workload"
    POD = "pod"
    SERVICE = "service"
    NODE = "node"
    """A machine of the cluster, or the processes on its own network."""
    NAME = "name"
    """A machine outside that has a name."""
    RANGE = "range"
    """Addresses that a policy names."""
    WORLD = "world"
    """Every other address."""


OUTSIDE = frozenset({Kind.NODE, Kind.NAME, Kind.RANGE, Kind.WORLD})


class State(enum.Enum):
    """What an edge tells; of several the first in this order is what it is drawn as (but see `Lane.rank`)."""

    DENIED = "denied"
    """Tried, and denied."""
    AUDIT = "audit"
    """It passes, and policies in audit would deny it (rule A51)."""
    SEEN = "seen"
    """It took place."""
    UNSEEN = "unseen"
    """Policies allow it and nobody was seen to use it."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names a node: namespace "" is outside; `kind` keeps a pod and a Service of one name apart."""

    namespace: str
    name: str
    kind: str = Kind.WORKLOAD.value


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One end of edges."""

    key: Key
    kind: Kind
    pods: tuple[str, ...] = ()
    """Names of the pods it stands for, sorted."""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What all its pods have in common."""
    open_ingress: bool = False
    """No policy isolates some pod of it for ingress: everybody reaches it."""
    open_egress: bool = False
    addresses: tuple[str, ...] = ()
    """Some of those it was seen with, where it is no pod."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One port of an edge."""

    port: int | None
    """0 where the protocol has none; None: every one."""
    protocol: int | None
    """IANA number; None: every one."""
    allowed: bool | None
    """What the policies say now; None where they were not asked."""
    partial: bool = False
    """Of the pods on both ends only some may."""
    policies: tuple[str, ...] = ()
    """The rules that allow, or the policies that isolate where nothing allows; "" of none."""
    because: str = ""
    forwarded: int = 0
    denied: int = 0
    audited: int = 0
    """Of those that passed, how many were told as would-be denials, at least (rule A51)."""
    would_deny: bool = False
    """Policies in audit would deny what is allowed now; `policies` are these then, unless it was denied."""
    last_ns: int = 0
    """When it was seen last; Unix time, 0 for never."""

    @property
    def state(self) -> State | None:
        """What there is to show of it; None: not allowed and never tried."""
        if self.denied:
            return State.DENIED
        if self.audited or (self.would_deny and (self.forwarded or self.allowed)):
            return State.AUDIT
        if self.forwarded:
            return State.SEEN
        return State.UNSEEN if self.allowed else None

    @property
    def tried(self) -> bool:
        """Whether anybody was seen to use it."""
        return bool(self.denied or self.forwarded or self.audited)

    @property
    def rank(self) -> int:
        """Its place among the lanes of an edge: what nobody tried comes after all that was, in the order of State."""
        state = self.state
        places = list(State)
        return len(places) * (not self.tried) + (places.index(state) if state is not None else len(places))

    @property
    def outdated(self) -> bool:
        """What was seen is not what the policies say now."""
        if self.allowed is None or self.partial:
            return False
        if self.audited and not self.denied and not self.would_deny:
            return True
        return bool(self.denied and self.allowed) or bool(self.forwarded and not self.allowed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """All that goes from one node to another."""

    source: int
    """Place in `Graph.nodes`."""
    target: int
    lanes: tuple[Lane, ...]

    @property
    def state(self) -> State:
        """The state of the lane that comes first."""
        states = {lane.rank: lane.state for lane in self.lanes}
        return next(state for _, state in sorted(states.items(), key=lambda one: one[0]) if state is not None)

    @property
    def forwarded(self) -> int:
        """Connections seen on all ports."""
        return sum(lane.forwarded for lane in self.lanes)

    @property
    def denied(self) -> int:
        """Attempts denied on all ports."""
        return sum(lane.denied for lane in self.lanes)

    @property
    def audited(self) -> int:
        """Connections on all ports that policies in audit would have denied."""
        return sum(lane.audited for lane in self.lanes)

    @property
    def tried(self) -> bool:
        """Whether anybody was seen to use it."""
        return any(lane.tried for lane in self.lanes)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Nodes by namespace and name, those outside last, and edges by their ends."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    policies: int = 0
    """How many policies were asked; 0: only what was seen is shown."""
    verdicts: int = 0
    """How many recorded verdicts were counted."""
    first_ns: int = 0
    """When the first of them was given; Unix time."""
    last_ns: int = 0
    lost: int = 0
    """Verdicts that the recording says it lacks."""

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Return the namespaces, sorted, without the outside."""
        return tuple(sorted({node.key.namespace for node in self.nodes if node.key.namespace}))

    def of(self, state: State) -> int:
        """Return how many edges are drawn so."""
        return sum(edge.state is state for edge in self.edges)
