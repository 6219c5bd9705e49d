"""What a benchmark reports: lines of a table, and the same as JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured value; `baseline` is what the ratio divides by, measured in the same run."""

    name: str
    value: float
    unit: str
    baseline: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over baseline; None where there is none."""
        return self.value / self.baseline if self.baseline else None


def median(values: Sequence[float]) -> float:
    """Return the median; a benchmark without rounds is a mistake in the benchmark."""
    assert values
    return statistics.median(values)


def table(figures: Sequence[Figure]) -> str:
    """Render figures as aligned text."""
    rows = [("figure", "value", "baseline", "ratio", "note")]
    for figure in figures:
        ratio = "" if figure.ratio is None else f"x{figure.ratio:.3g}"
        baseline = "" if figure.baseline is None else f"{figure.baseline:,.4g} {figure.unit}"
        rows.append((figure.name, f"{figure.value:,.4g} {figure.unit}", baseline, ratio, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
