"""Values to messages and back by the names of their fields.

The problem: a pair of functions a message is forgotten in one place or the other as soon as a field is added. The rule:
a dataclass and its message have the same field names, or `spellings` says what differs, and the types say the rest:
addresses and prefixes are texts, enums their names, a dataclass a message, an optional one a message that may be
absent. How the two meet is worked out once, when such a pair is first met, and a field of either side that would be
left out is a TypeError then. What another version says, and this one does not know, is an InvalidInput; it is never
guessed.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from google.protobuf import descriptor as descriptor_
from google.protobuf import message as message_

from agent import errors
from agent.model import labels as labels_
from agent.model import net
from agent.rpc import spellings

Message = TypeVar("Message", bound=message_.Message)
Value = TypeVar("Value")
Way: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""How a field's content is written, and read."""

VERSIONS_DIFFER = "agent and client are of different versions; use those of one release"
PLAIN = frozenset({str, bool, int, float})
NOTHING: Mapping[str, object] = types.MappingProxyType({})


def message(value: object, kind: type[Message]) -> Message:
    """Return the message of `kind` that says what the dataclass `value` does."""
    own: Any = type(value)
    return kind(**_meeting(own, kind.DESCRIPTOR).write(value))


def value(said: message_.Message, kind: type[Value]) -> Value:
    """Read a value of the dataclass `kind`; raises InvalidInput for what this version does not know."""
    own: Any = kind
    found: Value = _meeting(own, said.DESCRIPTOR).read(said)
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """A field whose own fields are the message's."""

    name: str
    spread: spellings.Spread
    meeting: _Meeting

    def is_in(self, said: message_.Message) -> bool:
        marker = self.spread.marker
        if not marker:
            return True
        described = said.DESCRIPTOR.fields_by_name[marker]
        return said.HasField(marker) if described.has_presence else bool(getattr(said, marker))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """How a dataclass and a message meet; fields are taken all at once, and those that differ are then replaced."""

    kind: type
    names: tuple[str, ...]
    said: tuple[str, ...]
    """The message's names, in the same order."""
    take: Callable[[Any], Sequence[Any]]
    take_said: Callable[[Any], Sequence[Any]]
    written: tuple[tuple[int, Callable[[Any], Any]], ...]
    """Place, and how what is there is written."""
    read_: tuple[tuple[int, Callable[[Any], Any]], ...]
    optional: tuple[tuple[int, str, Callable[[Any], Any]], ...]
    inner: tuple[_Inner, ...]
    follows: Mapping[str, Callable[[Any], object]]

    def write(self, value: Any) -> dict[str, Any]:
        """Return what a message's constructor takes, messages in it likewise; None is a field that is not set."""
        items = list(self.take(value))
        for place, write in self.written:
            item = items[place]
            if item:  # None and what is empty are no more on the wire than they are here
                items[place] = write(item)
        said = dict(zip(self.said, items, strict=True))
        for one in self.inner:
            part = getattr(value, one.name)
            if part is not None:
                said |= one.meeting.write(part)
        for name, follow in self.follows.items():
            said[name] = follow(value)
        return said

    @property
    def is_plain(self) -> bool:
        """Every field is the same on both sides: so it is with references, of which a list has the most."""
        return not self.written and not self.inner and not self.follows

    def write_plain(self, value: Any) -> dict[str, Any]:
        return dict(zip(self.said, self.take(value), strict=True))

    def read_plain(self, said: Any) -> Any:
        return self.kind(**dict(zip(self.names, self.take_said(said), strict=True)))

    def read(self, said: Any, placed: Mapping[str, object] = NOTHING) -> Any:
        """Return the value; `placed` is what the message does not say of it."""
        items = list(self.take_said(said))
        for place, read in self.read_:
            items[place] = read(items[place])
        for place, name, read in self.optional:
            items[place] = read(items[place]) if said.HasField(name) else None
        found = dict(zip(self.names, items, strict=True))
        if placed:
            found |= placed
        for one in self.inner:
            beside = {name: found[name] for name in one.spread.beside}
            found[one.name] = one.meeting.read(said, beside) if one.is_in(said) else None
        return self.kind(**found)


@functools.cache
def _meeting(kind: type, described: descriptor_.Descriptor) -> _Meeting:
    """Work out how the two meet; raises TypeError where a field of either side would be left out."""
    return _worked_out(kind, described, frozenset())


def _worked_out(kind: type, described: descriptor_.Descriptor, placed: frozenset[str]) -> _Meeting:
    spelling = spellings.SPELLINGS.get(kind, spellings.PLAIN)
    inner = tuple(_inner(kind, name, described, spread) for name, spread in spelling.spread.items())
    here = [field for field in dataclasses.fields(kind) if field.name not in {*spelling.spread, *placed}]
    names = {field.name: spelling.names.get(field.name, field.name) for field in here}
    taken = {*names.values(), *spelling.follows, *(each for one in inner for each in one.spread.names.values())}
    if taken != set(described.fields_by_name):
        left = ", ".join(sorted(taken ^ set(described.fields_by_name)))
        raise TypeError(f"{kind.__name__} and {described.full_name} do not both have {left}")
    return _of(kind, described, names, spelling, inner)


