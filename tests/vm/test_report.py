"""A guest that did not show what it was to show is never taken for one that did."""

from __future__ import annotations

import pathlib

from tests.vm import report

GOOD = report.Check(name="demo", problem="", found="24 connections", seconds=1.5)
BAD = report.Check(name="tables", problem="17 of 18 passed", found="17 of 18 passed", seconds=2)


def _report(*checks: report.Check, finished: bool = True) -> report.Report:
    return report.Report(release="6.12.1", finished=finished, checks=list(checks))


def test_a_report_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    _report(GOOD, BAD).write(tmp_path)
    assert report.read(tmp_path) == _report(GOOD, BAD)


def test_a_finished_report_without_problems_and_status_0_is_a_success() -> None:
    assert report.problem(_report(GOOD), 0) == ""


def test_a_kernel_that_said_nothing_has_failed_whatever_its_status(tmp_path: pathlib.Path) -> None:
    assert "did not start" in report.problem(report.read(tmp_path), 0)


def test_a_guest_that_ended_early_has_failed_and_the_last_check_is_named() -> None:
    assert "it ended after demo" in report.problem(_report(GOOD, finished=False), 0)


def test_a_failed_check_is_named_with_its_problem() -> None:
    assert report.problem(_report(GOOD, BAD), 1) == "tables: 17 of 18 passed"


def test_a_status_nobody_explains_is_a_failure() -> None:
    assert report.problem(_report(GOOD), 4) == "exit status 4"
