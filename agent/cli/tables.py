"""Tables for people: cells escaped, columns as wide as they must be, folded only where a terminal is narrower.

Colour and the terminal's width count only where stdout is a terminal, or where `--color always` says so: a pipe gets
whole lines.
"""

from __future__ import annotations

import enum
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click

from agent.cli import escaping

PIPE_WIDTH = 4000
"""Columns where stdout is no terminal: wide enough that no line is ever folded."""
GAP = 2


class Styled(NamedTuple):
    """A cell with a style of rich (`red`, `bold green`); without a terminal it is its text."""

    text: str
    style: str


Row = Mapping[str, object]


def draw(rows: Sequence[Row], columns: Sequence[str], *, header: bool = True, least: Sequence[int] = ()) -> str:
    """Return a table; `least` are widths that columns have at least, given up where the terminal is too narrow."""
    from rich import table as rich_table  # noqa: PLC0415 - 40 ms, and JSON does without
    from rich import text as rich_text  # noqa: PLC0415 - see above

    if not header and not rows:
        return ""
    fits = sum(least) + GAP * len(least) <= screen_width()
    table = rich_table.Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=header)
    for place, column in enumerate(columns):
        table.add_column(title(column), overflow="fold", min_width=least[place] if least and fits else None)
    for row in rows:
        cells = (row.get(column) for column in columns)
        table.add_row(*(rich_text.Text(cell_text(cell), style=_style(cell)) for cell in cells))
    return paint(table)


def title(column: str) -> str:
    """Return what stands above a column."""
    return column.replace("_", " ").upper()


def widths(rows: Sequence[Row], columns: Sequence[str]) -> tuple[int, ...]:
    """Return how many characters each column takes, its title included."""
    return tuple(max([len(title(one)), *(len(cell_text(row.get(one))) for row in rows)]) for one in columns)


def screen_width() -> int:
    """Return how many columns a line may take."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def coloured() -> bool:
    """Tell whether stdout gets colour: as --color and NO_COLOR say, else if it is a terminal."""
    context = click.get_current_context(silent=True)
    told = context.color if context is not None else None
    return sys.stdout.isatty() if told is None else told


def paint(renderable: object) -> str:
    """Return a rich object as text, with colour if stdout gets any."""
    from rich import console as rich_console  # noqa: PLC0415 - see `draw`

    with_colour = coloured()
    console = rich_console.Console(
        file=io.StringIO(),
        force_terminal=with_colour,
        color_system=("auto" if sys.stdout.isatty() else "standard") if with_colour else None,
        width=screen_width(),
        highlight=False,
        markup=False,
        emoji=False,
    )
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def cell_text(cell: object) -> str:  # noqa: PLR0911 - one line a kind of cell
    """Return what a table shows for a value, escaped."""
    match cell:
        case Styled():
            return escaping.escape(cell.text)
        case None | "":
            return "-"
        case bool():
            return "yes" if cell else "no"
        case str():
            return escaping.escape(cell)
        case enum.Enum():
            return cell.name.lower()
        case Mapping():
            return ", ".join(f"{escaping.escape(str(key))}={cell_text(value)}" for key, value in cell.items()) or "-"
        case tuple() | list() | set() | frozenset():  # no Iterable: a network is one, of all its addresses
            return ", ".join(cell_text(item) for item in cell) or "-"
        case _:
            return escaping.escape(str(cell))


def _style(cell: object) -> str:
    return cell.style if isinstance(cell, Styled) else ""
