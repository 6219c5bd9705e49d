"""What an explanation tells: the verdict, both sides, and why each rule does or does not match."""

from __future__ import annotations

import json

from agent.policy import evaluator, explain
from tests.support import cases, flows


def walked(table: str, pair: cases.Pair) -> evaluator.Walk:
    step = cases.load(cases.DIRECTORY / f"{table}.yaml").steps[0]
    cluster = flows.snapshot_of(step)
    return evaluator.walk(cluster, next(flows.flows(cluster, pair, step.checks[0])))


def told(walk: evaluator.Walk) -> str:
    return "\n".join("  " * line.depth + line.text for line in explain.lines(walk))


def test_a_denial_is_told_with_both_sides_and_every_reason() -> None:
    """Rules A16, A20."""
    text = told(walked("networkpolicy/13-one-pod-of-other-namespace", ("x/b", "x/a")))
    assert text.startswith("x/b (10.244.0.11) to x/a (10.244.0.10) port 80/TCP: blocked\n")
    assert "egress of x/b: allowed" in text
    assert "ingress of x/a: blocked" in text
    assert "ingress[0] does not match" in text
    assert "peer: namespace x is not selected" in text
    assert "port: every port and protocol (A5)" in text


def test_the_rule_that_decides_is_marked() -> None:
    """Rule A15."""
    text = told(walked("networkpolicy/13-one-pod-of-other-namespace", ("y/a", "x/a")))
    assert "ingress[0] matches and decides" in text
    assert "peer: y/a is selected (A20)" in text


def test_a_rule_whose_peers_were_all_malformed_says_that_nothing_was_left() -> None:
    """Rule A50."""
    text = told(walked("malformed/peer-without-fields", ("x/b", "x/a")))
    assert "peer: none of those written can be honoured (A50)" in text


def test_a_policy_without_a_rule_says_so() -> None:
    """Rule A3."""
    text = told(walked("networkpolicy/01-default-deny-ingress", ("y/a", "x/a")))
    assert "it has no rule for this direction (A3)" in text


def test_the_document_says_the_same_as_the_lines_and_is_json() -> None:
    walk = walked("networkpolicy/13-one-pod-of-other-namespace", ("y/a", "x/a"))
    document = json.loads(json.dumps(explain.document(walk)))
    assert document["allowed"] is True
    assert document["from_address"] == "10.244.1.13"
    assert document["ingress"]["rule"] == str(walk.ingress.side.rule)
    (tier,) = document["ingress"]["tiers"]
    assert tier["policies"][0]["rules"][0]["matches"] is True
    assert document["egress"]["isolating"] == []
