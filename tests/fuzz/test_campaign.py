"""A small share of the campaign; `make fuzz` runs a million rounds."""

from __future__ import annotations

import os
import pathlib
import random

import pytest

from tests.fuzz import asking, campaign, noise

ROUNDS = int(os.environ.get("NODEWALL_FUZZ_ROUNDS", "3000"))


def test_no_round_finds_anything(tmp_path: pathlib.Path) -> None:
    found = campaign.run(tmp_path / "hubble.sock", first=0, rounds=ROUNDS)
    assert found.rounds.total() == ROUNDS
    assert len(found.rounds) == 12 or ROUNDS < 1000


def test_a_round_that_finds_something_says_how_to_repeat_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: asking.Asked, _choose: random.Random) -> None:
        raise KeyError("ethernet")

    monkeypatch.setattr(asking.Asked, "flows", broken)
    with pytest.raises(campaign.FoundError, match=r"--first \d+ --rounds 1") as caught:
        campaign.run(tmp_path / "hubble.sock", first=0, rounds=50)
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("text", ["\x1b", "\x00", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\r", "\t"])
def test_what_a_terminal_acts_on_is_found(text: str) -> None:
    assert noise.unprintable(f"a{text}b") == text


def test_a_call_that_waits_is_left_and_one_that_ends_is_not() -> None:
    async def ends() -> int:
        return 3

    assert asking.step(ends()) == (True, 3)
