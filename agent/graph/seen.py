"""Verdicts as the graph counts them; an agent tells its own in the same form as a recording does."""

from __future__ import annotations

import dataclasses

from agent.flows import records
from agent.model import labels as labels_
from agent.model import net, resources, verdict


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One end, as far as it is known; every text is hostile."""

    address: net.Address
    namespace: str = ""
    pod: str = ""
    workload: str = ""
    labels: labels_.Labels = labels_.NO_LABELS
    service: resources.ObjectRef | None = None
    machine: str = ""
    """A node of the cluster, by name or by a reserved word."""
    name: str = ""
    """Of a machine outside."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One verdict in one direction."""

    time_ns: int
    direction: net.Direction
    denied: bool
    audited: bool
    """It passed, and a policy in audit would deny it (rule A51)."""
    protocol: int
    port: int
    source: Party
    destination: Party
    policies: tuple[str, ...] = ()
    stands_for: int = 1
    """How many verdicts it tells of, itself among them."""


def of_record(record: records.Record) -> Seen | None:
    """Return a recorded verdict; None for a reply (rule A38), and for one on the name that a DNS query has."""
    if record.reply or record.query:
        return None
    policies = (str(record.rule),) if record.rule is not None else tuple(map(str, record.policies))
    return Seen(
        time_ns=record.time_ns,
        direction=record.direction,
        denied=record.verdict in (verdict.Verdict.DROPPED, verdict.Verdict.ERROR),
        audited=record.verdict is verdict.Verdict.AUDIT,
        protocol=record.protocol,
        port=record.destination.port,
        source=_of_end(record.source),
        destination=_of_end(record.destination),
        policies=policies,
        stands_for=record.stands_for,
    )


def _of_end(end: records.End) -> Party:
    machine = ""
    if not end.pod and end.reserved & {"host", "remote-node"}:
        machine = end.names[0] if end.names else min(end.reserved & {"host", "remote-node"})
    return Party(
        address=end.address,
        namespace=end.namespace if end.pod else "",
        pod=end.pod,
        workload=end.workload,
        labels=end.labels,
        service=end.service,
        machine=machine,
        name=end.names[0] if end.names and not machine and not end.pod else "",
    )
