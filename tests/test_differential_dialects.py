"""The evaluator and the compiler must agree on policies of every kind, and on names (see `test_differential`)."""

from __future__ import annotations

import pytest

from tests import test_differential
from tests.support import random_cluster, random_dialects

DIALECTS = range(100, 200)
"""Among them is a static Pass before a name, which is rare."""
DIALECTS_THOROUGH = range(200, 3_000)
PARTS = 9
"""One of them runs daily."""
FLOWS = 20
IN_AUDIT = 30


def agree_on_dialects(seed: int) -> int:
    """Compare flows of a cluster with policies of every kind; return how many passed only by a name."""
    cluster, answers = random_dialects.cluster(seed)
    comparison = test_differential.Comparison(cluster, answers)
    comparison.services()
    for attempt in (*random_cluster.attempts(cluster, FLOWS), *random_dialects.attempts(cluster, answers)):
        comparison.compare(attempt)
    return comparison.named


def test_the_compiler_agrees_with_the_evaluator_on_every_dialect_and_on_names() -> None:
    """Rules D1 to D15, E2 to E15: tiers, denials, entities, prefixes, and addresses that DNS gave."""
    assert sum(map(agree_on_dialects, DIALECTS)) > len(DIALECTS) / 2


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.matrix) for part in range(1, PARTS))])
def test_the_compiler_agrees_with_the_evaluator_on_every_dialect_thousands_of_times(part: int) -> None:
    for seed in DIALECTS_THOROUGH[part::PARTS]:
        agree_on_dialects(seed)


def test_dialects_in_audit_are_told_as_the_evaluator_says() -> None:
    """Rule A51 with rules D1 and E6: names, tiers and denials in audit too."""
    for seed in range(IN_AUDIT):
        cluster, answers = random_dialects.cluster(seed)
        comparison = test_differential.Comparison(test_differential.partly_in_audit(cluster), answers)
        for attempt in random_dialects.attempts(cluster, answers):
            comparison.compare(attempt)
