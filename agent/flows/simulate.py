"""What other policies would do to the flows of a recording, judged by the evaluator.

What happened is taken from the recording: a talk passed if every end that gave a verdict let it pass. An end that gave
none, for its node was not recorded, is judged by the present policies. What would happen is the evaluator's decision
under the changed ones. A talk whose recorded outcome the present policies no longer give is outdated, not broken: they
changed in between, and the new ones are not to blame. What only passes because of an audit does break.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

from agent import errors
from agent import snapshot as snapshot_
from agent.flows import parties, placing, talks
from agent.model import net, resources, verdict
from agent.policy import evaluator


class Outcome(enum.Enum):
    """What would become of a talk."""

    BREAKS = "breaks"
    """Passed, and would be denied."""
    OPENS = "opens"
    """Was denied, and would pass."""
    PASSES = "passes"
    DENIED = "denied"
    OUTDATED = "outdated"
    """The recording and the present policies differ, and what is asked about changes nothing in it."""
    UNRESOLVED = "unresolved"
    """Nobody can tell who an end is now: it was not judged."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One talk and what would become of it."""

    talk: talks.Talk
    outcome: Outcome
    side: evaluator.Side | None = None
    """Of what breaks: the end that would deny it. Of what opens: one that would let it pass."""
    blamed: tuple[resources.ObjectRef, ...] = ()
    """Of what breaks: policies that isolate that end and did not, or else every one that isolates it, or who denies."""
    formerly: str = ""
    """What let it pass, or kept it from passing; holds names, escape it to print."""
    stands_in: bool = False
    """Another pod of the same workload was judged in place of one that is gone."""
    why: str = ""
    """Of what is not resolved: who is not known, and why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every talk of a recording, judged."""

    judged: tuple[Judged, ...]
    coverage: talks.Coverage
    named: int = 0
    """Pods that have no address in the present cluster, and were judged as they were recorded."""

    def of(self, outcome: Outcome) -> tuple[Judged, ...]:
        """Return the talks with one outcome."""
        return tuple(one for one in self.judged if one.outcome is outcome)

    @property
    def resolved(self) -> int:
        """Talks of which something can be said; 0: the report says nothing of the changed policies."""
        return len(self.judged) - len(self.of(Outcome.UNRESOLVED))

    @property
    def stand_ins(self) -> int:
        """Talks that were judged with another pod of the workload."""
        return sum(one.stands_in for one in self.judged)


def changed(
    base: snapshot_.Snapshot, new: snapshot_.Snapshot, deleted: Iterable[resources.ObjectRef] = ()
) -> snapshot_.Snapshot:
    """Return `base` with the policies of `new`, the labels of its namespaces, and without what is deleted.

    Raises InvalidInput for a policy to delete that is not there. Other objects of `new` do not count.
    """
    policies = dict(base.policies)
    for ref in deleted:
        if policies.pop(ref, None) is None:
            have = ", ".join(sorted(map(str, base.policies))[:10]) or "no policy at all"
            raise errors.InvalidInput(field="--delete", value=str(ref), remedy=f"there is {have}")
    policies.update(new.policies)
    namespaces = (
        dict(new.namespaces)
        | dict(base.namespaces)
        | {name: one for name, one in new.namespaces.items() if _declared(one)}
    )
    ordered = {ref: policies[ref] for ref in sorted(policies)}
    return dataclasses.replace(base, policies=ordered, namespaces=dict(sorted(namespaces.items())))


def _declared(namespace: resources.Namespace) -> bool:
    """Tell a namespace that has labels of its own from one that is only mentioned."""
    return len(namespace.labels) > 1


def simulate(told: talks.Told, base: snapshot_.Snapshot, new: snapshot_.Snapshot) -> Report:
    """Judge every talk by the present policies (`base`) and the changed ones (`new`)."""
    placed = placing.place(base, told.talks)
    question = _Question(
        base=placed.snapshot,
        new=dataclasses.replace(new, pods=placed.snapshot.pods, nodes=placed.snapshot.nodes),
        directory=parties.Directory(placed),
        fresh=frozenset(ref for ref, policy in new.policies.items() if base.policies.get(ref) != policy),
    )
    judged = tuple(_judge(talk, question) for talk in told.talks)
    return Report(judged=judged, coverage=told.coverage, named=placed.pods)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is the same for every talk."""

    base: snapshot_.Snapshot
    new: snapshot_.Snapshot
    directory: parties.Directory
    fresh: frozenset[resources.ObjectRef]
    """Policies that are new, or differ."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Both:
    """One way a talk may take, by both sets of policies."""

    before: evaluator.Decision
    after: evaluator.Decision


