"""How many verdicts of one kind are told where packets are logged: as in the kernel (`tests/bpf/test_rate.py`)."""

from __future__ import annotations

import ipaddress

from agent.datapath.iptables import limit, verdicts

MS = 1_000_000
RATE = 10
BURST = 100
CLIENT, SERVER = ipaddress.ip_address("10.0.0.2"), ipaddress.ip_address("10.0.0.3")


def event(at_ms: int, *, port: int = 80, outcome: int = 2) -> verdicts.Event:
    return verdicts.Event(
        time_ns=at_ms * MS,
        source_port=40000 + at_ms % 1000,
        repeats=0,
        destination_port=port,
        source=CLIENT,
        destination=SERVER,
        protocol=6,
        source_identity=300,
        destination_identity=301,
        generation=1,
        layer=2,
        pid=0,
        command="",
        endpoint=1,
        policy_set=5,
        rule=0,
        direction=2,
        verdict=outcome,
        reason=3,
    )


def test_a_burst_is_told_then_a_few_a_second_and_each_says_how_many_there_were() -> None:
    kept = limit.Limit(RATE)
    told = kept.admitted([event(at_ms) for at_ms in range(3000)])
    assert BURST <= len(told) <= BURST + 3 * RATE
    assert len(told) + kept.suppressed == 3000
    assert sum(one.repeats for one in told) == kept.repeated
    (late,) = kept.admitted([event(20_000)])
    assert late.repeats == kept.suppressed - (kept.repeated - late.repeats)
    assert (kept.repeated, kept.forgotten) == (kept.suppressed, 0)


def test_another_port_and_another_outcome_have_buckets_of_their_own() -> None:
    kept = limit.Limit(RATE)
    kept.admitted([event(0) for _ in range(1000)])
    assert len(kept.admitted([event(0), event(0, port=81), event(0, outcome=1)])) == 2


def test_of_kinds_that_are_forgotten_the_number_is_counted() -> None:
    kept = limit.Limit(RATE)
    kept.admitted([event(0) for _ in range(BURST + 7)])
    kept.admitted([event(0, port=1000 + port) for port in range(limit.REMEMBERED)])
    assert (kept.suppressed, kept.repeated, kept.forgotten) == (7, 0, 7)


def test_without_a_limit_all_are_told() -> None:
    kept = limit.Limit(0)
    events = [event(0) for _ in range(1000)]
    assert kept.admitted(events) is events
    assert kept.suppressed == 0
