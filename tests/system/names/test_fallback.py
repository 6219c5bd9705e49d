"""Where no BPF program learns: packets of DNS wait for the agent, and for no agent that is not there (F30, F25)."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from agent.lab import orders
from tests.system import stress
from tests.system.names import stage as stage_
from tests.system.names import zones

pytestmark = pytest.mark.root

FIRST, COUNT = 21_500, 200
BYPASSED_S, LOOK_S = 2.0, 0.01


@pytest.fixture
def names(stage: stage_.Stage) -> stage_.Stage:
    """Allow names of which each has an address of its own."""
    if stage.in_kernel:
        pytest.skip("this engine learns in the kernel")
    stage.apply(stage_.cilium(stage_.by_name(f"*.{zones.FRESH}", "*.one.test")))
    return stage


def _held(names: stage_.Stage) -> bool:
    """Tell whether packets of the pods' node wait for anybody; a process that was killed takes a moment to end."""
    netns = orders.party_netns(f"node/{stage_.NODE}", names.lab.plan, names.lab.paths)
    command = ["nsenter", f"--net={netns}", "cat", "/proc/thread-self/net/netfilter/nfnetlink_queue"]
    return bool(subprocess.run(command, check=True, capture_output=True).stdout)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_without_the_agent_dns_goes_on_and_nothing_new_is_learned(names: stage_.Stage, by: signal.Signals) -> None:
    """F30: within two seconds, and what was learned before stays open (F25)."""
    (known,) = names.ask("api.one.test")["addresses"]
    assert names.reach(known) == "ok"
    stress.end_agents(names.lab, stage_.NODE, by=by)
    begin = time.monotonic()
    try:
        while _held(names):
            assert time.monotonic() - begin < BYPASSED_S
            time.sleep(LOOK_S)
        answer = names.ask(zones.fresh(FIRST - by))
        assert answer["addresses"]
        assert names.reach(answer["addresses"][0]) == stage_.REFUSED
        assert names.reach(known) == "ok"
    finally:
        stress.start_agents(names.lab, stage_.NODE, flags=stage_.FLAGS)
    names.apply(stage_.cilium(stage_.by_name(f"*.{zones.FRESH}", "*.one.test")))
    assert names.reach(known) == "ok"
    wanted = {"first": FIRST, "count": COUNT, "port": stage_.PORT}
    seen = names.client.ask(do="fresh", resolver=names.resolver, **wanted)
    assert (seen["failed"], seen["outcomes"]) == ([], {"ok": COUNT})
