"""Every truth table holds in the evaluator, in what the compiler makes for each node, and in iptables rules (rule A16).

The laboratory runs the same tables through real sockets (`tests/system`).
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from agent import snapshot
from agent.datapath import judge
from agent.model import verdict
from agent.policy import evaluator, queries
from tests.support import asking, cases, flows, rendered, simulated

EVERY_TABLE = pytest.mark.parametrize(
    "path", cases.paths(), ids=lambda path: str(path.relative_to(cases.DIRECTORY).with_suffix(""))
)
Read: TypeAlias = Callable[[pathlib.Path], tuple[cases.Case, tuple[snapshot.Snapshot, ...]]]


@pytest.fixture(name="read", scope="module")
def table_with_a_snapshot_a_step() -> Read:
    """Read and decode every table once for all tests of this module."""

    @functools.cache
    def read(path: pathlib.Path) -> tuple[cases.Case, tuple[snapshot.Snapshot, ...]]:
        case = cases.load(path)
        return case, tuple(flows.snapshot_of(step) for step in case.steps)

    return read


@EVERY_TABLE
def test_the_evaluator_agrees_with_the_table(path: pathlib.Path, read: Read) -> None:
    case, clusters = read(path)
    for number, (step, cluster) in enumerate(zip(case.steps, clusters, strict=True)):
        wrong = [
            f"{_told(number, pair, flow)}: {decision}"
            for pair, expected, audited, flow in _judged(cluster, step)
            if (decision := _evaluated(cluster, flow)).allowed is not expected
            or bool(decision.would_deny) is not audited
        ]
        assert not wrong, "\n".join(wrong)
        for check, source, expected_word in _dialled(step):
            found = [_evaluated(cluster, flow) for flow in _to_backends(cluster, step, check, source)]
            where = f"step {number}: {source} to {check.service}"
            assert flows.outcome([decision.allowed for decision in found]) == expected_word, where
            assert _dials_in_vain([decision.egress for decision in found]) is (source in check.audited), where


@EVERY_TABLE
def test_what_the_compiler_makes_for_each_node_agrees_with_the_table(path: pathlib.Path, read: Read) -> None:
    case, clusters = read(path)
    nodes = simulated.MemoryCluster()
    for number, (step, cluster) in enumerate(zip(case.steps, clusters, strict=True)):
        nodes.apply(cluster)
        nodes.learn(cluster, step.learned)
        wrong = []
        for pair, expected, _, flow in _judged(cluster, step):
            decision, dialled = _evaluated(cluster, flow), nodes.dials(flow)
            if nodes.passes(flow) is not expected or _tells(nodes, flow, passes=expected) != _explained(decision):
                wrong.append(f"{_told(number, pair, flow)} in the packet layer")
            in_vain = dialled is not None and dialled.verdict is verdict.Verdict.AUDIT
            if nodes.connects(flow) is not decision.egress.allowed or in_vain is not _dials_in_vain([decision.egress]):
                wrong.append(f"{_told(number, pair, flow)} in the socket layer")
        assert not wrong, "\n".join(wrong)
        for check, source, expected_word in _dialled(step):
            reached = _to_backends(cluster, step, check, source)
            where = f"step {number}: {source} to {check.service}"
            assert flows.outcome([nodes.passes(flow) for flow in reached]) == expected_word, where
            if reached:
                _assert_dials(nodes, cluster, check, reached)


@EVERY_TABLE
def test_what_is_rendered_for_iptables_on_each_node_agrees_with_the_table(path: pathlib.Path, read: Read) -> None:
    case, clusters = read(path)
    if "fqdn" in case.needs:
        pytest.skip("this engine learns no names")
    nodes = simulated.Cluster(rendered.RenderedDatapath)
    for number, (step, cluster) in enumerate(zip(case.steps, clusters, strict=True)):
        nodes.apply(cluster)
        wrong = [
            _told(number, pair, flow)
            for pair, expected, _, flow in _judged(cluster, step)
            if nodes.passes(flow) is not expected
            or _tells(nodes, flow, passes=expected) != _explained(_evaluated(cluster, flow))
        ]
        assert not wrong, "\n".join(wrong)
        for check, source, expected_word in _dialled(step):
            found = [nodes.passes(flow) for flow in _to_backends(cluster, step, check, source)]
            assert flows.outcome(found) == expected_word, f"step {number}: {source} to {check.service}"


@EVERY_TABLE
def test_the_problems_of_the_manifests_are_shown_and_of_sound_ones_there_are_none(
    path: pathlib.Path, read: Read
) -> None:
    case, clusters = read(path)
    for step, cluster in zip(case.steps, clusters, strict=True):
        found = {(f"{problem.ref.namespace}/{problem.ref.name}", problem.path) for problem in cluster.problems}
        assert found >= step.problems
        assert bool(found) is bool(step.problems)


@EVERY_TABLE
def test_queries_pass_and_are_refused_as_the_table_says_by_the_rules_and_by_what_the_compiler_makes(
    path: pathlib.Path, read: Read
) -> None:
    """Rule E17: by the evaluator, and by the filters of the source's node."""
    case, clusters = read(path)
    nodes = simulated.MemoryCluster()
    for number, (step, cluster) in enumerate(zip(case.steps, clusters, strict=True)):
        if step.queries:
            nodes.apply(cluster)
            nodes.learn(cluster, step.learned)
        wrong = [
            f"step {number}: {check.source} asks {check.target} for {name}: {found}"
            for check in step.queries
            for name, expected in check.answered.items()
            for found in _asked(nodes, cluster, step, check, name)
            if found != _ADMISSIONS[expected, name in check.audited]
        ]
        assert not wrong, "\n".join(wrong)


