"""The reports of guests as the table of kernels in README: Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tests.vm import report

HEAD = ("kernel", "`--engine`", "enforces with", "why", "demo", "connections", "names", "tables", "seconds")


def markdown(reports: Mapping[str, report.Report]) -> str:
    """Return a table with a line for every kernel and engine."""
    lines: list[Iterable[str]] = [HEAD, ["---"] * len(HEAD)]
    lines += [line for name, one in reports.items() for line in _lines(name, one)]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _lines(name: str, one: report.Report) -> Iterator[Iterable[str]]:
    shown = f"{one.release} ({name})"
    for engine in one.engines:
        own = [check for check in one.checks if check.engine == engine.wanted]
        mode = f"{engine.mode} ({engine.variant})" if engine.variant else engine.mode
        why = "; ".join(engine.reasons) or "nothing is lacking"
        counts = (_count(own, word) for word in ("demo", "connections", "names", "tables"))
        yield (shown, engine.wanted, mode, why, *counts, f"{sum(check.seconds for check in own):.0f}")


def _count(checks: Iterable[report.Check], word: str) -> str:
    """Return how a kind of check ended: its counts, else what was found; "" if it was not made."""
    for check in checks:
        if check.name.startswith(word):
            found = check.found
            return f"{found.passed} of {found.total}" if found.total else "FAILED" if found.problem else found.found
    return ""


def _cell(text: str) -> str:
    """Keep what an agent said from ending a cell or a line."""
    return " ".join(text.replace("|", "\\|").split())
