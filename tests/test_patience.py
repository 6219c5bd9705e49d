"""Time-outs grow with NODEWALL_PATIENCE, and with nothing else."""

from __future__ import annotations

import pytest

from agent import errors, patience


@pytest.mark.parametrize("text", ["", "1"])
def test_without_patience_a_time_out_is_as_usual(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.ENVIRONMENT, text)
    assert patience.seconds(0.5) == 0.5


def test_patience_multiplies_every_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.ENVIRONMENT, "2.5")
    assert patience.seconds(2) == 5


@pytest.mark.parametrize("text", ["ten", "0", "-1", "0.5", "nan", "inf"])
def test_patience_that_is_no_factor_is_refused_by_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.ENVIRONMENT, text)
    with pytest.raises(errors.InvalidInput, match=patience.ENVIRONMENT):
        patience.seconds(1)
