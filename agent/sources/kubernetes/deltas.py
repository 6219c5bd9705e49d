"""What the threads tell the event loop: immutable values, each about one resource."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

from agent import decode
from agent.sources.kubernetes import api

Key: TypeAlias = tuple[str, str]
"""Namespace and name; cluster-scoped objects have namespace ""."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One object as it was last seen."""

    version: str
    """metadata.resourceVersion: opaque, for equality and for resuming a watch only."""
    decoded: decode.Decoded


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A whole list: what is not in it is gone."""

    resource: api.Resource
    version: str
    entries: Mapping[Key, Entry]
    unix_ns: int
    """Wall clock when it was complete, nanoseconds since 1970; likewise below, when it arrived."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The server does not serve this resource, so there are no objects of it."""

    resource: api.Resource
    unix_ns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One object was added, changed or deleted."""

    resource: api.Resource
    version: str
    key: Key
    entry: Entry | None
    """None: it was deleted."""
    unix_ns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The watch has begun, or a bookmark came: the server is there, and all changes up to `version` have been told."""

    resource: api.Resource
    version: str
    unix_ns: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A request failed or a watch broke; it is being tried again."""

    resource: api.Resource
    reason: str
    unix_ns: int


Delta: TypeAlias = Listed | Absent | Changed | Heard | Lost
