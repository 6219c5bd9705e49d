"""Which tests one worker runs behind each other: those that share what takes seconds to build.

The problem: tests run in several processes at once, and a lab that a module or a combination shares would be built by
each of them. The rule: a module's tests stay together, those of each combination by themselves, and of the truth tables
those of one lab. It is read from the tests' names, which is all that a scheduler is told of them.
"""

from __future__ import annotations

import collections
import os
import pathlib

import pytest
from xdist import remote, scheduler

from agent.datapath.bpf import compiled
from tests.system import engines
from tests.vm import jobs

TABLES = "tests/system/test_cases_lab.py"
BY_NAME = "tests/system/names/"
"""Its modules share one lab."""
NAMES = sorted((one.name for one in engines.COMBINATIONS), key=len, reverse=True)
"""Longest first: some are the end of others."""


KEPT = pathlib.Path(__file__).parents[1] / "build" / "compiled"


def pytest_configure() -> None:
    """Have the socket programs compiled once, not once for each node of each lab; every load is verified all the same.

    NODEWALL_COMPILED= has each compiled.
    """
    os.environ.setdefault(compiled.ENVIRONMENT, str(KEPT))


class Scheduling(scheduler.LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Hands out whole groups, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: remote.Producer) -> Scheduling | None:
    """Take our groups where tests run in several processes."""
    return Scheduling(config, log) if config.getoption("dist") == "loadscope" else None


def group(nodeid: str) -> str:
    """Return the name of a test's group."""
    path, _, rest = nodeid.partition("::")
    parameters = rest.partition("[")[2].removesuffix("]")
    combination = next((name for name in NAMES if name in parameters), "")
    if path.startswith(BY_NAME):
        path = BY_NAME
    lab = jobs.labs()[parameters.removeprefix(f"{combination}-")] if path == TABLES and combination else ""
    return f"{path} {combination} {lab}".rstrip()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many verdicts of the truth tables were compared: a test that compares nothing passes too."""
    total: collections.Counter[str] = collections.Counter()
    for report in terminalreporter.getreports("passed"):
        total.update({name: count for name, count in report.user_properties if isinstance(count, int)})
    for name, count in total.items():
        terminalreporter.write_line(f"{name}: {count}")
