"""Renders the evaluator's walk: as indented lines for people, as a document for programs.

It decides nothing. Texts hold names from manifests; whoever prints them escapes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from agent.model import net, resources
from agent.policy import evaluator, matching, queries


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of an explanation."""

    depth: int
    """How far it is indented, in steps."""
    text: str
    good: bool | None = None
    """Whether what it says matches or allows; None: it says neither."""
    heading: bool = False


def lines(walk: evaluator.Walk) -> Iterator[Line]:
    """Tell the whole way to a verdict, the verdict first."""
    allowed, in_audit = walk.decision.allowed, bool(walk.decision.would_deny)
    said = "allowed in audit, and would be blocked" if in_audit else "allowed" if allowed else "blocked"
    yield Line(depth=0, text=f"{title(walk.flow)}: {said}", good=None if in_audit else allowed, heading=True)
    for side in (walk.egress, walk.ingress):
        yield from _side_lines(side)


def title(flow: evaluator.Flow) -> str:
    """Name a flow by its ends, their addresses and the port."""
    port = f"{flow.port}/{flow.protocol.name}" if flow.port else flow.protocol.name
    source = _end(flow.source, flow.source_address)
    service = ", behind a Service" if flow.via_service else ""
    return f"{source} to {_end(flow.destination, flow.destination_address)} port {port}{service}"


def _end(party: evaluator.Party, address: net.Address) -> str:
    return str(address) if party is None else f"{matching.describe(party)} ({address})"


def _side_lines(walk: evaluator.SideWalk) -> Iterator[Line]:
    side = walk.side
    subject = f" of {side.subject.namespace}/{side.subject.name}" if side.subject else ""
    verdict = "allowed" if side.allowed else "blocked"
    yield Line(depth=0, text=f"{side.direction.name.lower()}{subject}: {verdict}", good=side.allowed, heading=True)
    yield Line(depth=1, text=side.because)
    restricted = queries.restriction(walk)
    if restricted is not None:
        yield Line(depth=1, text=f"it is for {restricted.because}")
    if side.would is not None:
        would = "allowed" if side.would.allowed else "blocked"
        text = f"were the policies in audit enforced: {would}, as {side.would.because} (A51)"
        yield Line(depth=1, text=text, good=side.would.allowed)
    for tier in walk.tiers:
        yield Line(depth=1, text=f"tier {tier.name}{'' if tier.policies else ': no policy in this namespace'}")
        for policy in tier.policies:
            tried = "; it is in audit and decides nothing (A51)" if policy.in_audit else ""
            yield Line(depth=2, text=f"{policy.policy} {policy.because}{tried}")
            if policy.isolates and not policy.rules:
                yield Line(depth=3, text="it has no rule for this direction (A3)", good=False)
            for rule in policy.rules:
                yield from _rule_lines(rule, deciding=rule.rule == side.rule)


def _rule_lines(rule: evaluator.RuleWalk, *, deciding: bool) -> Iterator[Line]:
    name = f"{rule.rule.direction.name.lower()}[{rule.rule.index}]"
    says = "matches and decides" if deciding else "matches" if rule.matches else "does not match"
    does = "" if rule.action is resources.RuleAction.ALLOW else f" ({rule.action.value})"
    good = rule.matches if rule.action is resources.RuleAction.ALLOW else None
    yield Line(depth=3, text=f"{name}{does} {says}", good=good)
    for kind, findings in (("peer", rule.peers), ("port", rule.ports)):
        for finding in findings:
            yield Line(depth=4, text=f"{kind}: {finding.because}", good=finding.matches)
        if not findings:
            yield Line(depth=4, text=f"{kind}: none of those written can be honoured (A50)", good=False)


def query_lines(name: str, answer: queries.Answer) -> Iterator[Line]:
    """Tell whether a DNS query for a name gets through where the flow does."""
    said = "let through" if answer.allowed else "refused"
    heading = f"a DNS query for {name}: {said}{' in audit, and would be refused' if answer.would_refuse else ''}"
    yield Line(depth=0, text=heading, good=None if answer.would_refuse else answer.allowed, heading=True)
    yield Line(depth=1, text=answer.because)


def query_document(name: str, answer: queries.Answer) -> dict[str, object]:
    """Return the same as JSON can say it."""
    return {
        "name": name,
        "allowed": answer.allowed,
        "because": answer.because,
        "would_refuse": answer.would_refuse,
    }


def document(walk: evaluator.Walk) -> dict[str, object]:
    """Return the walk as JSON can say it."""
    flow = walk.flow
    return {
        "from": matching.describe(flow.source) if flow.source else str(flow.source_address),
        "to": matching.describe(flow.destination) if flow.destination else str(flow.destination_address),
        "from_address": str(flow.source_address),
        "to_address": str(flow.destination_address),
        "port": flow.port,
        "protocol": flow.protocol.name,
        "via_service": flow.via_service,
        "allowed": walk.decision.allowed,
        "would_deny": bool(walk.decision.would_deny),
        "egress": _side_document(walk.egress),
        "ingress": _side_document(walk.ingress),
    }


def _side_document(walk: evaluator.SideWalk) -> dict[str, object]:
    side = walk.side
    return {
        "subject": str(side.subject) if side.subject else None,
        "allowed": side.allowed,
        "because": side.because,
        "rule": str(side.rule) if side.rule else None,
        "queries": _queries_document(queries.restriction(walk)),
        "isolating": [str(policy) for policy in side.isolating],
        "would": _would_document(side.would) if side.would is not None else None,
        "tiers": [
            {"name": tier.name, "policies": [_policy_document(policy) for policy in tier.policies]}
            for tier in walk.tiers
        ],
    }


def _queries_document(found: queries.Restriction | None) -> dict[str, object] | None:
    if found is None:
        return None
    return {"names": [str(pattern) for pattern in found.patterns], "rules": [str(rule) for rule in found.rules]}


def _would_document(side: evaluator.Side) -> dict[str, object]:
    return {
        "allowed": side.allowed,
        "because": side.because,
        "rule": str(side.rule) if side.rule else None,
        "isolating": [str(policy) for policy in side.isolating],
    }


def _policy_document(policy: evaluator.PolicyWalk) -> dict[str, object]:
    return {
        "policy": str(policy.policy),
        "isolates": policy.isolates,
        "because": policy.because,
        "in_audit": policy.in_audit,
        "rules": [
            {
                "index": rule.rule.index,
                "matches": rule.matches,
                "action": rule.action.value,
                "peers": [_finding(finding) for finding in rule.peers],
                "ports": [_finding(finding) for finding in rule.ports],
            }
            for rule in policy.rules
        ],
    }


def _finding(finding: matching.Finding) -> dict[str, object]:
    return {"matches": finding.matches, "because": finding.because}
