"""The guest's judgement: what counts as tables that passed."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.vm import guest


def _suite(**counts: int) -> ET.Element:
    root = ET.Element("testsuites")
    ET.SubElement(root, "testsuite", {name: str(count) for name, count in counts.items()})
    return root


def test_tables_pass_when_every_one_was_run_and_passed() -> None:
    found = guest.outcome(_suite(tests=18, failures=0, errors=0, skipped=0), 0, 18)
    assert (found.problem, found.found, found.passed, found.total) == ("", "18 of 18 passed", 18, 18)


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ({"tests": 0}, 4),
        ({"tests": 18, "failures": 1}, 1),
        ({"tests": 18, "skipped": 18}, 0),
        ({"tests": 18}, 2),
        ({"tests": 17}, 0),
    ],
)
def test_tables_that_failed_were_skipped_or_were_not_found_are_a_problem(counts: dict[str, int], status: int) -> None:
    assert guest.outcome(_suite(**counts), status, 18).problem