_ADMISSIONS = {
    (True, False): judge.Admission.ADMITTED,
    (True, True): judge.Admission.WOULD_REFUSE,
    (False, False): judge.Admission.REFUSED,
}


def test_the_queries_of_the_seed_are_answered_where_its_zone_says_so(read: Read) -> None:
    """Rule E17: `resolves: false` is a name that may not be asked for."""
    case, _ = read(cases.DIRECTORY / "seeds" / "05-cilium-egress-dns.yaml")
    (step,) = case.steps
    (asked, _) = step.queries
    assert {name: asked.answered[name] for name in step.zone} == {
        name: answer.get("resolves", True) for name, answer in step.zone.items()
    }


def test_every_table_of_the_project_names_the_rules_it_is_about(read: Read) -> None:
    own = [path for path in cases.paths() if path.parent.name not in ("networkpolicy", "seeds")]
    assert len(own) > 60
    assert [path for path in own if not read(path)[0].rules] == []


def test_where_no_names_are_learned_what_allows_by_name_allows_nothing_and_says_so(read: Read) -> None:
    """Rule A50, E15: what the datapath cannot learn it denies, in sight of everybody."""
    case, (cluster, *_) = read(cases.DIRECTORY / "seeds" / "05-cilium-egress-dns.yaml")
    nodes = simulated.Cluster(rendered.RenderedDatapath)
    nodes.apply(cluster)
    paths = {problem.path for problem in nodes.problems}
    assert paths == {"spec.egress[0].toPorts[0].rules.dns", "spec.egress[0].toPorts", "spec.egress[1].toFQDNs"}
    for pair, _, _, flow in _judged(cluster, case.steps[0]):
        assert not nodes.passes(flow) or pair[0] != "app-namespace/frontend"


def _judged(cluster: snapshot.Snapshot, step: cases.Step) -> Iterator[tuple[cases.Pair, bool, bool, evaluator.Flow]]:
    """Yield each pair, whether it can connect, whether that is told as AUDIT, and how."""
    for check in step.checks:
        for pair, expected in check.expected.items():
            for flow in flows.flows(cluster, pair, check):
                yield pair, expected, pair in check.audited, flows.knowing(step, flow)


