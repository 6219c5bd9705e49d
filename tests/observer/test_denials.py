"""Denied flows in the log: one line a flow and interval, a bounded number a second."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

from agent.model import verdict
from agent.observer import denials
from tests.support import agents


def log() -> tuple[denials.DenialLog, list[dict[str, object]]]:
    lines: list[dict[str, object]] = []
    return denials.DenialLog(lines.append), lines


def later(event: verdict.VerdictEvent, seconds: float) -> verdict.VerdictEvent:
    return dataclasses.replace(event, time_ns=event.time_ns + int(seconds * 1e9))


def to_port(port: int) -> verdict.VerdictEvent:
    return agents.flow(destination=dataclasses.replace(agents.flow().destination, port=port))


def test_a_line_tells_who_whom_what_why_and_by_which_policy() -> None:
    written, lines = log()
    written.see(agents.flow(process=verdict.Process(pid=7, command="curl")))
    assert lines == [
        {
            "direction": "ingress",
            "source": "x/a (10.0.0.2)",
            "destination": "x/b (10.0.0.3)",
            "port": "80/TCP",
            "reason": "policy_denied",
            "layer": "packet",
            "isolated_by": "NetworkPolicy x/deny",
            "process": "curl[7]",
        }
    ]


def test_a_line_has_the_names_by_which_the_pod_knew_the_address() -> None:
    """Requirement F16."""
    written, lines = log()
    written.see(agents.flow(destination=dataclasses.replace(agents.flow().destination, names=("a.b", "c.d"))))
    assert lines[0]["names"] == "a.b, c.d"


def test_a_log_of_would_be_denials_takes_no_denials_and_the_other_way_round() -> None:
    """Rule A51."""

    async def items() -> AsyncIterator[verdict.Item]:
        for kind in verdict.Verdict:
            yield agents.flow(verdict=kind)

    seen: dict[verdict.Verdict, list[dict[str, object]]] = {kind: [] for kind in verdict.Verdict}
    for kind in (verdict.Verdict.DROPPED, verdict.Verdict.AUDIT):
        asyncio.run(denials.DenialLog(seen[kind].append, of=kind).follow(items()))
    assert [len(lines) for lines in seen.values()] == [0, 1, 0, 1]


def test_a_pod_in_a_loop_of_connects_is_one_line_and_then_a_number() -> None:
    written, lines = log()
    for number in range(100):
        written.see(later(agents.flow(), number / 100))
    assert len(lines) == 1
    written.see(later(agents.flow(), 10))
    assert lines[1]["suppressed"] == 99


def test_what_was_kept_back_before_the_agent_is_counted_as_well() -> None:
    written, lines = log()
    written.see(agents.flow(repeats=5))
    written.see(later(agents.flow(repeats=7), 1))
    written.see(later(agents.flow(repeats=2), 10))
    assert [line.get("suppressed") for line in lines] == [5, 10]


def test_a_scan_of_ports_is_no_more_than_the_budget() -> None:
    written, lines = log()
    for port in range(1, 500):
        written.see(to_port(port))
    assert len(lines) == denials.BUDGET
    written.see(later(to_port(600), 1))
    assert lines[-1]["suppressed_others"] == 499 - denials.BUDGET


def test_flows_remembered_are_bounded() -> None:
    written, _ = log()
    for number in range(3 * denials.REMEMBERED):
        written.see(later(to_port(number), number))
    assert len(written._last_ns) == denials.REMEMBERED
