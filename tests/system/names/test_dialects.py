"""Which names a policy means, in both dialects, from the manifest to the connection: F1 to F4, F8 to F10."""

from __future__ import annotations

import pytest

from tests.system.names import stage as stage_

pytestmark = pytest.mark.root

OPEN, CLOSED = {"ok"}, {stage_.REFUSED}


def test_a_name_means_itself_whatever_its_case_and_dot(stage: stage_.Stage) -> None:
    """F1."""
    stage.apply(stage_.cilium(stage_.by_name("Exact.Test.")))
    assert stage.visit("exact.test") == OPEN
    assert stage.visit("EXACT.tesT") == OPEN
    assert stage.visit("exact.test", mixed_case=True) == OPEN
    assert stage.visit("www.exact.test") == CLOSED


def test_a_star_is_one_label_to_cilium_and_any_number_to_clusternetworkpolicy(stage: stage_.Stage) -> None:
    """F2: neither is ever the domain itself."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test", "**.deep.test")))
    assert stage.visit("api.one.test") == OPEN
    assert stage.visit("two.labels.one.test") == CLOSED
    assert stage.visit("one.test") == CLOSED
    assert stage.visit("a.deep.test") == stage.visit("a.b.deep.test") == OPEN
    assert stage.visit("deep.test") == CLOSED
    stage.apply(*stage_.cluster("*.one.test"))
    assert stage.visit("api.one.test") == stage.visit("two.labels.one.test") == OPEN
    assert stage.visit("one.test") == CLOSED
    assert stage.visit("a.deep.test") == CLOSED, "learned for a policy that is gone"


def test_a_star_within_a_label_stays_within_it_and_one_alone_means_every_name(stage: stage_.Stage) -> None:
    """F3."""
    stage.apply(stage_.cilium(stage_.by_name("s3*.infix.test")))
    assert stage.visit("s3.infix.test") == stage.visit("s3-eu.infix.test") == OPEN
    assert stage.visit("xs3.infix.test") == stage.visit("s3.b.infix.test") == CLOSED
    stage.apply(stage_.cilium(stage_.by_name("*")))
    assert stage.visit("s3.b.infix.test") == stage.visit("other.test") == OPEN


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["x*.one.test"], "domainNames[0]"), (["test"], "domainNames[0]"), (["[.test"], "domainNames[0]")],
    ids=["star inside", "one label", "character"],
)
def test_what_is_no_name_is_told_at_its_place_and_opens_nothing(
    stage: stage_.Stage, names: list[str], reason: str
) -> None:
    """F4; every refusal: tests/fqdn/test_patterns.py."""
    stage.apply(*stage_.cluster(*names, "api.one.test"))
    assert [problem.path for problem in stage.agent.status().problems] == [f"spec.egress[0].to[0].{reason}"]
    assert stage.visit("other.test") == CLOSED


def test_each_name_has_the_ports_of_its_own_rule(stage: stage_.Stage) -> None:
    """F8."""
    database = stage_.by_name("db.test", port=stage_.OTHER_PORT)
    stage.apply(stage_.cilium(stage_.by_name("api.one.test"), database))
    assert stage.visit("api.one.test") == stage.visit("db.test", stage_.OTHER_PORT) == OPEN
    assert stage.visit("api.one.test", stage_.OTHER_PORT) == stage.visit("db.test") == CLOSED


def test_what_one_pod_was_told_opens_nothing_for_its_neighbour(stage: stage_.Stage) -> None:
    """F9: both are on one node, under one policy."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    (address,) = stage.ask("mine.one.test")["addresses"]
    assert stage.reach(address) == "ok"
    assert stage.reach(address, by=stage.neighbour) == stage_.REFUSED
    assert stage.visit("mine.one.test", by=stage.neighbour) == OPEN


def test_names_that_nobody_has_a_rule_for_are_resolved_all_the_same(stage: stage_.Stage) -> None:
    """F10."""
    stage.apply(stage_.cilium(stage_.by_name("api.one.test")))
    assert stage.visit("other.test") == CLOSED
    assert stage.ask("nobody.has.this.test")["code"] == 3
