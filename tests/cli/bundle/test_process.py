"""The agent's process: who listens on its socket, and the end of its log."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from agent.cli.bundle import process


def test_who_listens_on_a_socket_is_known_and_nobody_is_nobody(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        assert process.behind(tmp_path / "s") == os.getpid()
    assert process.behind(tmp_path / "s") is None
    assert process.behind(tmp_path / "none") is None


def test_the_end_of_a_log_begins_with_a_whole_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 12)
    script = "import sys, time; sys.stderr.write('first\\nsecond\\nthird\\n'); print(flush=True); time.sleep(60)"
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen([sys.executable, "-c", script], stderr=log, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.log_tail(child.pid) == "third\n"
    finally:
        child.kill()
        child.communicate()


def test_a_log_that_goes_to_a_pipe_is_not_read_from_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.PIPE)
    try:
        with pytest.raises(FileNotFoundError, match="container's log"):
            process.log_tail(child.pid)
    finally:
        child.kill()
        child.communicate()


def test_without_a_process_there_is_no_log_and_the_network_namespace_is_this_one() -> None:
    with pytest.raises(FileNotFoundError):
        process.log_tail(None)
    assert process.in_network_of(None, lambda: 1)() == 1
    assert process.in_network_of(os.getpid(), lambda: 2)() == 2
