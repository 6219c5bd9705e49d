r"""JSONPath as kubectl speaks it: `{.items[*].metadata.name}`, ranges, filters, text between the braces.

The problem: kubectl's dialect is nobody else's (templates in braces, `range` and `end`, results joined by spaces), and
what a library of another dialect makes of it differs in ways that are seen too late. The rule: a small part of it,
exactly; everything else is refused, naming the place. A field that is not there prints nothing, as there.

    {.a.b} {$.a} {@} {['a.b']} {.a\.b} {.*} {..name}                fields
    {.a[0]} [-1] [0,2] [1:3] [::2] [*] ['x','y']                    items
    {.a[?(@.b=="x")].c} with == != < <= > >=, or [?(@.b)]           filters
    {range .a[*]}...{end}  {"\n"}  text                             templates

Values are hostile: strings are printed escaped; the text of the template is the caller's own.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from agent import errors
from agent.cli import escaping

NAME = re.compile(r"(?:[A-Za-z0-9_$-]|\\.)+")
NUMBERS = re.compile(r"-?\d+(?:,-?\d+)*")
SLICE = re.compile(r"(-?\d*):(-?\d*)(?::(\d*))?")
STRINGS = re.compile(r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
UNION = re.compile(rf"{STRINGS.pattern}(?:\s*,\s*{STRINGS.pattern})*")
FILTER = re.compile(r"\s*(@[^=!<>\s]*)\s*(?:(==|!=|<=|>=|<|>)\s*(.+?)\s*)?")
SCALAR = re.compile(r"-?\d+(\.\d+)?|true|false")
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EXAMPLE = "write it as kubectl does, such as {.items[*].name}"

Step: TypeAlias = Callable[[object], Iterable[object]]
"""From one value to those it leads to."""


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """Printed as it is."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Path:
    """Leads from one value to others."""

    steps: tuple[Step, ...]
    absolute: bool

    def find(self, root: object, here: object) -> list[object]:
        """Return the values it leads to."""
        found = [root if self.absolute else here]
        for step in self.steps:
            found = [after for value in found for after in step(value)]
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Prints its body for each value."""

    path: Path
    body: tuple[Text | Path | Range, ...]


Part: TypeAlias = Text | Path | Range


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A whole expression."""

    parts: tuple[Part, ...]

    def apply(self, document: object) -> str:
        """Return what it prints of `document`, which is what JSON can say."""
        return "".join(_print(self.parts, document, document))


def parse(text: str) -> Template:
    """Read an expression; raises InvalidInput naming what of it is not understood."""
    if "{" not in text:
        raise _wrong(text, "it has no {}")
    parts: list[list[Part]] = [[]]
    ranges: list[Path] = []
    for literal, inside in _braces(text):
        if literal:
            parts[-1].append(Text(literal))
        word, _, rest = inside.strip().partition(" ")
        if word == "range":
            ranges.append(_path(rest.strip()))
            parts.append([])
        elif inside.strip() == "end":
            if not ranges:
                raise _wrong(text, "{end} without {range}")
            body = tuple(parts.pop())
            parts[-1].append(Range(ranges.pop(), body))
        elif STRINGS.fullmatch(inside.strip()):
            parts[-1].append(Text(_unquoted(inside.strip())))
        elif inside:
            parts[-1].append(_path(inside.strip()))
    if ranges:
        raise _wrong(text, "{range} without {end}")
    return Template(tuple(parts[0]))


def _braces(text: str) -> Iterator[tuple[str, str]]:
    """Yield each text before a brace with what is inside that one; inside, quotes hide braces."""
    place = 0
    while place < len(text):
        start = text.find("{", place)
        if start < 0:
            yield text[place:], ""
            return
        end = start + 1
        while end < len(text) and text[end] != "}":
            quoted = STRINGS.match(text, end)
            end = quoted.end() if quoted else end + 1
        if end >= len(text):
            raise _wrong(text[start:], "a { is not closed")
        if not text[start + 1 : end].strip():
            raise _wrong(text[start : end + 1], "there is nothing in the braces")
        yield text[place:start], text[start + 1 : end]
        place = end + 1


def _path(text: str) -> Path:
    place = 0
    if text[:1] in {"$", "@"}:
        place = 1
    elif text[:1] not in {".", "["}:
        raise _wrong(text, "a path begins with ., $, @ or [")
    # kubectl's {.x} is of the value at hand: of the document outside ranges, of the item inside.
    absolute = text.startswith("$")
    steps: list[Step] = []
    while place < len(text):
        step, place = _step(text, place)
        if step is not None:
            steps.append(step)
    return Path(tuple(steps), absolute)


