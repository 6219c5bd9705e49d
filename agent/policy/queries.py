"""May a pod ask a peer for a name? The evaluator's question about DNS queries, by the rules alone (rule E17).

A query is a flow and a name. Rules that allow the flow and say which names may be asked for restrict it to the union
of these names; it is not restricted where any rule that allows it says nothing of names, where another tier decides,
and where no rule is asked at all. What is allowed only because DNS has told an address is not restricted either: such
rules cannot restrict (`decode.cilium_ports`), and they speak only where the others deny.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from agent import snapshot as snapshot_
from agent.fqdn import patterns
from agent.model import audit as audit_
from agent.model import fqdn, resources, verdict
from agent.policy import evaluator


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Restriction:
    """Which names may be asked for through a flow that is allowed, and who says so."""

    rules: tuple[verdict.RuleRef, ...]
    patterns: tuple[fqdn.NamePattern, ...]

    def admits(self, name: str) -> bool:
        """Tell whether a question's name is among them."""
        return any(patterns.matches(pattern, name) for pattern in self.patterns)

    @property
    def because(self) -> str:
        """Say it in a sentence."""
        named = ", ".join(map(str, self.rules))
        return f"DNS queries for {' or '.join(map(str, self.patterns))} and nothing else, by {named} (E17)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a query passes."""

    allowed: bool
    because: str
    restriction: Restriction | None = None
    """Of a flow that is allowed: which names it is allowed for; None: any."""
    would_refuse: bool = False
    """It passes, and would be refused were the policies in audit enforced too (rule A51)."""


def evaluate(
    snapshot: snapshot_.Snapshot, flow: evaluator.Flow, name: str, audit: audit_.Audit = audit_.NOTHING
) -> Answer:
    """Judge a query for `name` through `flow`, at both ends."""
    decision = evaluator.evaluate(snapshot, flow, audit)
    if not decision.allowed:
        side = decision.ingress if decision.egress.allowed else decision.egress
        return Answer(allowed=False, because=side.because)
    by_rules = evaluator.walk(snapshot, dataclasses.replace(flow, names=frozenset()), audit).egress
    found, tried = restriction(by_rules), restriction(by_rules, with_audit=True)
    if found is None:
        because = f"{decision.egress.because}; it may ask for any name (E17)"
    elif found.admits(name):
        because = found.because
    else:
        return Answer(allowed=False, because=found.because, restriction=found)
    would_refuse = tried is not None and not tried.admits(name)
    return Answer(allowed=True, because=because, restriction=found, would_refuse=would_refuse)


def restriction(walk: evaluator.SideWalk, *, with_audit: bool = False) -> Restriction | None:
    """Return what restricts the names that may be asked for at one end of a flow that is allowed there.

    `with_audit` asks what would were the policies in audit enforced too; None where none of them speaks (rule A51).
    """
    side = walk.side.would if with_audit else walk.side
    if side is None or not side.allowed or side.rule is None:
        return None
    if side.rule.policy not in {policy.policy for tier in _shared(walk) for policy in tier.policies}:
        return None
    rules: list[verdict.RuleRef] = []
    found: set[fqdn.NamePattern] = set()
    for rule in _allowing(walk, with_audit=with_audit):
        for port in rule.ports:
            if port.matches and port.asks is None:
                return None
            if port.matches:
                found.update(port.asks or ())
                rules.append(rule.rule)
    return Restriction(rules=tuple(dict.fromkeys(rules)), patterns=tuple(sorted(found)))


def _shared(walk: evaluator.SideWalk) -> Iterator[evaluator.TierWalk]:
    """Yield the tier in which any rule may allow: in others the first that matches is alone."""
    return (tier for tier in walk.tiers if tier.name == evaluator.TIER)


def _allowing(walk: evaluator.SideWalk, *, with_audit: bool) -> Iterator[evaluator.RuleWalk]:
    for tier in _shared(walk):
        for policy in tier.policies:
            if with_audit or not policy.in_audit:
                allowing = (rule for rule in policy.rules if rule.action is resources.RuleAction.ALLOW)
                yield from (rule for rule in allowing if rule.matches)
