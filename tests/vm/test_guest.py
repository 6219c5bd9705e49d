"""The guest's judgements: what counts as a refusal in words, and as tables that passed."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.vm import guest

LINE = "nodewall-agent: BPF netfilter programs on kernel 6.1.0 is not available: it needs Linux 6.4 or newer"


def _suite(**counts: int) -> ET.Element:
    root = ET.Element("testsuites")
    ET.SubElement(root, "testsuite", {name: str(count) for name, count in counts.items()})
    return root


def test_one_line_that_names_the_kernel_that_would_do_is_a_refusal_in_words() -> None:
    assert guest.refusal(1, f"{LINE}\n") == ("", LINE)


@pytest.mark.parametrize(
    ("status", "stderr"),
    [
        (0, LINE),
        (2, LINE),
        (1, ""),
        (1, f"Traceback (most recent call last):\n{LINE}"),
        (1, "nodewall-agent: program packet.bpf.o was rejected: Invalid argument"),
    ],
)
def test_anything_else_is_no_refusal_in_words(status: int, stderr: str) -> None:
    assert guest.refusal(status, stderr)[0]


def test_tables_pass_when_every_one_was_run_and_passed() -> None:
    assert guest.outcome(_suite(tests=18, failures=0, errors=0, skipped=0), 0) == ("", "18 of 18 passed")


@pytest.mark.parametrize(
    ("counts", "status"),
    [({"tests": 0}, 0), ({"tests": 18, "failures": 1}, 1), ({"tests": 18, "skipped": 18}, 0), ({"tests": 18}, 2)],
)
def test_tables_that_failed_were_skipped_or_were_none_are_a_problem(counts: dict[str, int], status: int) -> None:
    assert guest.outcome(_suite(**counts), status)[0]
