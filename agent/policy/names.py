"""The names that a node's policies speak of: what can be told apart, and what is said where one cannot be honoured.

The rule: classes are worked out for what this node's pods may reach by name, or may ask for, and for nothing else, each
policy's patterns as one group (`fqdn.classes`). What cannot be honoured allows nothing, and each rule that loses
something says so: every rule where the datapath learns no names or reads no queries, a pattern the automaton has no
room for, and a pod that so many rules select that these cannot be told apart by rank (rule A50).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeAlias

from agent.fqdn import classes
from agent.model import fqdn, net, resources
from agent.policy import sets

Classify: TypeAlias = Callable[[Iterable[Iterable[fqdn.NamePattern]]], classes.Classes]
"""`classes.build`, or what remembers its last answer."""
_NOT_LEARNED = "domain names are not enforced on this node; what it allows by name is denied"
_NOT_FILTERED = "names that may be asked for are not filtered on this node; where it restricts them, all is denied"
_TOO_MANY_RULES = (
    f"where more than {sets.RULES_MAX} rules select a pod, what any of them allows it by name is denied; write fewer"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What can be learned, and what cannot be honoured."""

    classes: classes.Classes = dataclasses.field(default_factory=classes.Classes)
    problems: tuple[resources.Problem, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Rule:
    """An egress rule that allows by name, or says which names may be asked for."""

    policy: resources.ObjectRef
    path: str
    """Where the names stand, in the API's spelling."""
    patterns: frozenset[fqdn.NamePattern]

    def problem(self, reason: str) -> resources.Problem:
        return resources.Problem(self.policy, self.path, reason)


def find(selections: Iterable[sets.Selection], classify: Classify, *, learns: bool, filters: bool = False) -> Names:
    """Find the classes of the names that `selections` speak of.

    `learns` is whether the datapath learns names, `filters` whether it reads which ones pods ask for.
    """
    allowing: set[_Rule] = set()
    asking: set[_Rule] = set()
    unranked: set[_Rule] = set()
    for selection in selections:
        found = set(_by_name(selection))
        allowing |= found
        asking |= set(_asking(selection))
        if found and not sets.can_rank(selection):
            unranked |= found
    problems: list[resources.Problem] = []
    if not learns:
        problems += [rule.problem(_NOT_LEARNED) for rule in allowing]
        allowing, unranked = set(), set()
    if not filters:
        problems += [rule.problem(_NOT_FILTERED) for rule in asking]
        asking = set()
    rules = allowing | asking
    known = classify(_groups(rules)) if rules else classes.Classes()
    problems += [*(rule.problem(_TOO_MANY_RULES) for rule in unranked), *_refused(rules, known)]
    return Names(classes=known, problems=tuple(sorted(problems)))


def check(policies: Collection[resources.NetworkPolicy]) -> tuple[resources.Problem, ...]:
    """Say what of the names of `policies` cannot be honoured by a node that has pods of all of them."""
    rules = {
        _rule(policy.ref, index, patterns, own=policy.subject_namespaces is None)
        for policy in policies
        for index, rule in enumerate(policy.egress)
        if (patterns := _patterns(rule))
    }
    rules |= {
        _asking_rule(policy.ref, index, asked)
        for policy in policies
        for index, rule in enumerate(policy.egress)
        if (asked := frozenset(pattern for match in rule.ports or () for pattern in match.asks or ()))
    }
    return tuple(sorted(_refused(rules, classes.build(_groups(rules)))))


def _by_name(selection: sets.Selection) -> Iterator[_Rule]:
    """Yield the rules of a selection that allow by name; those of ingress never do."""
    if selection.direction is net.Direction.EGRESS:
        for policy, rule in selection.rules():
            if patterns := sets.patterns(rule):
                yield _rule(policy.ref, rule.index, patterns, own=policy.namespaces is None)


def _asking(selection: sets.Selection) -> Iterator[_Rule]:
    """Yield the rules of a selection that say which names may be asked for."""
    if selection.direction is net.Direction.EGRESS:
        for policy, rule in selection.rules():
            if rule.asks:
                yield _asking_rule(policy.ref, rule.index, rule.asks)


def _asking_rule(policy: resources.ObjectRef, index: int, asked: frozenset[fqdn.NamePattern]) -> _Rule:
    return _Rule(policy, f"spec.egress[{index}].toPorts", asked)


def _rule(policy: resources.ObjectRef, index: int, patterns: frozenset[fqdn.NamePattern], *, own: bool) -> _Rule:
    """Name a rule; `own` policies select pods of their own namespace, as Cilium's do."""
    return _Rule(policy, f"spec.egress[{index}].{'toFQDNs' if own else 'to'}", patterns)


def _patterns(rule: resources.PolicyRule) -> frozenset[fqdn.NamePattern]:
    named = (peer for peer in rule.peers or () if isinstance(peer, resources.NamesPeer))
    return frozenset(pattern for peer in named for pattern in peer.patterns)


def _groups(rules: Iterable[_Rule]) -> Iterable[Iterable[fqdn.NamePattern]]:
    groups: defaultdict[resources.ObjectRef, set[fqdn.NamePattern]] = defaultdict(set)
    for rule in rules:
        groups[rule.policy].update(rule.patterns)
    return groups.values()


def _refused(rules: Iterable[_Rule], known: classes.Classes) -> Iterator[resources.Problem]:
    for rule in rules:
        for pattern in rule.patterns & known.refused.keys():
            yield rule.problem(f"{pattern} matches no name: {known.refused[pattern]}")
