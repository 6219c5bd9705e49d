"""Every numbered rule is listed, cited only where it exists, and tested by something that says so.

The list is `agent/policy/RULES.md`. A rule counts as tested where a test cites it in its docstring, or a truth table
among its `rules`. Rules that no truth table and no unit test of one module can show are tested here.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections import defaultdict

import pytest

from agent import decode
from agent.datapath import memory
from agent.model import endpoint, resources
from agent.policy import compiler, evaluator
from tests.support import cases, flows, simulated

TESTS = pathlib.Path(__file__).parent.parent
PROJECT = TESTS.parent
LISTED = re.compile(r"^- \*\*([ADE][0-9]+)\*\* ", re.MULTILINE)
CITED = re.compile(r"\b[ADE](?:[1-9][0-9]?)\b")
CITATION = re.compile(r"\brules? ((?:[ADE][0-9]+(?:, | and | to )?)+)")


def listed() -> list[str]:
    return LISTED.findall((PROJECT / "agent" / "policy" / "RULES.md").read_text())


@pytest.fixture(name="places", scope="module")
def citing_places() -> dict[str, set[str]]:
    """Return where each rule is tested: tables, and tests by module and name."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in cases.paths():
        case = cases.load(path)
        for rule in case.rules:
            found[rule].add(case.id)
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for rule in CITED.findall(ast.get_docstring(node) or ""):
                    found[rule].add(f"{path.relative_to(TESTS)}:{node.name}")
    return found


def test_the_list_of_rules_is_whole() -> None:
    dialects = [f"D{number}" for number in range(1, 16)] + [f"E{number}" for number in range(1, 20) if number != 12]
    assert listed() == [f"A{number}" for number in range(1, 52)] + dialects


def test_every_rule_is_tested_by_something_that_cites_it(places: dict[str, set[str]]) -> None:
    assert [rule for rule in listed() if rule not in places] == []


def test_nothing_cites_a_rule_that_is_not_listed(places: dict[str, set[str]]) -> None:
    known = set(listed())
    texts = [*(PROJECT / "agent").rglob("*.py"), *TESTS.rglob("*.py"), *(PROJECT / "bpf").rglob("*.[ch]")]
    wrong = {
        f"{path.relative_to(PROJECT)}: {rule}"
        for path in texts
        for citation in CITATION.findall(path.read_text())
        for rule in CITED.findall(citation)
        if rule not in known
    }
    wrong |= {f"{case}: {rule}" for rule, where in places.items() for case in where if rule not in known}
    assert wrong == set()


def test_a_status_in_a_policy_says_nothing() -> None:
    """Rule A12."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {"podSelector": {}},
    }
    plain = decode.decode(policy)
    assert decode.decode(policy | {"status": {"conditions": [{"type": "Accepted", "status": "False"}]}}) == plain
    assert plain.problems == ()


def test_a_connection_needs_no_rule_for_its_replies() -> None:
    """Rule A38: the server may be isolated for egress with no rule at all."""
    nodes, steps = (
        simulated.MemoryCluster(),
        cases.load(cases.DIRECTORY / "networkpolicy" / "25-deny-egress-by-podselector.yaml"),
    )
    cluster = flows.snapshot_of(steps.steps[0])
    nodes.apply(cluster)
    (check,) = steps.steps[0].checks
    (request,) = flows.flows(cluster, ("y/a", "x/a"), check)
    (back,) = flows.flows(cluster, ("x/a", "y/a"), check)
    assert nodes.passes(request)
    assert not nodes.passes(back)


def test_a_change_holds_for_the_next_packet_of_a_connection_and_allowing_again_breaks_none() -> None:
    """Rule A39: a packet is judged by the policy of now, for there is no memory of verdicts."""
    case = cases.load(cases.DIRECTORY / "lifecycle" / "policies-come-and-go.yaml")
    nodes, seen = simulated.MemoryCluster(), []
    for step in case.steps:
        cluster = flows.snapshot_of(step)
        nodes.apply(cluster)
        (flow,) = flows.flows(cluster, ("x/b", "x/a"), step.checks[0])
        seen.append(nodes.passes(flow))
    assert seen == [True, False, True, True]


def test_nodes_that_learn_of_a_policy_at_different_moments_each_hold_to_what_they_know() -> None:
    """Rule A46: ingress is the destination's node's to judge, whatever the other node knows by then."""
    first, second = cases.load(cases.DIRECTORY / "networkpolicy" / "33-deleted-policies.yaml").steps
    behind, ahead = simulated.MemoryCluster(), simulated.MemoryCluster()
    behind.apply(flows.snapshot_of(second))
    ahead.apply(flows.snapshot_of(first))
    (inbound,) = flows.flows(flows.snapshot_of(first), ("y/a", "x/a"), first.checks[0])
    assert behind.passes(inbound)
    assert not ahead.passes(inbound)


def test_containers_of_every_sort_are_one_pod_under_one_policy() -> None:
    """Rule A47: a pod is one subject with one set of ports, however many containers it runs."""
    container = {"name": "c", "image": "example/serve"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "x"},
        "spec": {
            "initContainers": [container, container | {"name": "side", "restartPolicy": "Always"}],
            "containers": [container],
            "ephemeralContainers": [container],
        },
        "status": {"podIP": "10.0.0.1"},
    }
    (decoded,) = decode.decode_all(pod)
    assert isinstance(decoded.resource, resources.Pod)
    assert decoded.problems == ()
    assert decoded.resource.has_identity


def test_a_restarted_agent_adopts_what_is_enforced_and_writes_nothing() -> None:
    """Rule A48."""
    (step,) = cases.load(cases.DIRECTORY / "networkpolicy" / "02-default-deny-all.yaml").steps
    state = compiler.compile_node(flows.snapshot_of(step), endpoint.NodeView(name="node-1")).state
    before = memory.MemoryDatapath()
    before.apply(state)
    after = memory.MemoryDatapath(before.tables)
    assert after.apply(state).written == 0
    assert after.tables == before.tables


def test_a_pod_that_has_an_address_no_sandbox_shows_is_still_a_peer_and_not_yet_a_subject() -> None:
    """Rule A45: this node's packets are judged once its sandbox is known; the oracle judges by the cluster alone."""
    (step,) = cases.load(cases.DIRECTORY / "networkpolicy" / "01-default-deny-ingress.yaml").steps
    cluster = flows.snapshot_of(step)
    (flow,) = flows.flows(cluster, ("y/a", "x/a"), step.checks[0])
    assert not evaluator.evaluate(cluster, flow).allowed
    bare = compiler.compile_node(cluster, endpoint.NodeView(name="node-1", hold_mode=endpoint.HoldMode.STRICT)).state
    assert flow.destination_address in bare.hosts
    assert bare.endpoints == {}
