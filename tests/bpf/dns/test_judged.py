"""The program at a pod's veth and `judge.query` say the same of every query, whatever the maps hold (rule E17)."""

from __future__ import annotations

import collections
import random

import pytest

from agent.datapath import base, judge, lookups
from agent.datapath.bpf import names_lookup
from agent.model import net
from tests.bpf.dns import filtering, random_asking, rig

pytestmark = pytest.mark.root

SEED = 20261122
ROUNDS, ROUNDS_THOROUGH = 60, 12_000
QUERIES = 24
OUTCOMES = {base.Outcome.REFUSED: judge.Admission.REFUSED, base.Outcome.WOULD_REFUSE: judge.Admission.WOULD_REFUSE}
REFUSED_BY = {net.Protocol.UDP.value: filtering.REDIRECTED, net.Protocol.TCP.value: filtering.DROPPED}
"""A query is answered, and what cannot be answered is dropped."""


def compared(learner: rig.Learner, dice: random.Random) -> collections.Counter[judge.Admission]:
    """Draw maps and queries; return how these fared."""
    drawn = random_asking.draw(dice)
    random_asking.write(learner, drawn)
    judging = judge.Judge(lookups.InTables(drawn.tables))
    maps = {name: learner.fqdn.descriptor(name) for name in (names_lookup.NAMES, names_lookup.DFA, names_lookup.CONFIG)}
    fared: collections.Counter[judge.Admission] = collections.Counter()
    for _ in range(QUERIES):
        flow, name = random_asking.flow(dice), dice.choice(random_asking.NAMES)
        found = drawn.classes_of(name)
        assert names_lookup.classes_of(maps, name, drawn.tables.generation & 1) == tuple(sorted(set(found)))
        expected = judging.query(flow, found, interface=rig.TEST_IFINDEX)
        frame = random_asking.frame(flow, name)
        done = filtering.sent(learner, frame)
        told = learner.reader.read()
        where = (drawn, flow, name, expected)
        refused = expected.admission is judge.Admission.REFUSED
        assert done.action == (REFUSED_BY[flow.protocol] if refused else filtering.PASSED), where
        if expected.admission is judge.Admission.ADMITTED:
            assert told == [], where
        else:
            ((outcome, policy_set, rule),) = ((one.outcome, one.policy_set, one.rule) for one in told)
            assert (OUTCOMES[outcome], policy_set, rule) == (expected.admission, expected.set, expected.rule), where
        fared[expected.admission] += 1
    return fared


def agree(learner: rig.Learner, seed: int, rounds: int) -> None:
    """Compare so many drawings, and see that nothing was left out."""
    dice = random.Random(seed)
    try:
        fared = sum((compared(learner, dice) for _ in range(rounds)), collections.Counter())
    finally:
        filtering.clear(learner)
    assert all(fared[admission] > rounds // 4 for admission in judge.Admission), fared


def test_random_queries_over_random_maps_are_judged_alike_by_kernel_and_judge(learner: rig.Learner) -> None:
    agree(learner, SEED, ROUNDS)


@pytest.mark.slow
@pytest.mark.matrix
def test_queries_are_judged_alike_hundreds_of_thousands_of_times(learner: rig.Learner) -> None:
    agree(learner, SEED + 1, ROUNDS_THOROUGH)
