"""What DNS told survives a restart of the agent, and no boot (requirement F25)."""

from __future__ import annotations

import json
import pathlib
import stat

import pytest

from agent import errors
from agent.learning import stored
from agent.model import fqdn
from tests.learning import answering

ONE = fqdn.Remembered(
    endpoint=(1 << 32) - 1, name=answering.NAME, address=answering.address(), answered_ns=3, expires_ns=1 << 62
)


def test_it_is_read_as_it_was_written_and_by_nobody_else(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "answers.json"
    stored.write(file, [ONE], boot="a")
    assert stored.read(file, boot="a") == (ONE,)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_another_boot_knows_nothing(tmp_path: pathlib.Path) -> None:
    """Its clock began anew."""
    stored.write(tmp_path / "f", [ONE], boot="a")
    assert stored.read(tmp_path / "f", boot="b") == ()
    assert stored.read(tmp_path / "not there", boot="a") == ()
    assert stored.boot() == stored.boot() != ""


@pytest.mark.parametrize(
    "row",
    [
        [-1, answering.NAME, "203.0.113.1", 1, 2],
        [1, "UPPER.example.com", "203.0.113.1", 1, 2],
        [1, answering.NAME, "nowhere", 1, 2],
        [1, answering.NAME, 7, 1, 2],
        [1, answering.NAME, "203.0.113.1", 1],
        [1, answering.NAME, "203.0.113.1", "1", 2],
        "abcde",
        None,
    ],
)
def test_what_cannot_be_read_is_refused_whole(tmp_path: pathlib.Path, row: object) -> None:
    file = tmp_path / "f"
    file.write_text(json.dumps({"boot": "a", "answers": [row]}))
    with pytest.raises(errors.InvalidAnswer, match="what DNS told"):
        stored.read(file, boot="a")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"boot": "a"}', "[" * 100_000])
def test_no_file_is_an_error_of_another_kind(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(errors.InvalidAnswer):
        stored.read(tmp_path / "f", boot="a")