def _asked(
    nodes: simulated.MemoryCluster, cluster: snapshot.Snapshot, step: cases.Step, check: cases.QueryCheck, name: str
) -> Iterator[judge.Admission | str]:
    """Yield what the rules and what the filters say of one query, in every family; or what is wrong before that."""
    dialled = list(_dialled_for(cluster, step, check))
    assert dialled
    for flow, reached in dialled:
        refused, would = asking.refused(cluster, reached, name, simulated.HONOURED)
        yield _ADMISSIONS[not refused, would]
        yield nodes.asks(flow, name).admission
        if not check.service:
            answer = queries.evaluate(cluster, flow, name, simulated.HONOURED)
            if not nodes.passes(flow) or (answer.allowed, answer.would_refuse) != (not refused, would):
                yield f"{answer}, where the flow passes: {nodes.passes(flow)}"


def _dialled_for(
    cluster: snapshot.Snapshot, step: cases.Step, check: cases.QueryCheck
) -> Iterator[tuple[evaluator.Flow, list[evaluator.Flow]]]:
    """Yield each flow as it is dialled, and those that it may become."""
    namespace, _, name = check.target.partition("/")
    if check.service:
        asked = cases.ServiceCheck(
            namespace=namespace, service=name, port=check.port, protocol=check.protocol, reached={}
        )
        reached = _to_backends(cluster, step, asked, check.source)
        (address,) = cluster.services[namespace, name].cluster_addresses
        yield dataclasses.replace(reached[0], destination=None, destination_address=address, port=check.port), reached
        return
    pair = cases.Check(port=check.port, protocol=check.protocol, family=None, expected={})
    for flow in flows.flows(cluster, (check.source, check.target), pair):
        yield flows.knowing(step, flow), [flow]


def _evaluated(cluster: snapshot.Snapshot, flow: evaluator.Flow) -> evaluator.Decision:
    return evaluator.evaluate(cluster, flow, simulated.HONOURED)


def _tells(nodes: simulated.Cluster[simulated.Node], flow: evaluator.Flow, *, passes: bool) -> simulated.Told:
    return nodes.audits(flow) if passes else nodes.denials(flow)


def _explained(decision: evaluator.Decision) -> simulated.Told:
    """Return what a verdict has to name: the first side that denies, of what passes each that would."""
    denying = [side for side in (decision.egress, decision.ingress) if not side.allowed][:1]
    return frozenset((side.direction, side.isolating) for side in denying or decision.would_deny)


def _dials_in_vain(sides: list[evaluator.Side]) -> bool:
    """Tell whether dialling is allowed and would not be: with the policies in audit no destination were left."""
    allowed = all(side.allowed for side in sides)
    return bool(sides) and allowed and all(side.would is not None and not side.would.allowed for side in sides)


def _dialled(step: cases.Step) -> Iterator[tuple[cases.ServiceCheck, str, str]]:
    for check in step.services:
        for source, expected in check.reached.items():
            yield check, source, expected


def _told(number: int, pair: cases.Pair, flow: evaluator.Flow) -> str:
    ends = f"{flow.source_address} to {flow.destination_address} port {flow.port}/{flow.protocol.name}"
    return f"step {number}, {pair[0]} to {pair[1]}, {ends}"


def _to_backends(
    cluster: snapshot.Snapshot, step: cases.Step, check: cases.ServiceCheck, source: str
) -> list[evaluator.Flow]:
    sender = flows.party(cluster, source)
    found = (flows.flow_to(cluster, sender, backend, check.protocol) for backend in flows.backends(cluster, check))
    return [flows.knowing(step, flow) for flow in found]


def _assert_dials(
    nodes: simulated.MemoryCluster, cluster: snapshot.Snapshot, check: cases.ServiceCheck, reached: list[evaluator.Flow]
) -> None:
    """Rule A42: connect() fails at once where egress denies every backend, and never where it allows one."""
    address = cluster.services[check.namespace, check.service].cluster_addresses[0]
    dialled = dataclasses.replace(reached[0], destination=None, destination_address=address, port=check.port)
    sides = [_evaluated(cluster, flow).egress for flow in reached]
    assert nodes.connects(dialled) is any(side.allowed for side in sides)
    said = nodes.dials(dialled)
    assert (said is not None and said.verdict is verdict.Verdict.AUDIT) is _dials_in_vain(sides)
