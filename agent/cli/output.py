"""How every verb of agentctl prints: table, JSON or YAML on stdout, one line of error on stderr.

Names, labels and process names come from strangers. Whatever is printed goes through `escape`, so that no control
character and no change of writing direction reaches a terminal; JSON and YAML carry such characters in their own
escaped form. Colour and the terminal's width count only where stdout is a terminal: a pipe gets whole lines.
"""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NamedTuple, TypeVar

import click

from agent import errors

Command = TypeVar("Command", bound=Callable[..., object])

BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Overrides, embeddings and isolates: they show a line in an order other than its own."""
HOSTILE = frozenset(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *BIDI))
PIPE_WIDTH = 4000
"""Columns where stdout is no terminal: wide enough that no line is ever folded."""


class Form(enum.Enum):
    """How a document is printed; the value is what `-o` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class ExitCode(enum.IntEnum):
    """What agentctl returns to the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    """A flag, a name or a manifest is wrong."""
    DISAGREEMENT = 3
    """Two answers to one question differ: a model and a probe."""


class Styled(NamedTuple):
    """A cell with a style of rich (`red`, `bold green`); without a terminal it is its text."""

    text: str
    style: str


class Failure(click.ClickException):
    """A NodewallError on its way to stderr; see `failure`."""

    exit_code = ExitCode.FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `agentctl: TEXT`; the text may have lines, each is escaped."""
        lines = "\n".join(escape(line) for line in self.message.splitlines())
        click.echo(f"agentctl: {lines}", file=file or sys.stderr)


class WrongInput(Failure):
    """The failure is in what was typed or written, not in what was done with it."""

    exit_code = ExitCode.USAGE


def failure(error: errors.NodewallError) -> Failure:
    """Return what to raise for `error`, so that click prints its text and exits with the right code."""
    wrong_input = isinstance(error, errors.InvalidInput | errors.InvalidResource)
    return (WrongInput if wrong_input else Failure)(str(error))


def escape(text: str) -> str:
    r"""Write control characters (C0, DEL, C1), line separators and bidi controls as \xNN or \uNNNN; keep the rest.

    >>> escape("web\x1b[31m")
    'web\\x1b[31m'
    """
    if HOSTILE.isdisjoint(text):
        return text
    return "".join(_escaped(character) if character in HOSTILE else character for character in text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - what two digits hold


def output_option(command: Command) -> Command:
    """Give a command `-o table|json|yaml`, as its parameter `form: Form`."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Form]),
        default=Form.TABLE.value,
        callback=lambda _context, _parameter, value: Form(value),
        help="How to print; table unless told.",
    )(command)


def render(rows: Sequence[Mapping[str, object]], *, columns: Sequence[str], form: Form, document: object) -> str:
    """Return `rows` as a table of `columns`, or the whole `document` as JSON or YAML, without the last newline.

    A cell may be `Styled`; None and "" print as `-`, booleans as yes and no, sequences with commas. A document
    holds what JSON can say; anything else in it (addresses, say) is printed by str().
    """
    match form:
        case Form.JSON:
            return json.dumps(document, indent=2, default=str)
        case Form.YAML:
            import yaml  # noqa: PLC0415 - only here; agentctl starts in a tenth of a second

            plain = json.loads(json.dumps(document, default=str))
            return str(yaml.safe_dump(plain, sort_keys=False, default_flow_style=False)).rstrip("\n")
        case Form.TABLE:
            return _table(rows, columns)


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    from rich import table as rich_table  # noqa: PLC0415 - 40 ms, and JSON does without
    from rich import text as rich_text  # noqa: PLC0415 - see above

    table = rich_table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " ").upper(), overflow="fold")
    for row in rows:
        cells = (row.get(column) for column in columns)
        table.add_row(*(rich_text.Text(cell_text(cell), style=_style(cell)) for cell in cells))
    return paint(table)


def plain(value: object) -> object:
    """Return a value of the model as JSON can say it: fields by name, enums and addresses as people write them."""
    match value:
        case enum.Enum():
            return value.name.lower()
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case tuple() | list() | frozenset() | set():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        case _:
            return str(value)


def paint(renderable: object) -> str:
    """Return a rich object as text, with colour if stdout is a terminal and NO_COLOR is not set."""
    from rich import console as rich_console  # noqa: PLC0415 - see _table

    terminal = sys.stdout.isatty()
    console = rich_console.Console(
        file=io.StringIO(),
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=shutil.get_terminal_size().columns if terminal else PIPE_WIDTH,
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
            return escape(cell.text)
        case None | "":
            return "-"
        case bool():
            return "yes" if cell else "no"
        case str():
            return escape(cell)
        case enum.Enum():
            return cell.name.lower()
        case Mapping():
            return ", ".join(f"{escape(str(key))}={cell_text(value)}" for key, value in cell.items()) or "-"
        case tuple() | list() | set() | frozenset():  # no Iterable: a network is one, of all its addresses
            return ", ".join(cell_text(item) for item in cell) or "-"
        case _:
            return escape(str(cell))


def _style(cell: object) -> str:
    return cell.style if isinstance(cell, Styled) else ""
