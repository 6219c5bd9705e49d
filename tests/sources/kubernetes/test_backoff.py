"""Pauses: longer after each failure, spread, and never shorter than the server asks for."""

from __future__ import annotations

import pytest

from agent.sources.kubernetes import backoff


def test_pauses_double_up_to_the_longest() -> None:
    pauses = [backoff.delay_s(failures, chance=0.5) for failures in range(1, 12)]
    assert pauses[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert pauses[-1] == backoff.MOST_S


def test_a_thousand_failures_do_not_overflow() -> None:
    assert backoff.delay_s(100_000, chance=1.0) == backoff.MOST_S * 1.5


@pytest.mark.parametrize("failures", [1, 3, 50])
def test_chance_spreads_a_pause_by_half(failures: int) -> None:
    middle = backoff.delay_s(failures, chance=0.5)
    assert backoff.delay_s(failures, chance=0.0) == pytest.approx(middle * 0.5)
    assert backoff.delay_s(failures, chance=1.0) == pytest.approx(middle * 1.5)


def test_what_the_server_asks_for_is_the_least() -> None:
    assert backoff.delay_s(1, chance=0.0, asked_s=7.0) == 7.0
    assert backoff.delay_s(1, chance=1.0, asked_s=7.0) == 10.5
    assert backoff.delay_s(20, chance=0.5, asked_s=1.0) == backoff.MOST_S


def test_what_is_not_served_is_asked_for_at_least_once_a_minute() -> None:
    assert [backoff.absent_s(chance=chance) for chance in (0.0, 0.5, 1.0)] == [30.0, 40.0, 50.0]


def test_what_the_server_asks_for_has_a_limit() -> None:
    assert backoff.delay_s(1, chance=0.0, asked_s=1e9) == backoff.ASKED_MOST_S
