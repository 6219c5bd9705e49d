"""The lab as people have it: its agents are executed."""

from __future__ import annotations

import pytest

from agent.lab import nursery


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget a nursery that tests of other directories left in the environment."""
    monkeypatch.delenv(nursery.ENVIRONMENT, raising=False)
