"""A verdict as a log record: what it says, under OpenTelemetry's names where there are any. Pure.

Of the semantic conventions it takes source.*, destination.*, network.*, process.*, log.record.uid, and k8s.* for the
pod that the verdict is about: the sender of egress, the receiver of ingress. The rest is nodewall.*. Names of pods and
processes are strangers': control characters are escaped, and no text and no list is without a bound, for whoever may
write many policies must not make a record that collectors refuse for its size.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TypeAlias

from agent.hubble import records, words
from agent.model import net, verdict
from agent.otlp import losses

FLOW = "nodewall.flow"
LOST = "nodewall.flow.lost"
TEXT_MOST = 1024
"""Characters of a text."""
POLICIES_MOST = 32
Value: TypeAlias = str | int | tuple[str, ...]
Attributes: TypeAlias = Mapping[str, Value]


class Severity(enum.Enum):
    """The value is OpenTelemetry's SeverityNumber, the name its text."""

    INFO = 9
    WARN = 13
    ERROR = 17


SEVERITIES = {
    verdict.Verdict.FORWARDED: Severity.INFO,
    verdict.Verdict.DROPPED: Severity.WARN,
    verdict.Verdict.AUDIT: Severity.WARN,
    verdict.Verdict.ERROR: Severity.ERROR,
}
DENIED = frozenset({verdict.Verdict.DROPPED, verdict.Verdict.AUDIT, verdict.Verdict.ERROR})
"""What is sent where not all is asked for."""
NAMES = {member.value: member.name.lower() for member in net.Protocol}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log record."""

    event: str
    time_ns: int
    """Unix time."""
    severity: Severity
    body: str
    attributes: Attributes


def of_flow(record: records.Record) -> Log:
    """Return the record that tells of a verdict; its uid is the one that Hubble's flow has."""
    event = record.event
    return Log(
        event=FLOW,
        time_ns=event.time_ns,
        severity=SEVERITIES[event.verdict],
        body=body(event),
        attributes={**shared(event), **own(record)},
    )


def body(event: verdict.VerdictEvent) -> str:
    """Return the line for people."""
    said = words.with_call(words.summary(event), event)
    way = f"{_end(event.source)} -> {_end(event.destination)}/{_transport(event).upper()}"
    return _text(f"{event.verdict.name} {event.direction.name.lower()} {way}: {said}")


def shared(event: verdict.VerdictEvent) -> Attributes:
    """Return the attributes that flows of one kind between two ends have in common (`hubble.writer.kind`)."""
    return {
        "network.type": net.family_of(event.destination.address).name.lower(),
        "source.address": str(event.source.address),
        "destination.address": str(event.destination.address),
        **_subject(event),
        "nodewall.verdict": event.verdict.name.lower(),
        "nodewall.reason": event.reason.name.lower(),
        "nodewall.direction": event.direction.name.lower(),
        "nodewall.layer": event.layer.name.lower(),
        **_decided(event),
        **_party("nodewall.source", event.source),
        **_party("nodewall.destination", event.destination),
    }


def own(record: records.Record) -> Attributes:
    """Return the other attributes."""
    event = record.event
    return {
        "log.record.uid": record.uuid,
        "network.transport": _transport(event),
        **_port("source", event.source),
        **_port("destination", event.destination),
        **_process(event),
        **_dialled(event),
        **({"dns.question.name": _text(event.query.name)} if event.query is not None else {}),
        **({"nodewall.repeats": event.repeats} if event.repeats else {}),
    }


def of_loss(loss: losses.Loss) -> Log:
    """Return the record that tells of flows that are missing."""
    return Log(
        event=LOST,
        time_ns=loss.last_ns,
        severity=Severity.WARN,
        body=f"{loss.count} flows lost: {loss.why.value}",
        attributes={
            "nodewall.lost.count": loss.count,
            "nodewall.lost.reason": loss.why.value,
            "nodewall.lost.first_unix_nano": loss.first_ns,
        },
    )


def _text(text: str) -> str:
    shown = words.plain(text)
    return shown if len(shown) <= TEXT_MOST else f"{shown[: TEXT_MOST - 3]}..."


def _transport(event: verdict.VerdictEvent) -> str:
    """Return the protocol's name, else its number."""
    return NAMES.get(event.protocol, str(event.protocol))


def _end(end: verdict.FlowEnd) -> str:
    if end.pod:
        return f"{end.namespace}/{end.pod} ({words.socket_address(end)})"
    return f"{end.owner} ({words.socket_address(end)})" if end.owner is not None else words.socket_address(end)


def _port(prefix: str, end: verdict.FlowEnd) -> Attributes:
    return {f"{prefix}.port": end.port} if end.port else {}


def _party(prefix: str, end: verdict.FlowEnd) -> Attributes:
    found: dict[str, Value] = {f"{prefix}.identity": end.identity}
    if end.pod:
        found |= {f"{prefix}.namespace": _text(end.namespace), f"{prefix}.pod": _text(end.pod)}
    if end.owner is not None:
        found[f"{prefix}.owner"] = _text(str(end.owner))
    if end.names:
        found[f"{prefix}.names"] = tuple(map(_text, end.names))
    return found


def _subject(event: verdict.VerdictEvent) -> Attributes:
    subject = event.source if event.direction is net.Direction.EGRESS else event.destination
    if not subject.pod:
        return {}
    return {"k8s.namespace.name": _text(subject.namespace), "k8s.pod.name": _text(subject.pod)}


def _process(event: verdict.VerdictEvent) -> Attributes:
    if event.process is None:
        return {}
    return {"process.pid": event.process.pid, "process.executable.name": _text(event.process.command)}


def _decided(event: verdict.VerdictEvent) -> Attributes:
    """Name the rule's policy, or those that isolate; where there are too many, how many in all."""
    found: dict[str, Value] = {}
    refs = (event.rule.policy,) if event.rule is not None else event.isolating
    if refs:
        found["nodewall.policies"] = tuple(_text(str(ref)) for ref in refs[:POLICIES_MOST])
    if len(refs) > POLICIES_MOST:
        found["nodewall.policies.count"] = len(refs)
    if event.rule is not None:
        found["nodewall.rule"] = _text(str(event.rule))
    return found


def _dialled(event: verdict.VerdictEvent) -> Attributes:
    if event.dialled is None:
        return {}
    found: dict[str, Value] = {"nodewall.dialled.address": str(event.dialled.address)}
    found |= _port("nodewall.dialled", event.dialled)
    service = records.service(event.dialled)
    if service is not None:
        found |= {
            "nodewall.dialled.service.name": _text(service.name),
            "nodewall.dialled.service.namespace": _text(service.namespace),
        }
    return found
