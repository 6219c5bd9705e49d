"""Health: each check says what is wrong, and only what a new process or an operator can mend fails."""

from __future__ import annotations

import asyncio
import contextlib

from agent import health
from tests.support import agents

READY = health.Condition(waiting_for=(), engine="socket+nfbpf", unproved=(), missing=(), generation=3)


def changed(**more: object) -> health.Condition:
    fields = {name: getattr(READY, name) for name in ("waiting_for", "engine", "unproved", "missing", "generation")}
    return health.Condition(**(fields | more))


def test_an_agent_that_works_lives() -> None:
    assert not health.failed(health.live(silent_s=1.5, busy_s=20))


def test_an_event_loop_that_stands_still_and_a_worker_that_never_returns_are_told() -> None:
    assert health.failed(health.live(silent_s=11, busy_s=0)) == ("event-loop: stood still for 11 s",)
    assert health.failed(health.live(silent_s=0, busy_s=400)) == ("worker: at one job for 400 s",)


def test_a_slow_machine_is_given_time() -> None:
    assert not health.failed(health.live(silent_s=50, busy_s=2000, patience=lambda usual: usual * 10))


def test_an_agent_that_enforces_is_ready() -> None:
    assert not health.failed(health.ready(READY))


def test_each_thing_that_lacks_is_named() -> None:
    assert health.failed(health.ready(changed(waiting_for=("pods", "nodes")))) == (
        "inputs: no first whole list of pods, nodes",
    )
    assert health.failed(health.ready(changed(missing=("the pin /x is gone",)))) == ("datapath: the pin /x is gone",)
    assert health.failed(health.ready(changed(unproved=("x is not proved", "nor y")))) == (
        "deny-probe: x is not proved; nor y",
    )
    assert health.failed(health.ready(changed(generation=None))) == ("enforced: no policy applied by this agent yet",)
    assert not health.failed(health.ready(changed(generation=0)))


def test_the_page_is_short_where_all_is_well_and_names_each_check_where_not_or_when_asked() -> None:
    assert health.text(health.ready(READY), verbose=False) == "ok\n"
    assert health.text(health.ready(READY), verbose=True).splitlines() == [
        "[+] inputs ok",
        "[+] deny-probe ok: passed at the start: socket+nfbpf",
        "[+] datapath ok",
        "[+] enforced ok: generation 3",
        "ok",
    ]
    lines = health.text(health.ready(changed(missing=("a\nb\x1b[2J",))), verbose=False).splitlines()
    assert lines[2] == r"[-] datapath failed: a\nb\x1b[2J"
    assert lines[-1] == "failed"


def test_the_heart_beats_while_the_event_loop_runs() -> None:
    async def scenario() -> None:
        clock = agents.ManualClock()
        heart = health.Heart(clock)
        clock.pass_s(30)
        assert heart.silent_s == 30
        beating = asyncio.create_task(heart.run())
        await asyncio.sleep(0)
        assert heart.silent_s == 0
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating

    asyncio.run(scenario())
