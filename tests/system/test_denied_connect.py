"""What a denied connect() looks like: an error at once and a verdict that says why and who, or silence if so wished.

With a socket layer the error is EACCES and the verdict names the process; without one the node answers for the other
side with a reset, and knows no process.

Rules A14, A15 (isolation without a matching rule denies) and I14 (the isolating policies are named).
"""

from __future__ import annotations

import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import lab
from agent.model import net, resources, verdict
from agent.rpc import client
from tests.support import traffic
from tests.system import campaign, conftest, engines, stress

pytestmark = pytest.mark.root

PORT = 7200
LOOPED = 7201
"""Of verdicts about a port that is dialled thousands of times few are told."""
TIMES = 2000
FAR_TOO_SLOW_US = 5000
"""No figure, only the difference between an answer and a time-out."""
INITIAL_PIDS = pathlib.Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC
"""The initial PID namespace has a fixed number (include/linux/proc_ns.h)."""
FIGURES = pathlib.Path("build/figures")
CAST = [campaign.pod("caller", "node-1", "caller"), campaign.pod("other", "node-1", "other")]


def policy(name: str) -> dict[str, Any]:
    """Return a policy that isolates the caller for egress and allows nothing."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"role": "caller"}}, "policyTypes": ["Egress"]},
    }


POLICIES = [policy("no-egress"), policy("quarantine")]


@pytest.fixture(scope="module", params=engines.by_combination(engines.FEWER))
def combination(request: pytest.FixtureRequest) -> engines.Combination:
    one: engines.Combination = request.param
    return one


@pytest.fixture(scope="module")
def engine(combination: engines.Combination) -> engines.Engine:
    return combination.engine


@pytest.fixture(scope="module")
def running(combination: engines.Combination) -> Iterator[lab.Lab]:
    name = conftest.lab_name("denied")
    with combination.engine.lab(name, combination.topology, families=list(net.Family)) as built:
        built.down()
        built.up([*CAST, *POLICIES])
        conftest.check_engine(built, combination.engine)
        yield built


def _address(running: lab.Lab, family: net.Family) -> str:
    return next(str(a) for a in running.plan.addresses("x/other") if net.family_of(a) is family)


def _verdicts(
    running: lab.Lab, engine: engines.Engine, address: str, pid: int, since_ns: int
) -> list[verdict.VerdictEvent]:
    """Return what the agent tells of calls to an address: of a process's own, where the engine knows processes."""
    deadline = time.monotonic() + 3
    found: list[verdict.VerdictEvent] = []
    while not found and time.monotonic() < deadline:
        time.sleep(0.02)
        with client.AgentClient(running.paths.agent_socket("node-1")) as agent:
            stored = [item for item in agent.watch_verdicts(follow=False) if isinstance(item, verdict.VerdictEvent)]
        late = [event for event in stored if event.time_ns >= since_ns and str(event.destination.address) == address]
        found = [event for event in late if (_is_of(event, pid) if engine.sockets else event.process is None)]
    return found


def _settle(running: lab.Lab) -> None:
    """Wait until the agent has told of all that was before: what iptables logs has no time but that of its reading."""
    with client.AgentClient(running.paths.agent_socket("node-1")) as agent:
        before, now = -1, agent.status().counters["verdicts_seen"]
        while now != before:
            time.sleep(0.3)
            before, now = now, agent.status().counters["verdicts_seen"]


def _is_of(event: verdict.VerdictEvent, pid: int) -> bool:
    """Compare process ids: the kernel reports the initial namespace's, which nobody inside another one can know."""
    return event.process is not None and (event.process.pid == pid if INITIAL_PIDS else event.process.pid > 0)


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_a_denied_connect_fails_at_once(running: lab.Lab, combination: engines.Combination, family: net.Family) -> None:
    error = combination.engine.near.connect
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        told = process.ask(do="connect", address=_address(running, family), port=LOOPED, count=TIMES, timeout_s=1)
    assert told["errors"] == {error: TIMES}
    microseconds = sorted(value / 1000 for value in told["nanoseconds"])
    median = statistics.median(microseconds)
    line = (
        f"denied connect(), {combination.name}, {family.name}: {error} after {median:.1f} us (median of {TIMES}), "
        f"{microseconds[int(TIMES * 0.99)]:.1f} us (99th percentile), {microseconds[0]:.1f} us at least"
    )
    print(line)
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"denied-connect-{combination.name}-{family.name.lower()}.txt").write_text(line + "\n")
    assert median < FAR_TOO_SLOW_US


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_the_verdict_names_the_isolating_policies_and_the_process_where_the_engine_knows_it(
    running: lab.Lab, engine: engines.Engine, family: net.Family
) -> None:
    address = _address(running, family)
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        who = process.ask(do="who")
        _settle(running)
        since_ns = time.time_ns()
        told = process.ask(do="connect", address=address, port=PORT, count=1, timeout_s=1)
        assert told["errors"] == {engine.near.connect: 1}
    found = _verdicts(running, engine, address, who["pid"], since_ns)
    event = found[-1]
    assert len(found) == 1 or not INITIAL_PIDS
    assert event.verdict is verdict.Verdict.DROPPED
    assert event.reason is verdict.Reason.POLICY_DENIED
    assert event.direction is net.Direction.EGRESS
    assert event.layer is (verdict.Layer.SOCKET if engine.sockets else verdict.Layer.PACKET)
    assert event.rule is None
    names = [resources.ObjectRef("NetworkPolicy", "x", name) for name in ("no-egress", "quarantine")]
    assert sorted(event.isolating) == names
    assert (event.process is not None) is engine.sockets
    assert event.process is None or event.process.command == who["command"]
    assert (event.source.namespace, event.source.pod) == ("x", "caller")
    assert (event.destination.namespace, event.destination.pod, event.destination.port) == ("x", "other", PORT)


def test_in_deny_mode_drop_a_denied_connect_times_out(running: lab.Lab, engine: engines.Engine) -> None:
    stress.end_agents(running, "node-1")
    stress.start_agents(running, "node-1", flags=["--deny-mode", "drop"])
    running.apply([*CAST, *POLICIES])
    with client.AgentClient(running.paths.agent_socket("node-1")) as agent:
        assert agent.status().deny_mode == "drop"
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        who = process.ask(do="who")
        for family in net.Family:
            address = _address(running, family)
            _settle(running)
            since_ns = time.time_ns()
            told = process.ask(do="connect", address=address, port=PORT, count=1, timeout_s=0.5)
            assert told["errors"] == {"time-out": 1}
            assert told["nanoseconds"][0] >= 0.5e9
            found = _verdicts(running, engine, address, who["pid"], since_ns)
            assert [event.verdict for event in found[-1:]] == [verdict.Verdict.DROPPED]
            assert len(found) == 1 or not INITIAL_PIDS
