"""From one engine to another under a connect load: nothing leaks, nothing is wrongly denied, nothing is left behind.

Every agent of the cluster ends, by the signal that asks or by the one that does not, and the next one is told to
enforce another policy in another way. The way through the engines takes every step from one to another once a round.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterator

import pytest

from agent.lab import lab, plan
from tests.system import conftest, engines, remains, stress

pytestmark = pytest.mark.root

NODES = ("node-1", "node-2")
ROUND = len(engines.ENGINES) * (len(engines.ENGINES) - 1)
SWITCHES = 100


def way() -> Iterator[engines.Engine]:
    """Yield whom to switch to, beginning at the first engine: each engine follows each other one once a round.

    With a prime number of engines, steps of one width come round through all of them; every width has its turn.
    """
    for width in itertools.cycle(range(1, len(engines.ENGINES))):
        yield from (engines.ENGINES[turn * width % len(engines.ENGINES)] for turn in range(1, len(engines.ENGINES) + 1))


def test_the_way_takes_every_step_from_one_engine_to_another_once_a_round() -> None:
    stops = [engines.ENGINES[0], *itertools.islice(way(), ROUND)]
    steps = set(itertools.pairwise(stops))
    assert len(steps) == ROUND
    assert not any(before == after for before, after in steps)


def switch(each: lab.Lab, turn: int, engine: engines.Engine) -> None:
    """End the agents of all nodes and start them with another engine and another policy."""
    stress.end_agents(each, *NODES, by=signal.SIGKILL if turn % 2 else signal.SIGTERM)
    stress.write(each, stress.manifests(turn))
    each.engine, each.iptables = engine.mode, engine.variant
    stress.start_agents(each, *NODES, executed=True)
    each.apply(stress.manifests(turn))
    conftest.check_engine(each, engine)


def _campaigns() -> list[object]:
    """Return a quarter of a round for `make test`, which enters each engine once; the whole number on both kinds."""
    whole = [pytest.param(topology, SWITCHES, marks=pytest.mark.matrix) for topology in engines.TOPOLOGIES]
    return [(plan.Topology.ROUTED, ROUND // 4), *whole]


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "switches"), _campaigns())
def test_switching_engines_leaks_nothing_denies_nothing_and_leaves_nothing(
    topology: plan.Topology, switches: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with engines.ENGINES[0].lab(conftest.lab_name("migration"), topology) as each:
        each.up(stress.manifests(0))
        with stress.connecting(each) as seen:
            begin = time.monotonic()
            for turn, engine in enumerate(itertools.islice(way(), switches), start=1):
                switch(each, turn, engine)
                wanted = remains.expected(engines.Combination(engine=engine, topology=topology))
                assert [remains.of(each, node).keys() for node in NODES] == [wanted, wanted], f"after switch {turn}"
            took = time.monotonic() - begin
    with capsys.disabled():
        print(f"\n{topology.value}: {switches} switches in {took:.1f} s: {seen}")
    stress.judge(seen, *engines.ENGINES)
