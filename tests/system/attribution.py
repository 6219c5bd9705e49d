"""What agents tell of connections that policy denies, beside what the evaluator says of them.

The problem: that a table's pair is blocked does not show that the verdict names the right policy. The rule: whoever
asks for a connection says here what must be told of it, worked out by the evaluator alone; what was told must be that
and nothing else, and of everybody who asked something must have been told.

    denied        DROPPED, by the rule that denies, else by the policies that isolate; once for the first side that
                  denies: the source's egress is judged before anything of the connection goes on its way, at every
                  layer, so only what it lets through is told as ingress
    would-be      AUDIT, by each side that passes it and would not with the policies in audit enforced (rule A51)
    to a Service  at its own address where the socket layer turned the call away, for egress denies every backend
                  (rule A42), or would; else at a backend, and any that is denied may be the one that was drawn
    allowed       nothing is told as denied

It must not read sockets or clocks, nor ask the compiler or what it makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from agent import snapshot as snapshot_
from agent.model import audit, net, resources
from agent.model import verdict as verdict_
from agent.policy import evaluator

Ends: TypeAlias = tuple[net.Address, net.Address, int, int]
"""Source and destination address, protocol and the destination's port: a connection but for the source's port."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a verdict says of a connection; a field that is wrong makes it another statement."""

    ends: Ends
    verdict: verdict_.Verdict
    reason: verdict_.Reason
    direction: net.Direction
    node: str
    """Whose agent tells it: the subject's."""
    source: str
    destination: str
    isolating: tuple[resources.ObjectRef, ...]
    """In order, so that one named twice shows."""
    rule: verdict_.RuleRef | None = None

    def __str__(self) -> str:
        """Show what is told, and of whom."""
        by = f"by {self.rule}" if self.rule is not None else f"isolated by {', '.join(map(str, self.isolating)) or '-'}"
        what = f"{self.direction.name} {self.verdict.name} {self.reason.name} {by}"
        return f"{what}, of {self.source} -> {self.destination}, on {self.node or '-'}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A connection that was tried, and what may be told of it as denied; with no choice nothing may."""

    name: str
    flows: tuple[Ends, ...]
    choices: tuple[frozenset[Statement], ...]
    """Of one of them every statement must be told."""

    def __str__(self) -> str:
        """Show what should have been told."""
        wanted = " or ".join(" and ".join(sorted(map(str, choice))) for choice in self.choices)
        return f"{self.name}: {wanted or 'nothing'}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Dialled:
    """A call to a Service's own address."""

    service: resources.ObjectRef
    flow: evaluator.Flow


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came of it."""

    agreed: tuple[Asked, ...]
    """Something had to be told, and was."""
    silent: tuple[Asked, ...]
    """Something had to be told, and was not."""
    wrong: tuple[str, ...]
    """What was told and must not be."""


def of_pair(name: str, cluster: snapshot_.Snapshot, flow: evaluator.Flow, audits: audit.Audit) -> Asked:
    """Say what is told of a connection between two addresses."""
    statements = frozenset(_statements(flow, evaluator.evaluate(cluster, flow, audits)))
    return Asked(name=name, flows=(_ends(flow),), choices=(statements,) if statements else ())


def of_service(
    name: str,
    cluster: snapshot_.Snapshot,
    dialled: Dialled,
    flows: Sequence[evaluator.Flow],
    audits: audit.Audit,
) -> Asked:
    """Say what is told of a call to a Service, whose backends `flows` go to."""
    decisions = [evaluator.evaluate(cluster, flow, audits) for flow in flows]
    choices = [frozenset(_statements(flow, decision)) for flow, decision in zip(flows, decisions, strict=True)]
    choices.append(frozenset(_at_service(dialled, [decision.egress for decision in decisions])))
    return Asked(
        name=name,
        flows=tuple(_ends(flow) for flow in (dialled.flow, *flows)),
        choices=tuple(choice for choice in choices if choice),
    )


def compare(asked: Iterable[Asked], told: Iterable[verdict_.VerdictEvent]) -> Comparison:
    """Lay what was told as denied beside what had to be; what concerns nobody who asked is left out."""
    asked = tuple(asked)
    heard = {statement_of(event) for event in told if event.verdict is not verdict_.Verdict.FORWARDED}
    right = frozenset(one for each in asked for choice in each.choices for one in choice)
    named = {ends: each.name for each in asked for ends in each.flows}
    owed = [(each, any(choice <= heard for choice in each.choices)) for each in asked if each.choices]
    return Comparison(
        agreed=tuple(each for each, answered in owed if answered),
        silent=tuple(each for each, answered in owed if not answered),
        wrong=tuple(sorted(_complaints(heard - right, named, right))),
    )


def statement_of(event: verdict_.VerdictEvent) -> Statement:
    """Return what a verdict says, whatever layer it is from and whatever else it knows."""
    return Statement(
        ends=(event.source.address, event.destination.address, event.protocol, event.destination.port),
        verdict=event.verdict,
        reason=event.reason,
        direction=event.direction,
        node=event.node,
        source=_end_name(event.source),
        destination=_end_name(event.destination),
        isolating=tuple(sorted(event.isolating)),
        rule=event.rule,
    )


def _complaints(heard: Collection[Statement], named: Mapping[Ends, str], right: Collection[Statement]) -> Iterator[str]:
    for statement in heard:
        if statement.ends in named:
            wanted = "; ".join(str(one) for one in right if one.ends == statement.ends) or "nothing"
            yield f"{named[statement.ends]}: told {statement}; expected {wanted}"


def _statements(flow: evaluator.Flow, decision: evaluator.Decision) -> Iterator[Statement]:
    for side in (decision.egress, decision.ingress):
        if not side.allowed:
            yield _denied(flow, side)
            return
    for side in decision.would_deny:
        yield dataclasses.replace(_denied(flow, side), verdict=verdict_.Verdict.AUDIT)


def _at_service(dialled: Dialled, egress: Sequence[evaluator.Side]) -> Iterator[Statement]:
    """Yield what the socket layer tells of a call: that no backend is allowed, or would be with what is in audit."""
    would = [side.would or side for side in egress]
    for sides, verdict in ((egress, verdict_.Verdict.DROPPED), (would, verdict_.Verdict.AUDIT)):
        if sides and not any(side.allowed for side in sides):
            denied = _denied(dialled.flow, sides[0])
            reason, destination = verdict_.Reason.SERVICE_DENIED, str(dialled.service)
            if len({side.rule for side in sides}) > 1:  # of several rules none is named
                denied = dataclasses.replace(denied, rule=None, isolating=tuple(sorted(sides[0].isolating)))
            yield dataclasses.replace(denied, verdict=verdict, reason=reason, destination=destination)
            return


def _denied(flow: evaluator.Flow, side: evaluator.Side) -> Statement:
    subject = flow.source if side.direction is net.Direction.EGRESS else flow.destination
    assert isinstance(subject, resources.Pod), side  # only pods can be isolated (rule A18)
    by_rule = side.rule is not None
    return Statement(
        ends=_ends(flow),
        verdict=verdict_.Verdict.DROPPED,
        reason=verdict_.Reason.POLICY_DENY if by_rule else verdict_.Reason.POLICY_DENIED,
        direction=side.direction,
        node=subject.node or "",
        source=_party_name(flow.source, flow.source_address),
        destination=_party_name(flow.destination, flow.destination_address),
        isolating=() if by_rule else tuple(sorted(side.isolating)),
        rule=side.rule,
    )


def _ends(flow: evaluator.Flow) -> Ends:
    return flow.source_address, flow.destination_address, flow.protocol.value, flow.port


def _party_name(party: evaluator.Party, address: net.Address) -> str:
    """Name an end as verdicts do; a hostNetwork pod is its node to them (rule A26)."""
    match party:
        case resources.Pod(host_network=True):
            return str(resources.ObjectRef("Node", "", party.node or ""))
        case resources.Pod():
            return f"{party.namespace}/{party.name}"
        case resources.Node() | resources.Host():
            return str(resources.ObjectRef(type(party).__name__, "", party.name))
        case None:
            return str(address)


def _end_name(end: verdict_.FlowEnd) -> str:
    if end.pod:
        return f"{end.namespace}/{end.pod}"
    return str(end.owner) if end.owner is not None else str(end.address)
