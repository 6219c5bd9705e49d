"""How every verb of agentctl prints: `-o table|wide|json|yaml|jsonpath=EXPR|name`, --no-headers, --color.

Names, labels and process names come from strangers. Whatever is printed goes through `escape`, so that no control
character and no change of writing direction reaches a terminal; JSON and YAML carry such characters in their own
escaped form.

A verb is handed a `Form`, which is one of three: how its answer is built. What else was asked for (`wide`, a path,
names, no headers) is `Presentation`, kept in click's context, and `render` obeys it: so no verb can forget it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from agent import errors
from agent.cli import escaping, exits, jsonpath, tables

Command = TypeVar("Command", bound=Callable[..., object])

META = "agent.cli.output"
"""Where click's context keeps the Presentation."""
JSONPATH = "jsonpath="
NAMELESS = "this has no names; use table, json or yaml"
FORMS = "table|wide|json|yaml|jsonpath=EXPR|name"

escape = escaping.escape
ExitCode = exits.ExitCode
Failure = exits.Failure
WrongInput = exits.WrongInput
failure = exits.failure
Styled = tables.Styled
PIPE_WIDTH = tables.PIPE_WIDTH
paint = tables.paint
cell_text = tables.cell_text


class Form(enum.Enum):
    """How a document is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """What is asked of the output besides its form."""

    wide: bool = False
    names: bool = False
    """Only what `get` of the same verb takes, one a line."""
    path: jsonpath.Template | None = None
    headers: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The answer of a verb that lists: rows for people, the document for programs."""

    rows: Sequence[Mapping[str, object]]
    columns: Sequence[str]
    wide: Sequence[str] = ()
    """More columns, of `-o wide`."""
    names: Sequence[str] = ()
    """What `-o name` prints, one a row."""
    document: object


def presentation() -> Presentation:
    """Return what the running verb was asked for."""
    context = click.get_current_context(silent=True)
    found = context.meta.get(META) if context is not None else None
    return found if isinstance(found, Presentation) else Presentation()


def color_option(command: Command) -> Command:
    """Give a command --color."""
    return click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        expose_value=False,
        callback=_color,
        help="Colour; auto: on a terminal, unless NO_COLOR is set.",
    )(command)


def output_option(command: Command) -> Command:
    """Give a command -o, --no-headers and --color; it gets the parameter `form: Form`."""
    headers = click.option(
        "--no-headers", is_flag=True, expose_value=False, callback=_headers, help="Tables without their first line."
    )
    form = click.option(
        "-o",
        "--output",
        "form",
        metavar=FORMS,
        default=Form.TABLE.value,
        callback=_form,
        help="How to print; table unless told.",
    )
    return form(headers(color_option(command)))


def _color(context: click.Context, _parameter: click.Parameter, value: str) -> None:
    match value:
        case "always":
            context.color = True
        case "never":
            context.color = False
        case _ if os.environ.get("NO_COLOR"):
            context.color = False


def _headers(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    _present(context, headers=not value)


def _form(context: click.Context, parameter: click.Parameter, value: str) -> Form:
    if value.startswith(JSONPATH):
        try:
            _present(context, path=jsonpath.parse(value.removeprefix(JSONPATH)))
        except errors.InvalidInput as error:
            raise click.BadParameter(escape(str(error)), context, parameter) from error
        return Form.JSON
    match value:
        case "wide":
            _present(context, wide=True)
            return Form.TABLE
        case "name":
            _present(context, names=True)
            return Form.TABLE
        case "table" | "json" | "yaml":
            return Form(value)
    raise click.BadParameter(f"{escape(value)!r} is not one of {FORMS.replace('|', ', ')}", context, parameter)


def _present(context: click.Context, **changes: Any) -> None:
    context.meta[META] = dataclasses.replace(context.meta.get(META) or Presentation(), **changes)


def listed(listing: Listing, form: Form, *, header: bool = True, least: Sequence[int] = ()) -> str:
    """Return a listing as it was asked for, without the last newline.

    Raises InvalidInput for `-o name` of what has no names.
    """
    asked = presentation()
    if form is not Form.TABLE:
        return dump(listing.document, form)
    if asked.names:
        if len(listing.names) != len(listing.rows):
            raise errors.InvalidInput(field="-o", value="name", remedy=NAMELESS)
        return "\n".join(escape(name) for name in listing.names)
    columns = (*listing.columns, *(listing.wide if asked.wide else ()))
    return tables.draw(listing.rows, columns, header=header and asked.headers, least=least)


def prose(lines: Iterable[str], *, form: Form, document: object) -> Iterator[str]:
    """Yield an answer that is no table as it was asked for; raises InvalidInput for `-o name`, as it names nothing."""
    if form is not Form.TABLE:
        yield dump(document, form)
        return
    if presentation().names:
        raise errors.InvalidInput(field="-o", value="name", remedy=NAMELESS)
    yield from lines


def render(rows: Sequence[Mapping[str, object]], *, columns: Sequence[str], form: Form, document: object) -> str:
    """Return `rows` as a table of `columns`, or the whole `document` as JSON or YAML, without the last newline.

    A cell may be `Styled`; None and "" print as `-`, booleans as yes and no, sequences with commas. A document
    holds what JSON can say; anything else in it (addresses, say) is printed by str().
    """
    return listed(Listing(rows=rows, columns=columns, document=document), form)


def dump(document: object, form: Form) -> str:
    """Return a document as JSON, YAML, or what a JSONPath finds in it."""
    path = presentation().path
    if path is not None:
        found = path.apply(json.loads(json.dumps(document, default=str)))
        return found.removesuffix("\n")  # whoever prints it ends the line
    if form is Form.YAML:
        import yaml  # noqa: PLC0415 - only here; agentctl starts in a tenth of a second

        simple = json.loads(json.dumps(document, default=str))
        return str(yaml.safe_dump(simple, sort_keys=False, default_flow_style=False)).rstrip("\n")
    return to_json(document, indent=2)


def to_json(document: object, *, indent: int | None = None) -> str:
    """Return JSON in which nothing is left that a terminal would act on: JSON itself leaves DEL as it is."""
    separators = (",", ":") if indent is None else None
    return json.dumps(document, indent=indent, separators=separators, default=str).replace("\x7f", "\\u007f")


def one(lines: Sequence[tuple[str, object]], *, form: Form, name: str, document: object) -> str:
    """Return what is known of one thing as it was asked for: labelled lines, its name, or the whole document."""
    if form is not Form.TABLE:
        return dump(document, form)
    return escape(name) if presentation().names else described(lines)


def described(lines: Sequence[tuple[str, object]]) -> str:
    """Return labels and what belongs to them, a line each; a label "" continues the one above."""
    width = max((len(label) for label, _ in lines), default=0)
    shown = ((f"{label}:" if label else "").ljust(width + 2) for label, _ in lines)
    return "\n".join(
        f"{click.style(label, bold=True)}{_text(cell)}".rstrip() for label, (_, cell) in zip(shown, lines, strict=True)
    )


def _text(cell: object) -> str:
    text = cell_text(cell)
    if not isinstance(cell, tables.Styled):
        return text
    bold, _, colour = cell.style.rpartition(" ")
    if cell.style in {"bold", "dim"}:
        return click.style(text, **{cell.style: True})
    return click.style(text, fg=colour, bold=bool(bold))


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
