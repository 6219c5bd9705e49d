"""Reading a parsed document of unknown shape without ever failing on it.

A Field is a value together with its path in the API's spelling. Its readers return what they promise
or raise Malformed, and whoever owns the smallest unit that may be given up (a port, a peer, a rule, an
address) catches it, gives that unit up and notes a Problem. Malformed never leaves `agent.decode`.

Missing and null are one and the same here, as they are on the wire (rules A1 to A3); whether an empty
value differs from them is for the caller to say. A null *item* of a list is malformed: the API's JSON
decoder would read it as an empty rule, which allows everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.model import resources

PROBLEMS_MAX = 64
"""Problems kept per object; a hostile document must not fill the memory with them."""

SHOWN_MAX = 80
"""Characters of a value that a message shows."""


class Malformed(Exception):  # noqa: N818 - states what the field is; it never leaves this package
    """A field does not hold what the API puts there."""

    def __init__(self, path: str, reason: str) -> None:
        """Say where, and what is wrong and what to write, without a full stop."""
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Repeated:
    """Stands in for the value of a key that one mapping gives more than once.

    YAML parsers take the last one in silence; a repeated `policyTypes` could so widen access. Being of
    no type any reader accepts, it makes its field malformed.
    """

    line: int
    """Of the second occurrence, counted from 1."""


class Report:
    """The problems found in one object, in the order of the document."""

    def __init__(self, ref: resources.ObjectRef) -> None:
        """Start without problems."""
        self.ref = ref
        self._problems: list[resources.Problem] = []
        self._left_out = 0

    def add(self, path: str, reason: str) -> None:
        """Note one problem; beyond PROBLEMS_MAX only their number is kept."""
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(resources.Problem(self.ref, path, reason))
        else:
            self._left_out += 1

    def give_up(self, malformed: Malformed, consequence: str) -> None:
        """Note what is malformed and what follows from it."""
        self.add(malformed.path, f"{malformed.reason}; {consequence}")

    @property
    def problems(self) -> tuple[resources.Problem, ...]:
        """Everything noted so far."""
        if not self._left_out:
            return tuple(self._problems)
        more = resources.Problem(self.ref, "", f"{self._left_out} more problems are not listed; correct these first")
        return (*self._problems, more)


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A value and its path; None stands for missing and for null."""

    value: object
    path: str = ""

    @property
    def given(self) -> bool:
        """Tell whether there is a value: neither missing nor null."""
        return self.value is not None

    def malformed(self, expected: str) -> Malformed:
        """Build the exception that says this field should be `expected`."""
        if isinstance(self.value, Repeated):
            return Malformed(self.path, f"is given again on line {self.value.line}; write it once")
        return Malformed(self.path, f"{_shown(self.value)} is not {expected}")

    def mapping(self) -> Mapping[object, object]:
        """Return a mapping, empty when not given; its keys may be anything."""
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            raise self.malformed("a mapping")
        return self.value

    def pairs(self) -> tuple[tuple[str, Field], ...]:
        """Return the keys and values of a mapping whose keys are text, none when not given."""
        found: list[tuple[str, Field]] = []
        for key, value in self.mapping().items():
            if not isinstance(key, str):
                raise Malformed(self.path, f"the key {_shown(key)} is not text; put it in quotes")
            found.append((key, Field(value, f"{self.path}[{key}]")))
        return tuple(found)

    def member(self, name: str) -> Field:
        """Return one member; of a field that is not given, a field that is not given."""
        return Field(self.mapping().get(name), f"{self.path}.{name}" if self.path else name)

    def element(self, key: str) -> Field:
        """Return the value that a mapping of people's own keys has for `key`, or a field that is not given."""
        return Field(self.mapping().get(key), f"{self.path}[{key}]")

    def only(self, *names: str) -> None:
        """Refuse members that are not in `names`: what they ask for is unknown, and could be less access."""
        for key, _ in self.pairs():
            if key not in names:
                known = ", ".join(names)
                raise Malformed(f"{self.path}.{key}" if self.path else key, f"is not a field known here; use {known}")

    def items(self) -> tuple[Field, ...]:
        """Return the items of a list, none when not given."""
        if self.value is None:
            return ()
        if not isinstance(self.value, list | tuple):
            raise self.malformed("a list")
        return tuple(Field(item, f"{self.path}[{index}]") for index, item in enumerate(self.value))

    def text(self) -> str:
        """Return text that is not empty."""
        if not isinstance(self.value, str) or not self.value:
            raise self.malformed("text" + _quoting(self.value))
        return self.value

    def integer(self, lowest: int, highest: int) -> int:
        """Return a whole number between two bounds, both inclusive; true and false are no numbers."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not lowest <= self.value <= highest:
            raise self.malformed(f"a number from {lowest} to {highest}")
        return self.value

    def truth(self, *, default: bool = False) -> bool:
        """Return true or false; `default` when not given."""
        if self.value is None:
            return default
        if not isinstance(self.value, bool):
            raise self.malformed("true or false")
        return self.value


def _quoting(value: object) -> str:
    """Say what turns `yes`, `on` and numbers into the text they look like."""
    return " (put it in quotes)" if isinstance(value, bool | int | float) else ""


def _shown(value: object) -> str:
    """Show a value in a message: scalars as they are, of the rest only the kind."""
    match value:
        case None:
            text = "nothing"
        case bool():
            text = str(value).lower()
        case str() | int() | float():
            # Python refuses to print integers of thousands of digits.
            text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a huge number"
        case Mapping():
            text = "a mapping"
        case list() | tuple():
            text = "a list"
        case _:
            text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."
