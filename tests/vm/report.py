"""What a guest says about itself: a file its host reads, written after every check, so that a hang shows where."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

FILE = "report.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing a guest looked at."""

    name: str
    problem: str
    """Why it failed, in one line; "" if it did not."""
    found: str
    """What there is to tell, such as "18 passed"."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything one guest looked at, in order."""

    release: str
    """The kernel's, as `uname -r` has it."""
    finished: bool
    checks: Sequence[Check]

    def write(self, directory: pathlib.Path) -> None:
        """Put it into `directory`."""
        (directory / FILE).write_text(json.dumps(dataclasses.asdict(self), indent=1))


def read(directory: pathlib.Path) -> Report | None:
    """Return the report in `directory`; None if there is none."""
    path = directory / FILE
    if not path.exists():
        return None
    document = json.loads(path.read_text())
    return Report(
        release=document["release"],
        finished=document["finished"],
        checks=[Check(**check) for check in document["checks"]],
    )


def problem(report: Report | None, status: int) -> str:
    """Say in one line why a guest that ended with `status` has not shown what it was to show; "" if it has.

    A status of 0 is not believed without a finished report: an emulator that dies early may end with 0.
    """
    if report is None:
        return f"the kernel did not start, or said nothing (exit status {status})"
    failed = [f"{check.name}: {check.problem}" for check in report.checks if check.problem]
    if failed:
        return "; ".join(failed)
    if not report.finished:
        after = report.checks[-1].name if report.checks else "its start"
        return f"it ended after {after} (exit status {status})"
    return f"exit status {status}" if status else ""
