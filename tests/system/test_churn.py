"""Policy flips and agent deaths under a connect load: every outcome is the old policy's or the new one's."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from agent.lab import lab
from tests.system import conftest, engines, stress

pytestmark = pytest.mark.root

FLIPS, FEWER_FLIPS = 1000, 100
DEATHS, FEWER_DEATHS = 100, 3
SHORT = engines.PAIRWISE[2]
"""Who stands a smaller number in `make test`, beside BPF: the one whose packet layer has no help of a socket layer."""


@pytest.fixture
def cluster(combination: engines.Combination) -> Iterator[lab.Lab]:
    with combination.engine.lab(conftest.lab_name("churn"), combination.topology) as each:
        each.up(stress.manifests(0))
        conftest.check_engine(each, combination.engine)
        yield each


def _campaigns(more: int, fewer: int) -> list[object]:
    """Return every combination with the whole number, for the matrix, and a few with a smaller one for `make test`."""
    whole = [
        pytest.param(one, more, marks=engines.marks(selected=False), id=f"{one.name}-{more}")
        for one in engines.COMBINATIONS
    ]
    short = [pytest.param(one, fewer, id=f"{one.name}-{fewer}") for one in (engines.NFBPF_ROUTED, SHORT)]
    return [*whole, *short]


@pytest.mark.slow
@pytest.mark.parametrize(("combination", "flips"), _campaigns(FLIPS, FEWER_FLIPS))
def test_every_outcome_under_a_thousand_flips_is_the_old_or_the_new_policy(
    cluster: lab.Lab, combination: engines.Combination, flips: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with stress.connecting(cluster) as seen:
        begin = time.monotonic()
        for flip in range(flips):
            cluster.apply(stress.manifests(flip + 1))
        took = time.monotonic() - begin
    with capsys.disabled():
        print(f"\n{combination.name}: {flips} flips in {took:.1f} s: {seen}")
    stress.judge(seen, combination.engine)


@pytest.mark.slow
@pytest.mark.parametrize(("combination", "deaths"), _campaigns(DEATHS, FEWER_DEATHS))
def test_a_hundred_agent_deaths_leak_nothing_and_deny_nothing(
    cluster: lab.Lab, combination: engines.Combination, deaths: int, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(7)
    with stress.connecting(cluster) as seen:
        begin = time.monotonic()
        for death in range(deaths):
            documents = stress.manifests(death + 1)
            node = f"node-{1 + death // 2 % 2}"
            stress.write(cluster, documents)
            # an apply takes some 20 ms: most deaths come in the middle of one
            time.sleep(chance.uniform(0, 0.03))
            stress.end_agents(cluster, node)
            stress.start_agents(cluster, node, executed=True)
            cluster.apply(documents)
        took = time.monotonic() - begin
    with capsys.disabled():
        print(f"\n{combination.name}: {deaths} deaths in {took:.1f} s: {seen}")
    stress.judge(seen, combination.engine)
