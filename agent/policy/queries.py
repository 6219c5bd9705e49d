"""May a pod ask a peer for a name? The evaluator's question about DNS queries, by the rules alone (rule E17).

A query is a flow and a name. Rules that allow the flow and say which names may be asked for restrict it to the union
of these names; it is not restricted where any rule that allows it says nothing of names, where another tier decides,
and where no rule is asked at all. What is allowed only because DNS has told an address is not restricted either: such
rules cannot restrict (`decode.cilium_ports`), and they speak only where the others deny.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

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
        if not self.patterns:
            return f"no DNS query, as what may be asked for differs by backend, by {named} (A42, E17)"
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


def asked_of(
    snapshot: snapshot_.Snapshot,
    flows: Iterable[evaluator.Flow],
    name: str,
    audit: audit_.Audit = audit_.NOTHING,
) -> Answer:
    """Judge whether whoever reads a query for `name` lets it through that may reach any of `flows`.

    Several flows are those to a Service's endpoints: whoever dials it may ask for what all of them that are allowed
    let it ask for, and for nothing where they differ. What is denied has no filter: it is for others to drop.
    """
    walks = [evaluator.walk(snapshot, dataclasses.replace(flow, names=frozenset()), audit).egress for flow in flows]
    found, tried = _common(walks, with_audit=False), _common(walks, with_audit=True)
    admitted = found is None or found.admits(name)
    return Answer(
        allowed=admitted,
        because=found.because if found is not None else "no rule that allows it restricts what may be asked for (E17)",
        restriction=found,
        would_refuse=admitted and tried is not None and not tried.admits(name),
    )


def _common(walks: Iterable[evaluator.SideWalk], *, with_audit: bool) -> Restriction | None:
    """Return what restricts queries to whichever of these is chosen."""
    sides = ((walk, walk.side.would if with_audit else walk.side) for walk in walks)
    found = [restriction(walk, with_audit=with_audit) for walk, side in sides if side is not None and side.allowed]
    restricting = [one for one in found if one is not None]
    if not restricting:
        return None
    rules = tuple(dict.fromkeys(rule for one in restricting for rule in one.rules))
    alike = len(restricting) == len(found) and len({one.patterns for one in restricting}) == 1
    return Restriction(rules=rules, patterns=restricting[0].patterns if alike else ())


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
