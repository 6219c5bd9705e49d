"""A guest that did not show what it was to show is never taken for one that did."""

from __future__ import annotations

import pathlib

from tests.vm import report, table

DEMO = report.Check(name="demo, auto", engine="auto", found=report.Found(found="played"), seconds=1.5)
GOOD = report.Check(name="connections, auto", engine="auto", found=report.counted(12, 12), seconds=3)
BAD = report.Check(name="tables, auto", engine="auto", found=report.counted(17, 18), seconds=2)
ENGINE = report.Engine(wanted="auto", mode="socket+iptables", variant="nft", reasons=("no a|b", "no c"))


def _report(*checks: report.Check, finished: bool = True) -> report.Report:
    return report.Report(release="6.12.1", finished=finished, checks=list(checks), engines=[ENGINE])


def test_a_report_is_read_as_it_was_written(tmp_path: pathlib.Path) -> None:
    _report(GOOD, BAD).write(tmp_path)
    assert report.read(tmp_path) == _report(GOOD, BAD)


def test_a_finished_report_without_problems_and_status_0_is_a_success() -> None:
    assert report.problem(_report(GOOD), 0) == ""


def test_a_kernel_that_said_nothing_has_failed_whatever_its_status(tmp_path: pathlib.Path) -> None:
    assert "did not start" in report.problem(report.read(tmp_path), 0)


def test_a_guest_that_ended_early_has_failed_and_the_last_check_is_named() -> None:
    assert "it ended after connections, auto" in report.problem(_report(GOOD, finished=False), 0)


def test_a_failed_check_is_named_with_its_problem() -> None:
    assert report.problem(_report(GOOD, BAD), 1) == "tables, auto: 17 of 18 passed"


def test_a_status_nobody_explains_is_a_failure() -> None:
    assert report.problem(_report(GOOD), 4) == "exit status 4"


def test_nothing_counted_is_a_problem() -> None:
    assert report.counted(0, 0).problem


def test_people_are_shown_why_an_engine_was_chosen() -> None:
    agents = report.Check(name="agents, auto", engine="auto", found=report.Found(found="socket+iptables"), seconds=9)
    shown = list(report.lines(_report(agents, BAD)))
    assert shown[0].endswith("socket+iptables")
    assert [line.strip() for line in shown[1:3]] == ["because no a|b", "because no c"]
    assert shown[3].endswith("FAILED 17 of 18 passed")


def test_the_table_has_a_line_for_each_kernel_and_engine() -> None:
    text = table.markdown({"6.12": _report(DEMO, GOOD, BAD)})
    head, _rule, line = text.splitlines()
    assert head.startswith("| kernel | `--engine` |")
    why = r"no a\|b; no c"
    cells = ("6.12.1 (6.12)", "auto", "socket+iptables (nft)", why, "played", "12 of 12", "", "17 of 18", "6")
    assert line == f"| {' | '.join(cells)} |"


def test_what_was_not_checked_is_left_open_in_the_table() -> None:
    assert table.markdown({"6.1": _report(GOOD)}).endswith("|  | 12 of 12 |  |  | 3 |\n")