def _step(text: str, place: int) -> tuple[Step | None, int]:
    if text.startswith("..", place):
        found = NAME.match(text, place + 2)
        if found is not None:
            return _recursive(_field(_name(found[0]))), found.end()
        if text.startswith("*", place + 2):
            return _recursive(_children), place + 3
        raise _wrong(text[place:], "after .. comes a name or *")
    if text[place] == "[":
        end = _closing(text, place)
        return _bracket(text[place + 1 : end].strip()), end + 1
    if text[place] != ".":
        raise _wrong(text[place:], "only . and [ lead on")
    if text.startswith(".*", place):
        return _children, place + 2
    found = NAME.match(text, place + 1)
    if found is not None:
        return _field(_name(found[0])), found.end()
    if place + 1 == len(text) or text[place + 1] == "[":
        return None, place + 1
    raise _wrong(text[place:], "after . comes a name; others are written ['like this']")


def _closing(text: str, start: int) -> int:
    depth, place = 0, start
    while place < len(text):
        quoted = STRINGS.match(text, place)
        if quoted is not None:
            place = quoted.end()
            continue
        depth += {"[": 1, "]": -1}.get(text[place], 0)
        if not depth:
            return place
        place += 1
    raise _wrong(text[start:], "a [ is not closed")


def _bracket(inside: str) -> Step:
    if inside == "*":
        return _children
    if NUMBERS.fullmatch(inside):
        return _items([int(number) for number in inside.split(",")])
    sliced = SLICE.fullmatch(inside)
    if sliced is not None:
        first, last, step = (int(part) if part else None for part in sliced.groups())
        if step == 0:
            raise _wrong(f"[{inside}]", "the step of a slice is not 0")
        return lambda value: value[first:last:step] if isinstance(value, list) else ()
    if UNION.fullmatch(inside):
        wanted = [_unquoted(name) for name in STRINGS.findall(inside)]
        return lambda value: [after for name in wanted for after in _field(name)(value)]
    if inside.startswith("?(") and inside.endswith(")"):
        return _filter(inside[2:-1])
    raise _wrong(f"[{inside}]", "in [] are numbers, a slice, *, 'names' or ?(a filter)")


def _filter(text: str) -> Step:
    found = FILTER.fullmatch(text)
    if found is None or "&&" in text or "||" in text:
        raise _wrong(f"?({text})", "a filter is @.PATH, or @.PATH, one of == != < <= > >=, and a value")
    left = _path(found[1])
    if found[2] is None:
        return lambda value: [item for item in _children(value) if left.find(item, item)]
    compare, right = COMPARE[found[2]], _operand(found[3])

    def admits(item: object) -> bool:
        lefts, rights = left.find(item, item), right(item)
        return any(_compared(compare, one, other) for one in lefts for other in rights)

    return lambda value: [item for item in _children(value) if admits(item)]


def _operand(text: str) -> Callable[[object], Sequence[object]]:
    if text.startswith("@"):
        path = _path(text)
        return lambda item: path.find(item, item)
    if STRINGS.fullmatch(text):
        literal: object = _unquoted(text)
    elif SCALAR.fullmatch(text):
        literal = json.loads(text)
    else:
        raise _wrong(text, "a value is 'quoted', a number, true, false or a path from @")
    return lambda _item: (literal,)


def _compared(compare: Callable[[Any, Any], bool], one: object, other: object) -> bool:
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in (one, other))
    if not numbers and type(one) is not type(other):
        return False
    try:
        return compare(one, other)
    except TypeError:
        return False


def _field(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _items(places: Sequence[int]) -> Step:
    def step(value: object) -> Iterator[object]:
        if isinstance(value, list):
            yield from (value[place] for place in places if -len(value) <= place < len(value))

    return step


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _recursive(step: Step) -> Step:
    def everywhere(value: object) -> Iterator[object]:
        yield from step(value)
        for child in _children(value):
            yield from everywhere(child)

    return everywhere


def _name(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _unquoted(text: str) -> str:
    inside = text[1:-1]
    if text[0] == "'":
        inside = inside.replace("\\'", "'").replace('"', '\\"')
    try:
        return str(json.loads(f'"{inside}"'))
    except json.JSONDecodeError as error:
        raise _wrong(text, "it is no string") from error


def _print(parts: Iterable[Part], root: object, here: object) -> Iterator[str]:
    for part in parts:
        match part:
            case Text():
                yield part.text
            case Path():
                yield " ".join(_shown(value) for value in part.find(root, here))
            case Range():
                for item in part.path.find(root, here):
                    yield from _print(part.body, root, item)


def _shown(value: object) -> str:
    return escaping.escape(value) if isinstance(value, str) else json.dumps(value).replace("\x7f", "\\u007f")


def _wrong(text: str, why: str) -> errors.InvalidInput:
    return errors.InvalidInput(field="jsonpath", value=text, remedy=f"{why}; {EXAMPLE}")
