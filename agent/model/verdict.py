"""Verdicts: what happened to a flow, why, and by which policy. Names follow Hubble's flow.proto."""

from __future__ import annotations

import dataclasses
import enum
from typing import TypeAlias

from agent.model import labels as labels_
from agent.model import net, resources


class Verdict(enum.Enum):
    """What happened; the value is Hubble's number."""

    FORWARDED = 1
    DROPPED = 2
    ERROR = 3
    AUDIT = 4


class Layer(enum.Enum):
    """Which layer decided; the value is what `struct event` carries."""

    SOCKET = 1
    PACKET = 2


class Reason(enum.Enum):
    """Why; the value is what `struct event` carries (`bpf/include/types.h`, enum reason)."""

    RULE_ALLOWED = 1
    """A rule allows it; `rule` names it."""
    NOT_ISOLATED = 2
    """No policy isolates the endpoint in this direction (rule A15)."""
    POLICY_DENIED = 3
    """Isolated, and no rule allows it (Hubble 133)."""
    POLICY_DENY = 4
    """A rule denies it explicitly (Hubble 181)."""
    ENDPOINT_HELD = 5
    """The pod is not programmed yet (Hubble 203, rule A45)."""
    SOURCE_SPOOFED = 6
    """The source address is not the sending pod's (Hubble 132)."""
    SERVICE_DENIED = 7
    """Every backend of the Service is denied."""
    MALFORMED = 8
    """The packet could not be parsed, so nothing can allow it."""
    RELATED_FORGED = 9
    """An ICMP error about a flow its sender is no end of."""
    UNJUDGED = 10
    """Somebody else's rule kept the packet from being judged, and it concerns an enforced endpoint (iptables)."""


class Match(enum.Enum):
    """What of a flow the row that decided speaks of; the value is Hubble's policy_match_type."""

    NONE = 0
    """No row decided, or it is not known which."""
    L3_ONLY = 1
    """The peer."""
    L3_L4 = 2
    """The peer and the port."""
    L4_ONLY = 3
    """The port."""
    ALL = 4
    """Nothing: everything matches, or no policy isolates."""
    L3_PROTO = 5
    """The peer and the protocol."""
    PROTO_ONLY = 6
    """The protocol."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class RuleRef:
    """Names the rule of a policy that decided; `index` counts within its direction."""

    policy: resources.ObjectRef
    direction: net.Direction
    index: int

    def __str__(self) -> str:
        """Show as `NetworkPolicy x/p ingress[0]`."""
        return f"{self.policy} {self.direction.name.lower()}[{self.index}]"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowEnd:
    """One end of a flow, as far as it is known; `port` is 0 where the protocol has none."""

    address: net.Address
    port: int
    identity: int
    namespace: str = ""
    pod: str = ""
    labels: labels_.Labels = labels_.NO_LABELS
    owner: resources.ObjectRef | None = None
    """The Host, Node or Service the address belongs to, where it is no pod's."""
    names: tuple[str, ...] = ()
    """By which DNS gave the address to the pod that was judged, the last first, expired or not (requirement F16)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """Who called connect() or sendmsg(); only the socket layer knows."""

    pid: int
    command: str
    """At most 15 bytes, hostile: escape before printing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a pod asked DNS for."""

    name: str
    """With the dot at its end; every character of it is printable ASCII."""
    type: str
    """`A`, `AAAA`, or TYPE and a number (RFC 3597)."""
    admitted_by: str = ""
    """The rule that says which names may be asked for; "": several do, of a Service's backends."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VerdictEvent:
    """One decision on one flow in one direction, enriched from the snapshot of its generation."""

    time_ns: int
    """Wall clock, nanoseconds since 1970."""
    node: str
    verdict: Verdict
    reason: Reason
    direction: net.Direction
    layer: Layer
    protocol: int
    """IANA number; may be none of `net.Protocol`."""
    source: FlowEnd
    destination: FlowEnd
    generation: int
    rule: RuleRef | None = None
    """The rule that decided, if one did."""
    isolating: tuple[resources.ObjectRef, ...] = ()
    """The policies that isolate the subject, where nothing allowed the flow."""
    process: Process | None = None
    match: Match = Match.NONE
    dialled: FlowEnd | None = None
    """What the application asked for, where it was led elsewhere: a Service, mostly."""
    repeats: int = 0
    """Verdicts of the same kind before this one that were kept back: endpoint, peer's identity, port and verdict."""
    joined: bool = False
    """Both layers told of it: the packet layer decided, the socket layer knows `process` and `dialled`."""
    query: Query | None = None
    """The DNS query that was refused, if that is what it tells of (rule E17)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which verdicts a reader wants; what is None or "" admits any."""

    verdict: Verdict | None = None
    namespace: str = ""
    pod: str = ""
    """Name and namespace must be of one end, whichever."""
    raw: bool = False
    """Each layer's verdict for itself, not one a connection."""

    def admits(self, event: VerdictEvent) -> bool:
        """Tell whether `event` is wanted."""
        if self.verdict is not None and event.verdict is not self.verdict:
            return False
        return any(
            (not self.namespace or end.namespace == self.namespace) and (not self.pod or end.pod == self.pod)
            for end in (event.source, event.destination)
        )


EVERY_VERDICT = Filter()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Verdicts that did not reach a reader of the stream; losing them never delays a packet."""

    count: int
    where: str
    """`ring`: the kernel's buffer was full; `queue`: the agent fell behind; `client`: this reader did."""


Item: TypeAlias = VerdictEvent | Lost
"""What a stream of verdicts yields."""
