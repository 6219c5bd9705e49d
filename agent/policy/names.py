"""The names that a node's policies allow: what can be learned of them, and what is said where one cannot be honoured.

The rule: classes are worked out for what this node's pods may reach and for nothing else, each policy's patterns as one
group (`fqdn.classes`). What cannot be honoured allows nothing, and each rule that loses something says so: every rule
where the datapath learns no names, a pattern the automaton has no room for, and a pod that so many rules select that
these cannot be told apart by rank (rule A50).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from agent.fqdn import classes
from agent.model import fqdn, net, resources
from agent.policy import sets, tiers

Classify: TypeAlias = Callable[[Iterable[Iterable[fqdn.NamePattern]]], classes.Classes]
"""`classes.build`, or what remembers its last answer."""
_Place: TypeAlias = tuple[resources.ObjectRef, int]
"""A policy, and which of its egress rules."""
_NOT_LEARNED = "domain names are not enforced on this node; what it allows by name is denied"
_TOO_MANY_RULES = (
    f"where more than {sets.RULES_MAX} rules select a pod, what any of them allows it by name is denied; write fewer"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What can be learned, and what cannot be honoured."""

    classes: classes.Classes = dataclasses.field(default_factory=classes.Classes)
    problems: tuple[resources.Problem, ...] = ()


def find(selections: Iterable[sets.Selection], classify: Classify, *, learns: bool) -> Names:
    """Find the classes of the names that `selections` allow; `learns` is whether the datapath learns any."""
    named: dict[_Place, tuple[tiers.Policy, tiers.Rule]] = {}
    unranked: set[_Place] = set()
    for selection in selections:
        found = dict(_by_name(selection))
        named |= found
        if found and not sets.can_rank(selection):
            unranked |= found.keys()
    if not named:
        return Names()
    if not learns:
        return Names(problems=tuple(sorted(_problem(policy, rule, _NOT_LEARNED) for policy, rule in named.values())))
    groups: defaultdict[resources.ObjectRef, set[fqdn.NamePattern]] = defaultdict(set)
    for policy, rule in named.values():
        groups[policy.ref].update(sets.patterns(rule))
    known = classify(groups.values())
    problems = [_problem(*named[place], _TOO_MANY_RULES) for place in unranked]
    for policy, rule in named.values():
        problems += _refused(policy, rule, known)
    return Names(classes=known, problems=tuple(sorted(problems)))


def _by_name(selection: sets.Selection) -> Iterator[tuple[_Place, tuple[tiers.Policy, tiers.Rule]]]:
    """Yield the rules of a selection that allow by name; those of ingress never do."""
    if selection.direction is net.Direction.EGRESS:
        for policy, rule in selection.rules():
            if sets.patterns(rule):
                yield (policy.ref, rule.index), (policy, rule)


def _refused(policy: tiers.Policy, rule: tiers.Rule, known: classes.Classes) -> Iterator[resources.Problem]:
    for pattern in sorted(sets.patterns(rule) & known.refused.keys()):
        yield _problem(policy, rule, f"{pattern} matches no name: {known.refused[pattern]}")


def _problem(policy: tiers.Policy, rule: tiers.Rule, reason: str) -> resources.Problem:
    field = "toFQDNs" if policy.namespaces is None else "to"
    return resources.Problem(policy.ref, f"spec.egress[{rule.index}].{field}", reason)
