"""Values to messages and back by the names of their fields, for messages that say what the value says and no more.

The problem: a pair of functions a message is forgotten in one place or the other as soon as a field is added. The rule:
a dataclass and its message have the same field names, and the types say the rest; a test goes over all of them. What is
older, and called otherwise on the wire, has its pair in `convert`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import ipaddress
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf import message as message_

from agent import errors
from agent.model import net
from agent.rpc import convert, views

Message = TypeVar("Message", bound=message_.Message)
Value = TypeVar("Value")

TO: Mapping[type, Callable[[Any], message_.Message]] = {
    views.Endpoint: convert.endpoint_message,
    views.Identity: convert.identity_message,
    views.Policy: convert.policy_message,
}
FROM: Mapping[type, Callable[[Any], Any]] = {
    views.Endpoint: convert.endpoint,
    views.Identity: convert.identity,
    views.Policy: convert.policy,
}


def message(value: object, kind: type[Message]) -> Message:
    """Return the message of `kind` that says what `value` does."""
    return _fill(kind(), value)


def value(said: message_.Message, kind: type[Value]) -> Value:
    """Read a value of the dataclass `kind`; raises InvalidInput for an address that is none."""
    hints = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # the docstring says so
        fields[field.name] = _read(said, field.name, hints[field.name])
    return kind(**fields)


def _fill(into: Message, value: object) -> Message:
    for field in dataclasses.fields(value):  # type: ignore[arg-type]  # see `value`
        item = getattr(value, field.name)
        match item:
            case None:
                continue
            case tuple():
                repeated = getattr(into, field.name)
                for one in item:
                    if dataclasses.is_dataclass(one):
                        _put(repeated.add(), one)
                    else:
                        repeated.append(_scalar(one))
            case Mapping():
                getattr(into, field.name).update({str(key): _scalar(one) for key, one in item.items()})
            case _ if dataclasses.is_dataclass(item):
                part = getattr(into, field.name)
                part.SetInParent()
                _put(part, item)
            case _:
                setattr(into, field.name, _scalar(item))
    return into


def _put(into: message_.Message, value: object) -> None:
    made = TO.get(type(value))
    if made is not None:
        into.CopyFrom(made(value))
    else:
        _fill(into, value)


def _scalar(value: object) -> object:
    match value:
        case enum.Enum():
            return value.name.lower()
        case bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _read(said: message_.Message, name: str, hint: Any) -> Any:
    item = getattr(said, name)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(_one(one, arguments[0]) for one in item)
    if origin is collections.abc.Mapping:
        return dict(item)
    if type(None) in arguments:
        (kind,) = (one for one in arguments if one is not type(None))
        return _one(item, kind) if said.HasField(name) else None
    return _one(item, hint)


def _one(item: Any, kind: Any) -> Any:
    try:
        if kind == net.Address:
            return ipaddress.ip_address(item)
        if kind == net.Network:
            return ipaddress.ip_network(item)
    except ValueError as error:
        raise errors.InvalidInput(field="address", value=item, remedy=convert.VERSIONS_DIFFER) from error
    made = FROM.get(kind)
    if made is not None:
        return made(item)
    return value(item, kind) if isinstance(kind, type) and dataclasses.is_dataclass(kind) else item
