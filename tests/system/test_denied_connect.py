"""What a denied connect() looks like: EACCES at once and a verdict that says why and who, or silence if so wished.

Rules A14, A15 (isolation without a matching rule denies) and I14 (the isolating policies are named).
"""

from __future__ import annotations

import os
import pathlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import agents, lab, removal
from agent.model import net, resources, verdict
from agent.rpc import client
from tests.support import traffic
from tests.system import campaign, conftest

pytestmark = pytest.mark.root

PORT = 7200
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


@pytest.fixture(scope="module")
def running() -> Iterator[lab.Lab]:
    with lab.Lab(name=conftest.lab_name("denied"), families=list(net.Family)) as built:
        built.down()
        built.up([*CAST, *POLICIES])
        yield built


def _address(running: lab.Lab, family: net.Family) -> str:
    return next(str(a) for a in running.plan.addresses("x/other") if net.family_of(a) is family)


def _verdicts(running: lab.Lab, address: str, pid: int) -> list[verdict.VerdictEvent]:
    with client.AgentClient(running.paths.agent_socket("node-1")) as agent:
        stored = [item for item in agent.watch_verdicts(follow=False) if isinstance(item, verdict.VerdictEvent)]
    mine = [event for event in stored if event.process is not None and _is_of(event.process.pid, pid)]
    return [event for event in mine if str(event.destination.address) == address]


def _is_of(reported: int, pid: int) -> bool:
    """Compare process ids: the kernel reports the initial namespace's, which nobody inside another one can know."""
    return reported == pid if INITIAL_PIDS else reported > 0


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_a_denied_connect_fails_at_once_with_eacces(running: lab.Lab, family: net.Family) -> None:
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        told = process.ask(do="connect", address=_address(running, family), port=PORT, count=TIMES, timeout_s=1)
    assert told["errors"] == {"EACCES": TIMES}
    microseconds = sorted(value / 1000 for value in told["nanoseconds"])
    median = statistics.median(microseconds)
    line = (
        f"denied connect(), {family.name}: EACCES after {median:.1f} us (median of {TIMES}), "
        f"{microseconds[int(TIMES * 0.99)]:.1f} us (99th percentile), {microseconds[0]:.1f} us at least"
    )
    print(line)
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"denied-connect-{family.name.lower()}.txt").write_text(line + "\n")
    assert median < FAR_TOO_SLOW_US


@pytest.mark.parametrize("family", list(net.Family), ids=lambda one: str(one.name))
def test_the_verdict_names_the_isolating_policies_and_the_process(running: lab.Lab, family: net.Family) -> None:
    address = _address(running, family)
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        who = process.ask(do="who")
        assert process.ask(do="connect", address=address, port=PORT, count=1, timeout_s=1)["errors"] == {"EACCES": 1}
    deadline = time.monotonic() + 3
    while not (found := _verdicts(running, address, who["pid"])) and time.monotonic() < deadline:
        time.sleep(0.02)
    event = found[-1]
    assert len(found) == 1 or not INITIAL_PIDS
    assert event.verdict is verdict.Verdict.DROPPED
    assert event.reason is verdict.Reason.POLICY_DENIED
    assert event.direction is net.Direction.EGRESS
    assert event.layer is verdict.Layer.SOCKET
    assert event.rule is None
    names = [resources.ObjectRef("NetworkPolicy", "x", name) for name in ("no-egress", "quarantine")]
    assert sorted(event.isolating) == names
    assert event.process is not None
    assert event.process.command == who["command"]
    assert (event.source.namespace, event.source.pod) == ("x", "caller")
    assert (event.destination.namespace, event.destination.pod, event.destination.port) == ("x", "other", PORT)


def test_in_deny_mode_drop_a_denied_connect_times_out(running: lab.Lab) -> None:
    cgroup = agents.cgroup("node-1", running.paths)
    for pid in removal.processes(cgroup):
        os.kill(pid, 15)
    deadline = time.monotonic() + 5
    while removal.processes(cgroup) and time.monotonic() < deadline:
        time.sleep(0.02)
    (order,) = agents.orders(running.plan, running.paths, running.engine)
    running._run({"processes": [order | {"argv": [*order["argv"], "--deny-mode", "drop"]}]})
    running.apply([*CAST, *POLICIES])
    with client.AgentClient(running.paths.agent_socket("node-1")) as agent:
        assert agent.status().deny_mode == "drop"
    with traffic.PodProcess(running, "x/caller", "tests.system.attacks.connects") as process:
        who = process.ask(do="who")
        for family in net.Family:
            address = _address(running, family)
            told = process.ask(do="connect", address=address, port=PORT, count=1, timeout_s=0.5)
            assert told["errors"] == {"time-out": 1}
            assert told["nanoseconds"][0] >= 0.5e9
            time.sleep(0.2)
            told_of = [event.verdict for event in _verdicts(running, address, who["pid"])]
            assert told_of[-1:] == [verdict.Verdict.DROPPED]
            assert len(told_of) == 1 or not INITIAL_PIDS
