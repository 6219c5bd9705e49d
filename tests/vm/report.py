"""What a guest says about itself: a file its host reads, written after every check, so that a hang shows where."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

FILE = "report.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a check."""

    found: str = ""
    """What there is to tell, such as "18 of 18 passed"."""
    problem: str = ""
    """Why it failed, in one line; "" if it did not."""
    passed: int = 0
    total: int = 0
    """Connections or tables; 0 where nothing is counted."""


def counted(passed: int, total: int) -> Found:
    """Return what came of so many; none at all is a problem, for it proves nothing."""
    found = f"{passed} of {total} passed"
    return Found(found=found, problem="" if passed == total > 0 else found, passed=passed, total=total)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing a guest looked at."""

    name: str
    engine: str
    """What `--engine` was given; "" where no agent was asked."""
    found: Found
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What an agent said of itself in its status."""

    wanted: str
    """What `--engine` was given."""
    mode: str
    variant: str
    """Of iptables; "" where it takes no part."""
    reasons: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything one guest looked at, in order."""

    release: str
    """The kernel's, as `uname -r` has it."""
    finished: bool
    checks: Sequence[Check]
    engines: Sequence[Engine] = ()

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
        checks=[Check(**check | {"found": Found(**check["found"])}) for check in document["checks"]],
        engines=[Engine(**engine | {"reasons": tuple(engine["reasons"])}) for engine in document["engines"]],
    )


def problem(report: Report | None, status: int) -> str:
    """Say in one line why a guest that ended with `status` has not shown what it was to show; "" if it has.

    A status of 0 is not believed without a finished report: an emulator that dies early may end with 0.
    """
    if report is None:
        return f"the kernel did not start, or said nothing (exit status {status})"
    failed = [f"{check.name}: {check.found.problem}" for check in report.checks if check.found.problem]
    if failed:
        return "; ".join(failed)
    if not report.finished:
        after = report.checks[-1].name if report.checks else "its start"
        return f"it ended after {after} (exit status {status})"
    return f"exit status {status}" if status else ""


def lines(report: Report) -> Iterator[str]:
    """Yield what people are shown: a line for every check, and what each engine gives as reasons."""
    for check in report.checks:
        failed = f"FAILED {check.found.problem}" if check.found.problem else check.found.found
        yield f"{check.name:22} {check.seconds:5.0f} s  {failed}"
        for engine in report.engines:
            if check.name.startswith("agents") and check.engine == engine.wanted:
                yield from (f"{'':32}because {reason}" for reason in engine.reasons)
