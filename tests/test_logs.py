"""Log lines: readable on a terminal, JSON elsewhere, and no stranger's control character in either."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from agent import errors, logs


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_outside_a_terminal_a_line_is_json_and_lower_levels_are_left_out() -> None:
    file = io.StringIO()
    logs.configure("info", file)
    log = structlog.get_logger("x")
    log.debug("unseen")
    log.warning("flow denied", source="x/\x1b[31ma\u202e")
    (line,) = file.getvalue().splitlines()
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert json.loads(line)["source"] == "x/\x1b[31ma\u202e"


def test_on_a_terminal_values_with_anything_odd_in_them_are_quoted_and_escaped() -> None:
    fields = {"timestamp": "T", "level": "info", "event": "pod found", "pod": "x/a", "command": "a b\x1b\u202e"}
    assert logs.key_value(None, "info", fields) == "T info    pod found pod=x/a command='a b\\x1b\\u202e'"


def test_the_level_changes_for_loggers_that_have_logged_before() -> None:
    file = io.StringIO()
    threshold = logs.configure("warning", file)
    log = structlog.get_logger("x")
    log.info("unseen")
    assert threshold.change("debug") == "warning"
    log.debug("seen")
    assert threshold.level == "debug"
    threshold.change("error")
    log.warning("unseen again")
    assert [json.loads(line)["event"] for line in file.getvalue().splitlines()] == ["seen"]


def test_a_level_that_is_none_is_refused_and_changes_nothing() -> None:
    threshold = logs.Threshold("info")
    with pytest.raises(errors.InvalidInput, match="debug, info, warning, error"):
        threshold.change("loud")
    assert threshold.level == "info"


def test_an_exception_is_logged_at_its_level() -> None:
    file = io.StringIO()
    logs.configure("error", file)
    log = structlog.get_logger("x")
    try:
        int("odd")
    except ValueError:
        log.exception("failed")
    assert json.loads(file.getvalue())["level"] == "error"
