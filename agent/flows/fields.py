"""Reads the JSON of Hubble's flow.Flow member by member; everything in it comes from a stranger.

protobuf's mapping leaves out what is zero, so an absent member is that; a member of another type is refused by its
path, never passed over. Text that UTF-8 cannot say is refused as well: whoever prints it later would fail.
"""

from __future__ import annotations

import calendar
import datetime as dt
import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agent.model import net

TEXT_MOST = 16 * 1024
"""Characters of one text."""
LIST_MOST = 4096
"""Members of one list."""
SECOND_NS = 1_000_000_000
MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


class Malformed(Exception):  # noqa: N818 - states what the member is
    """A member is not what flow.proto makes of it; the text says where and what is wrong."""


class Object:
    """A JSON object at a path; absent ones are empty."""

    __slots__ = ("_members", "path")

    def __init__(self, value: object, path: str) -> None:
        """Raise Malformed for anything but an object."""
        if not isinstance(value, Mapping):
            raise Malformed(f"{path or 'the line'} is {kind(value)}, not an object")
        self._members: Mapping[str, Any] = value
        self.path = path

    def __contains__(self, name: str) -> bool:
        """Tell whether a member is there and not null."""
        return self._members.get(name) is not None

    def object(self, name: str) -> Object:
        """Return an object."""
        value = self._members.get(name)
        return Object({} if value is None else value, self._path(name))

    def objects(self, name: str) -> Iterator[Object]:
        """Yield the objects of a list."""
        for place, value in enumerate(self._list(name)):
            yield Object(value, f"{self._path(name)}[{place}]")

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._members.get(name)
        return "" if value is None else _text(value, self._path(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list."""
        return tuple(_text(value, f"{self._path(name)}[{place}]") for place, value in enumerate(self._list(name)))

    def number(self, name: str, *, most: int) -> int:
        """Return a whole number from 0 to `most`; protobuf writes 64 bits as a text of digits."""
        value = self._members.get(name)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(most)):
            value = int(value)
        if value is None:
            return 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise Malformed(f"{self._path(name)} is no whole number from 0 to {most}")
        return value

    def truth(self, name: str) -> bool:
        """Return true or false."""
        value = self._members.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise Malformed(f"{self._path(name)} is {kind(value)}, not true or false")
        return value

    def member(self, name: str, names: Mapping[str, int]) -> int:
        """Return the number of an enum's member, which may be written as either; -1 for a name that is not known."""
        value = self._members.get(name)
        if isinstance(value, str):
            return names.get(value, -1)
        return self.number(name, most=2**31 - 1)

    def address(self, name: str) -> net.Address | None:
        """Return an address, or None where there is none; IPv4 in IPv6 becomes IPv4 (rule A24)."""
        text = self.text(name)
        if not text:
            return None
        try:
            return net.normalize(ipaddress.ip_address(text))
        except ValueError as error:
            raise Malformed(f"{self._path(name)} is no address") from error

    def time_ns(self, name: str) -> int:
        """Return a moment (RFC 3339) in nanoseconds since 1970."""
        found = MOMENT.fullmatch(self.text(name))
        if found is None:
            raise Malformed(f"{self._path(name)} is no moment, such as 2026-11-21T14:16:42.133Z")
        whole, fraction, zone = found.groups()
        try:
            moment = dt.datetime.fromisoformat(whole + ("+00:00" if zone == "Z" else zone))
            seconds = calendar.timegm(moment.utctimetuple())
        except (ValueError, OverflowError) as error:
            raise Malformed(f"{self._path(name)} is no moment of the calendar") from error
        return seconds * SECOND_NS + int((fraction or "0").ljust(9, "0"))

    def _list(self, name: str) -> list[Any]:
        value = self._members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > LIST_MOST:
            raise Malformed(f"{self._path(name)} is {kind(value)}, not a list of at most {LIST_MOST}")
        return value

    def _path(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def kind(value: object) -> str:
    """Return what JSON calls a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{path} is {kind(value)}, not a text")
    if len(value) > TEXT_MOST:
        raise Malformed(f"{path} is longer than {TEXT_MOST} characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Malformed(f"{path} has half a surrogate pair") from error
    return value
