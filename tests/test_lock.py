"""One agent a state directory, also while another one is just uninstalled."""

from __future__ import annotations

import fcntl
import os
import pathlib

import pytest

from agent import errors, lock


def test_the_second_is_refused_and_told_who_the_first_is(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "state" / "agent.lock"
    with lock.held(file.parent, file):
        assert file.read_text() == f"{os.getpid()}\n"
        with (
            pytest.raises(errors.InvalidInput, match=f"process id {os.getpid()} runs there"),
            lock.held(tmp_path, file),
        ):
            pass
    with lock.held(file.parent, file):
        pass


def test_a_lock_of_a_file_that_was_removed_meanwhile_is_worth_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened before an uninstall removed it, locked after: the next one would make, and lock, another."""
    file = tmp_path / "agent.lock"
    flock = fcntl.flock
    removed: list[pathlib.Path] = []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            file.unlink()
            removed.append(file)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with lock.held(tmp_path, file):
        with pytest.raises(errors.InvalidInput, match="runs there"), lock.held(tmp_path, file):
            pass
        file.unlink()
    assert not file.exists()


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(errors.InvalidInput, match="must be able to write there"),
        lock.held(tmp_path / "file" / "state", tmp_path / "file" / "state" / "agent.lock"),
    ):
        pass
