"""`policy wait`: returns when a revision is enforced, fails when it is not in time."""

from __future__ import annotations

import pathlib
import threading

import pytest
from click import testing

from agent.cli import main
from tests.support import served


def run(path: pathlib.Path, *arguments: str) -> testing.Result:
    return testing.CliRunner().invoke(main.root, ["policy", "wait", "--socket", str(path), *arguments])


def test_what_is_enforced_is_not_waited_for(tmp_path: pathlib.Path) -> None:
    with served.agent(tmp_path / "s", served.Node(served.enforcement())) as path:
        for wanted in ("--all", "4", "1"):
            result = run(path, wanted, "--timeout", "0")
            assert (result.exit_code, result.output) == (0, "revision 4 is enforced\n")


def test_what_is_not_enforced_in_time_is_exit_code_1_with_the_reason(tmp_path: pathlib.Path) -> None:
    node = served.Node(served.enforcement(), revision=5, last_error="map is full\x1b")
    with served.agent(tmp_path / "s", node) as path:
        late = run(path, "--all", "--timeout", "0.1")
        assert late.exit_code == 1
        assert "revision 5 is not enforced after 0.1 s" in late.stderr
        assert "map is full\\x1b" in late.stderr


def test_a_revision_that_comes_while_waiting_is_enough(tmp_path: pathlib.Path) -> None:
    node = served.Node(None)
    with served.agent(tmp_path / "s", node) as path:
        timer = threading.Timer(0.2, lambda: setattr(node, "enforcement", served.enforcement()))
        timer.start()
        assert run(path, "4").exit_code == 0
        timer.join()


@pytest.mark.parametrize("arguments", [(), ("4", "--all"), ("0",), ("four",)])
def test_one_of_revision_and_all_is_needed(tmp_path: pathlib.Path, arguments: tuple[str, ...]) -> None:
    assert run(tmp_path / "s", *arguments).exit_code == 2


def test_without_an_agent_it_is_exit_code_4(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path / "s", "--all").exit_code == 4