def _judge(talk: talks.Talk, question: _Question) -> Judged:
    source, destinations = question.directory.source(talk.source), question.directory.destinations(talk)
    protocol = parties.protocol_of(talk.key.protocol)
    why = next((found.why for found in (source, *destinations) if found.why), "")
    if not why and not any(isinstance(found.party, resources.Pod) for found in (source, *destinations)):
        why = "no pod of the cluster is at either end"
    if protocol is None:
        why = f"policies do not know protocol {talk.key.protocol}"
    if why or protocol is None:
        return Judged(talk=talk, outcome=Outcome.UNRESOLVED, why=why)
    through = talks.service_of(talk.destination) is not None
    ways = [
        _Both(evaluator.evaluate(question.base, flow), evaluator.evaluate(question.new, flow))
        for flow in (_flow(source, found, protocol, through=through) for found in destinations)
    ]
    stands_in = source.stands_in or any(found.stands_in for found in destinations)
    return dataclasses.replace(_compared(talk, ways, question.fresh), stands_in=stands_in)


def _flow(source: parties.Found, to: parties.Found, protocol: net.Protocol, *, through: bool) -> evaluator.Flow:
    return evaluator.Flow(
        source=source.party,
        destination=to.party,
        source_address=source.address,
        destination_address=to.address,
        protocol=protocol,
        port=to.port,
        via_service=through,
    )


def _compared(talk: talks.Talk, ways: list[_Both], fresh: frozenset[resources.ObjectRef]) -> Judged:
    """Compare what was recorded with what would happen; a Service is denied where every backend is."""
    way = next((way for way in ways if way.after.allowed), ways[0])
    modelled = any(one.before.allowed for one in ways)
    passed, passes = _passed(talk, ways), way.after.allowed
    if passed == passes:
        return Judged(talk=talk, outcome=Outcome.PASSES if passes else Outcome.DENIED)
    if passes == modelled and not (passed and talk.audited):
        return Judged(talk=talk, outcome=Outcome.OUTDATED, formerly=_denied_by(talk, way.before))
    if passes:
        side = next((side for side in _sides(way.after) if not _side(way.before, side.direction).allowed), None)
        return Judged(talk=talk, outcome=Outcome.OPENS, side=side, formerly=_denied_by(talk, way.before))
    side = next(side for side in _sides(way.after) if not side.allowed)
    isolating = side.isolating if side.rule is None else (side.rule.policy,)
    blamed = tuple(ref for ref in isolating if ref in fresh) or isolating
    formerly = _allowance(talk, _side(way.before, side.direction))
    return Judged(talk=talk, outcome=Outcome.BREAKS, side=side, blamed=blamed, formerly=formerly)


def _passed(talk: talks.Talk, ways: list[_Both]) -> bool:
    """Tell whether a talk passed: by the verdicts there are, and the present policies where there is none."""
    if not talk.passed:
        return False
    missing = [side for side in talks.SIDES if side not in talk.last]
    return any(all(_side(way.before, side).allowed for side in missing) for way in ways)


def _sides(decision: evaluator.Decision) -> tuple[evaluator.Side, evaluator.Side]:
    return decision.egress, decision.ingress


def _side(decision: evaluator.Decision, direction: net.Direction) -> evaluator.Side:
    return decision.egress if direction is net.Direction.EGRESS else decision.ingress


def _allowance(talk: talks.Talk, was: evaluator.Side) -> str:
    """Say what used to let a talk pass at one end: its verdict's rule, else what the present policies say."""
    recorded = talk.last.get(was.direction)
    if recorded is not None and recorded.verdict is verdict.Verdict.AUDIT:
        return "an audit let it pass"
    if recorded is not None and recorded.rule is not None:
        return f"{recorded.rule} allowed it"
    if recorded is not None and recorded.policies:
        return f"{recorded.policies[0]} allowed it"
    if was.rule is not None:
        return f"{was.rule} allows it"
    return was.because if was.isolating else f"nothing isolates it for {was.direction.name.lower()}"


def _denied_by(talk: talks.Talk, was: evaluator.Decision) -> str:
    """Say what used to deny a talk: by its verdicts, else by the present policies."""
    for record in talk.last.values():
        if record.verdict not in talks.PASSING:
            names = ", ".join(map(str, record.policies)) or "a policy that is not named"
            return f"denied at {record.direction.name.lower()} by {names}"
    return next((side.because for side in _sides(was) if not side.allowed), "")
