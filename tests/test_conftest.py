"""Tests that share a lab are run by one worker, others by whoever is free."""

from __future__ import annotations

import types
from typing import ClassVar, cast

import pytest

from tests import conftest
from tests.vm import jobs

CASES = "tests/system/test_cases_lab.py::test_connections_are_as_the_table_says"


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("tests/a.py::test_x", "tests/a.py::test_y[1]", True),
        ("tests/a.py::test_x", "tests/b.py::test_x", False),
        ("tests/a.py::test_x[iptables-nft-routed-10]", "tests/a.py::test_y[iptables-nft-routed]", True),
        ("tests/a.py::test_x[iptables-nft-routed]", "tests/a.py::test_x[socket+iptables-nft-routed]", False),
        (
            "tests/system/names/test_a.py::test_x[nfbpf-routed]",
            "tests/system/names/test_b.py::test_x[nfbpf-routed]",
            True,
        ),
        (f"{CASES}[nfbpf-routed-ports/sctp]", f"{CASES}[nfbpf-bridge-ports/sctp]", False),
    ],
)
def test_who_runs_together(one: str, other: str, together: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    monkeypatch.setattr(jobs, "labs", lambda: {"ports/sctp": 1})
    assert (conftest.group(one) == conftest.group(other)) is together


def test_tables_of_one_lab_run_together_and_those_of_another_elsewhere() -> None:
    lab_of = jobs.labs()
    groups = {case: conftest.group(f"{CASES}[nfbpf-routed-{case}]") for case in lab_of}
    assert len(set(groups.values())) == len(set(lab_of.values())) > 1


def test_what_tests_have_counted_is_added_up_and_printed_at_the_end() -> None:
    class Reporter:
        lines: ClassVar[list[str]] = []

        def getreports(self, name: str) -> list[object]:
            assert name == "passed"
            counted = [[("compared", 3), ("note", "text")], [("compared", 4), ("repeated", 0)], []]
            return [types.SimpleNamespace(user_properties=one) for one in counted]

        def write_line(self, line: str) -> None:
            self.lines.append(line)

    conftest.pytest_terminal_summary(cast("pytest.TerminalReporter", Reporter()))
    assert Reporter.lines == ["compared: 7", "repeated: 0"]
