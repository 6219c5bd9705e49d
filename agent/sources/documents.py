"""YAML text to plain values, for input nobody has looked at yet.

The documents are built here from the parser's events, not by PyYAML's constructors, because those
- keep the last of several equal keys in silence (here it becomes `decode.fields.Repeated`),
- expand aliases without bound ("billion laughs"; here at most ALIASED_MAX values a document),
- overflow the C stack on a file of brackets and take the agent with them (here DEPTH_MAX),
- read 1:30 as 90, 010 as 8 and 2024-01-01 as a date. Here these are text, and text where the API wants
  a number is refused in sight of everybody. `yes`, `on` and `off` stay truth values as they are for
  kubectl, so that a label without quotes is refused as kubectl refuses it.

Tags other than those of JSON's types are refused. JSON is read as the YAML it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping

import yaml

from agent import errors
from agent.decode import fields

ALIASED_MAX = 100_000
"""Values that aliases and merge keys may add to one document."""
DEPTH_MAX = 100
_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99}|0x[0-9a-fA-F]{1,80})")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    spelling: value
    for words, value in ((("true", "yes", "on"), True), (("false", "no", "off"), False), (("null",), None))
    for word in words
    for spelling in (word, word.capitalize(), word.upper())
} | {"": None, "~": None}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file."""

    value: object
    line: int
    """Where it starts, counted from 1."""


@dataclasses.dataclass(slots=True)
class _Frame:
    """A list or mapping that is being built."""

    value: list[object] | dict[object, object]
    anchor: str | None
    line: int
    counted: int
    """Values seen before this one."""
    key: object = None
    has_key: bool = False
    merged: list[Mapping[object, object]] = dataclasses.field(default_factory=list)


def parse(content: bytes, name: str) -> tuple[Document, ...]:
    """Return the documents of a file in UTF-8; `name` is for the message.

    Raises InvalidResource, which names the file and the line.
    """
    try:
        text = content.decode("utf-8-sig")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        return tuple(_Builder(name).documents(yaml.parse(text, Loader=loader)))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise errors.InvalidResource(f"{name}:{line}: is not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise errors.InvalidResource(f"{name}:{line}: is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        # A character YAML does not allow; its position counts bytes in the C parser, characters in the other.
        line = content.count(b"\n", 0, getattr(error, "position", 0)) + 1
        raise errors.InvalidResource(f"{name}:{line}: is not YAML: {getattr(error, 'reason', error)}") from error


class _Builder:
    """Builds values from events, without recursion."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[object, int]] = {}
        """Anchor -> value and how many values it holds, aliases expanded."""
        self._counted = 0
        self._aliased = 0
        self._root: object = None

    def documents(self, events: Iterator[yaml.Event]) -> Iterator[Document]:
        """Iterate over the documents."""
        start = 1
        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    start = _line(event)
                    self._anchors, self._counted, self._aliased, self._root = {}, 0, 0, None
                case yaml.DocumentEndEvent():
                    yield Document(value=self._root, line=start)
                case yaml.ScalarEvent():
                    self._counted += 1
                    self._put(self._scalar(event), event.anchor, 1, _line(event))
                case yaml.AliasEvent():
                    self._alias(event)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._open(event)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._close()

    def _refused(self, line: int, reason: str) -> errors.InvalidResource:
        return errors.InvalidResource(f"{self._name}:{line}: {reason}")

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        line = _line(event)
        if len(self._frames) >= DEPTH_MAX:
            raise self._refused(line, f"is nested more than {DEPTH_MAX} deep")
        sequence = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", _TAG + ("seq" if sequence else "map")):
            raise self._refused(line, f"the tag {event.tag!r} is not allowed")
        self._counted += 1
        self._frames.append(_Frame([] if sequence else {}, event.anchor, line, self._counted))

    def _close(self) -> None:
        frame = self._frames.pop()
        if isinstance(frame.value, dict):
            for merged in frame.merged:
                for key, value in merged.items():
                    frame.value.setdefault(key, value)
        self._put(frame.value, frame.anchor, self._counted - frame.counted + 1, frame.line)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        if event.anchor not in self._anchors:
            raise self._refused(line, f"the alias *{event.anchor} refers to nothing that is complete before it")
        value, size = self._anchors[event.anchor]
        self._counted += size
        self._aliased += size
        if self._aliased > ALIASED_MAX:
            raise self._refused(line, f"aliases expand the document by more than {ALIASED_MAX} values")
        self._put(value, None, size, line)

    def _put(self, value: object, anchor: str | None, size: int, line: int) -> None:
        """Place a complete value where the innermost open list or mapping wants it."""
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif not frame.has_key:
            if isinstance(value, list | dict):
                raise self._refused(line, "a list or mapping cannot be a key")
            frame.key, frame.has_key = value, True
        else:
            frame.has_key = False
            self._put_pair(frame, frame.key, value, line)

    def _put_pair(self, frame: _Frame, key: object, value: object, line: int) -> None:
        """Place a key and its value; a key given again marks the pair, whatever the values."""
        if not isinstance(frame.value, dict):
            raise TypeError
        if key == _MERGE:
            for source in value if isinstance(value, list) else [value]:
                if not isinstance(source, dict):
                    raise self._refused(line, "a merge key needs a mapping, or a list of mappings")
                frame.merged.append(source)
            return
        frame.value[key] = fields.Repeated(line) if key in frame.value else value

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        """Read a scalar by its tag, or, plain and without one, by its looks."""
        if event.tag is None and event.implicit[0]:
            return _plain(event.value)
        if event.tag in (None, "!", _TAG + "str"):
            return event.value
        value = _plain(event.value)
        types = {"int": int, "float": int | float, "bool": bool, "null": type(None)}
        type_ = types.get(event.tag.removeprefix(_TAG))
        if type_ is None or not isinstance(value, type_):
            line = _line(event)
            raise self._refused(line, f"the tag {event.tag!r} is not allowed for {event.value[:40]!r}")
        return value


def _line(event: yaml.Event) -> int:
    """Return the line an event begins on, counted from 1."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _plain(text: str) -> object:
    """Read a scalar without quotes; what YAML 1.1 and 1.2 read differently stays text."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text, 16 if "x" in text else 10)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NO_NUMBER.fullmatch(text):
        return float(text.replace(".", ""))
    return text
