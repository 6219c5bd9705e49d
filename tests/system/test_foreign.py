"""Others write to the tables while connections are made: nothing is widened, and within seconds all is as it was.

Whoever takes the judgement away does not take the policy away: what nothing has judged and concerns an enforced pod is
dropped, so that allowed connections may fail until the agent has repaired the tables, and forbidden ones never succeed.
Sources are checked twice, so that no forged packet passes while one check is gone. No socket layer runs here, which
would refuse connections by itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from agent.lab import lab
from agent.rpc import client
from tests.support import traffic
from tests.system import conftest, engines, foreign, stress

pytestmark = [pytest.mark.root, pytest.mark.slow]

NODES = ("node-1", "node-2")
REPAIRED_S = 5.0
PATIENCE_S = 0.3
BEFORE_S = 0.3
AFTER_S = 0.7
FORGER = "tests.system.attacks.forger"
OUTSIDE = "203.0.113.9"
"""Nobody isolates the server, so that only the check of sources keeps a packet from here away."""
FORBIDDEN = ("ECONNREFUSED", engines.TIME_OUT)


WITHOUT_SOCKETS = [one for one in engines.COMBINATIONS if one.engine.iptables and not one.engine.sockets]
DAILY = [engines.PAIRWISE[2]]


@pytest.fixture(scope="module", params=engines.by_combination(DAILY, among=WITHOUT_SOCKETS))
def combination(request: pytest.FixtureRequest) -> engines.Combination:
    one: engines.Combination = request.param
    return one


@pytest.fixture(scope="module")
def cluster(combination: engines.Combination) -> Iterator[lab.Lab]:
    with combination.engine.lab(conftest.lab_name("foreign"), combination.topology) as each:
        each.down()
        each.up(stress.manifests(0))
        conftest.check_engine(each, combination.engine)
        yield each


def nodes(each: lab.Lab, engine: engines.Engine) -> list[foreign.Node]:
    return [foreign.Node(running=each, name=name, variant=engine.variant) for name in NODES]


def forging(each: lab.Lab) -> traffic.PodProcess:
    """Let the client send what claims to be from outside to the port that it may not reach."""
    server = str(each.plan.addresses("x/server")[0])
    return traffic.PodProcess(each, "x/client", FORGER, OUTSIDE, server, str(stress.OTHER))


def repaired(wanted: list[dict[str, list[str]]], where: list[foreign.Node]) -> float:
    """Wait until the tables are as wanted; return when, in seconds of the monotonic clock."""
    deadline = time.monotonic() + REPAIRED_S
    while (found := [node.enforcing() for node in where]) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == wanted, f"not repaired in {REPAIRED_S:.0f} s"
    return time.monotonic()


def judge(seen: stress.Seen, good_again: float) -> None:
    """Check that nothing forbidden came through at any time, and that what is allowed works since the repair."""
    assert seen.forbidden == 0, "leaked"
    for target in ("refused", "silent"):
        assert seen.counts(target).keys() <= set(FORBIDDEN), f"widened: {target}"
    late = [run for run in seen.runs["allowed"] if run.outcome != "ok" and run.end - PATIENCE_S > good_again]
    assert not late, "what is allowed fails after the repair"
    assert seen.runs["allowed"][-1].outcome == "ok"


@pytest.mark.parametrize("act", foreign.ACTS, ids=lambda act: str(act.__name__))
def test_nothing_is_widened_and_all_is_repaired_within_five_seconds(
    cluster: lab.Lab,
    combination: engines.Combination,
    act: Callable[[foreign.Node], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    where = nodes(cluster, combination.engine)
    wanted = [node.enforcing() for node in where]
    try:
        with stress.connecting(cluster, PATIENCE_S) as seen, forging(cluster):
            time.sleep(BEFORE_S)
            for node in where:
                act(node)
            begin = time.monotonic()
            good_again = repaired(wanted, where)
            time.sleep(AFTER_S)
    finally:
        for node in where:
            foreign.undo(node)
    with capsys.disabled():
        print(f"\n{combination.name}, {act.__name__}: repaired after {good_again - begin:.1f} s: {seen}")
    judge(seen, good_again)


def test_a_lock_that_is_held_for_ten_seconds_delays_a_change_and_opens_nothing(
    cluster: lab.Lab, combination: engines.Combination, capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack, stress.connecting(cluster, PATIENCE_S) as seen:
        held = stack.enter_context(contextlib.ExitStack())
        for name in NODES:
            held.enter_context(foreign.locked(cluster, name))
        stress.write(cluster, stress.manifests(1))
        time.sleep(foreign.LOCKED_S)
        told = [_last_error(cluster, name) for name in NODES]
        held.close()
        begin = time.monotonic()
        cluster.apply(stress.manifests(1))
        took = time.monotonic() - begin
        time.sleep(AFTER_S)
    with capsys.disabled():
        print(f"\n{combination.name}: enforced {took:.1f} s after the lock was free: {seen}")
    stress.judge(seen, combination.engine)
    assert took < REPAIRED_S
    if combination.engine.variant == "legacy":  # iptables-nft takes no lock
        assert all("lock" in error for error in told), told


def _last_error(each: lab.Lab, node: str) -> str:
    with client.AgentClient(each.paths.agent_socket(node)) as agent:
        return agent.status().last_error
