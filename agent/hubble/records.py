"""One verdict as collectors know it: with a number that tells it from every other, and the names Hubble's API has.

Everything a filter can ask for and everything the wire form says comes from here, so the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import hashlib

from agent.model import identity, labels, net, resources, verdict

CLUSTER = "default"
"""What Hubble calls a cluster that nobody named."""
POLICY_VERDICT = 5
"""event_type of a decision that policies made."""
ACCESS_LOG = 129
"""event_type of what was asked for above the transport layer."""
DROP = 1
"""event_type of any other drop."""
RESERVED = "reserved:"
HOST, REMOTE_NODE, WORLD, UNMANAGED = "host", "remote-node", "world", "unmanaged"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
DROP_REASONS = {
    verdict.Reason.POLICY_DENIED: 133,
    verdict.Reason.SERVICE_DENIED: 133,
    verdict.Reason.POLICY_DENY: 181,
    verdict.Reason.ENDPOINT_HELD: 203,
    verdict.Reason.SOURCE_SPOOFED: 132,
    verdict.Reason.MALFORMED: 134,
    verdict.Reason.RELATED_FORGED: 134,
    verdict.Reason.UNJUDGED: 165,
}
"""Hubble's number of each reason to drop."""
IP_VERSIONS = {net.Family.IPV4: 1, net.Family.IPV6: 2}
BY_POLICY = frozenset(
    {
        verdict.Reason.RULE_ALLOWED,
        verdict.Reason.NOT_ISOLATED,
        verdict.Reason.POLICY_DENIED,
        verdict.Reason.POLICY_DENY,
        verdict.Reason.SERVICE_DENIED,
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A verdict, and which one it is: `serial` counts within `run`, a number of one life of one agent (60 bits)."""

    event: verdict.VerdictEvent
    serial: int
    run: int

    @property
    def uuid(self) -> str:
        """An RFC 9562 UUID of version 8: the run, then the serial number."""
        run, serial = f"{self.run:015x}", self.serial
        return f"{run[:8]}-{run[8:12]}-8{run[12:]}-{0x8000 | serial >> 48 & 0x3FFF:04x}-{serial & 2**48 - 1:012x}"

    @property
    def drop_reason(self) -> int:
        """Hubble's number; 0 where nothing was dropped."""
        return DROP_REASONS.get(self.event.reason, 0) if self.event.verdict is verdict.Verdict.DROPPED else 0

    @property
    def ip_version(self) -> int:
        """Hubble's number of the family: 1 or 2."""
        return IP_VERSIONS[net.family_of(self.event.destination.address)]

    @property
    def event_type(self) -> int:
        """Hubble's number of the kind of event."""
        if self.event.query is not None:
            return ACCESS_LOG
        by_policy = self.event.reason in BY_POLICY or self.event.verdict is not verdict.Verdict.DROPPED
        return POLICY_VERDICT if by_policy else DROP

    @property
    def event_sub_type(self) -> int:
        """Of a drop its reason; 0 of a policy's verdict."""
        return self.drop_reason if self.event_type == DROP else 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEnd(verdict.FlowEnd):
    """An end as a recording has it, which may be another program's: with other words."""

    words: tuple[str, ...] = ()


def run_number(node: str, started_unix_ns: int) -> int:
    """Return a number for this life of this node's agent."""
    digest = hashlib.blake2b(f"{started_unix_ns} {node}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 4


def reserved(end: verdict.FlowEnd, node: str) -> str:
    """Return the reserved label of an end that is no pod's, without its prefix; "" for a pod."""
    if end.pod:
        return ""
    if end.owner is not None and end.owner.kind == "Node":
        return HOST if end.owner.name == node else REMOTE_NODE
    if end.identity == identity.HOST:
        return HOST
    if end.identity == identity.UNMANAGED:
        return UNMANAGED
    return "" if service(end) is not None else WORLD


def cluster(end: verdict.FlowEnd) -> str:
    """Return the cluster an end is in; "" outside."""
    return CLUSTER if end.pod else ""


def dialled(event: verdict.VerdictEvent) -> verdict.FlowEnd:
    """Return the end that the application asked for: the destination, unless it was led there by a Service."""
    return event.dialled if event.dialled is not None else event.destination


def service(end: verdict.FlowEnd) -> resources.ObjectRef | None:
    """Return the Service the address belongs to."""
    return end.owner if end.owner is not None and end.owner.kind == "Service" else None


def names(end: verdict.FlowEnd) -> tuple[str, ...]:
    """Return the names an address has: of a node, of a machine outside, and those that DNS gave it for."""
    owned = (end.owner.name,) if end.owner is not None and end.owner.kind != "Service" else ()
    return (*owned, *(name for name in end.names if name not in owned))


def selectable(end: verdict.FlowEnd, node: str) -> labels.Labels:
    """Return what label selectors see; what a pod may write itself never stands for what is derived."""
    derived = {NAMESPACE_LABEL: end.namespace} if end.pod else {}
    words = end.words if isinstance(end, RecordedEnd) else (reserved(end, node),)
    derived.update({RESERVED + word: "" for word in words if word})
    return labels.Labels({**end.labels, **derived})
