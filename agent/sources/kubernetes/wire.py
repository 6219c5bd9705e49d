"""The JSON around the objects: pages of lists, events of watches, and what a server says when it refuses.

Objects stay raw bytes here; `objects` reads them. What is not JSON, or lacks what every answer has, is a server or a
proxy that does not speak the protocol: NotTheAPI, upon which the request is repeated later and the last state stays.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec


class NotTheAPI(Exception):  # noqa: N818 - states what answered; `connection.Failed` is what leaves this package's threads
    """An answer is not what the API sends."""


class Meta(msgspec.Struct, gc=False, rename="camel"):
    """What is read of the metadata of a list or of any object."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _PageMeta(msgspec.Struct, gc=False, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, gc=False):
    """One page of a list."""

    metadata: _PageMeta
    items: list[msgspec.Raw] | None = None
    """None where a server writes null for no items."""


class Event(msgspec.Struct, gc=False):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Head(msgspec.Struct, gc=False):
    """Any object: what it is called, and its version."""

    metadata: Meta


class Status(msgspec.Struct, gc=False):
    """Why something was refused: the body of an error, or of an event ERROR."""

    code: int = 0
    reason: str = ""
    message: str = ""


Shape = TypeVar("Shape", Page, Event, Head, Status)


def read(content: bytes | msgspec.Raw, shape: type[Shape]) -> Shape:
    """Read JSON into one of the shapes above. Raises NotTheAPI."""
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotTheAPI(f"the answer is no {shape.__name__} of the Kubernetes API: {error}") from error


def status(content: bytes) -> Status:
    """Read the body of an error, which may come from a proxy and be anything."""
    try:
        return read(content, Status)
    except NotTheAPI:
        return Status(message=content[:200].decode(errors="replace"))