def _inner(outer: type, name: str, described: descriptor_.Descriptor, spread: spellings.Spread) -> _Inner:
    kind, _ = _unwrapped(_hints(outer)[name])
    own = {field.name for field in dataclasses.fields(kind)}
    if own != {*spread.names, *spread.beside}:
        raise TypeError(f"{outer.__name__}.{name}: {kind.__name__} has other fields than those spread")
    meeting = _of(kind, described, spread.names, spellings.PLAIN, ())
    return _Inner(name=name, spread=spread, meeting=meeting)


def _of(
    kind: type,
    described: descriptor_.Descriptor,
    names: Mapping[str, str],
    spelling: spellings.Spelling,
    inner: tuple[_Inner, ...],
) -> _Meeting:
    hints = _hints(kind)
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    written, read_, optional = [], [], []
    for place, (name, said) in enumerate(names.items()):
        hint, may_lack = _unwrapped(hints[name])
        if hint in PLAIN:
            continue
        there = described.fields_by_name[said]
        write, read = _way(hint, there, defaults[name], spelling.placed.get(name, NOTHING))
        written.append((place, write))
        if may_lack:
            optional.append((place, said, read))
        else:
            read_.append((place, read))
    return _Meeting(
        kind=kind,
        names=tuple(names),
        said=tuple(names.values()),
        take=_taker(tuple(names)),
        take_said=_taker(tuple(names.values())),
        written=tuple(written),
        read_=tuple(read_),
        optional=tuple(optional),
        inner=inner,
        follows=spelling.follows,
    )


def _taker(names: tuple[str, ...]) -> Callable[[Any], Sequence[Any]]:
    """Return what gets several attributes at once; attrgetter does it in one call, but of one it makes no tuple."""
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda one: [getattr(one, name) for name in names]


def _way(hint: Any, described: descriptor_.FieldDescriptor, default: object, placed: Mapping[str, object]) -> Way:
    """Return how a field of a type is written and read."""
    if typing.get_origin(hint) is tuple:
        return _several(typing.get_args(hint)[0], described, placed)
    if typing.get_origin(hint) is Mapping:
        return dict, dict
    if hint is labels_.Labels:
        return lambda labels: dict(labels.items()), labels_.Labels
    return _one(hint, described, default, placed)


def _several(kind: Any, described: descriptor_.FieldDescriptor, placed: Mapping[str, object]) -> Way:
    if kind in PLAIN:
        return _same, tuple
    write, read = _one(kind, described, dataclasses.MISSING, placed)
    return lambda items: [write(one) for one in items], lambda items: tuple([read(one) for one in items])


def _one(kind: Any, described: descriptor_.FieldDescriptor, default: object, placed: Mapping[str, object]) -> Way:
    if kind == net.Address:
        return str, _reader(_address, described.name)
    if kind == net.Network:
        return str, _reader(ipaddress.ip_network, described.name)
    if issubclass(kind, enum.Enum):
        return spellings.of, _members(kind, described.name, default)
    return _messages(kind, described, placed)


def _address(text: str) -> net.Address:
    """Read an address; `ipaddress.ip_address` tries the other family first, which is half of a large list's time."""
    return ipaddress.IPv6Address(text) if ":" in text else ipaddress.IPv4Address(text)


def _messages(kind: type, described: descriptor_.FieldDescriptor, placed: Mapping[str, object]) -> Way:
    if described.message_type is None:
        raise TypeError(f"{described.full_name} is no message, and {kind.__name__} needs one")
    if not placed:
        meeting = _meeting(kind, described.message_type)
        return (meeting.write_plain, meeting.read_plain) if meeting.is_plain else (meeting.write, meeting.read)
    meeting = _worked_out(kind, described.message_type, frozenset(placed))
    return meeting.write, lambda said: meeting.read(said, placed)


def _reader(read: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    def reading(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise errors.InvalidInput(field=name, value=text, remedy=VERSIONS_DIFFER) from error

    return reading


def _members(kind: type[enum.Enum], name: str, default: object) -> Callable[[str], Any]:
    """Return what reads a member; what an older version does not say at all is the field's default, if it has one."""
    known: dict[str, object] = {spellings.of(member): member for member in kind}
    if default is not dataclasses.MISSING:
        known[""] = default

    def reading(text: str) -> object:
        try:
            return known[text]
        except KeyError as error:
            raise errors.InvalidInput(field=name, value=text, remedy=VERSIONS_DIFFER) from error

    return reading


def _same(item: object) -> object:
    return item


def _unwrapped(hint: Any) -> tuple[Any, bool]:
    """Return the type of a field, and whether it may be None."""
    arguments = typing.get_args(hint)
    if type(None) not in arguments:
        return hint, False
    (kind,) = (one for one in arguments if one is not type(None))
    return kind, True


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
