"""Sends Events (core/v1) about policies: one is created, or the one that is there is counted up.

The rights this needs are `create` and `patch` of events, no `get`: what the server has is learned from its answers.
Each request ends by time-outs, nothing is repeated here, and `notices` decides what follows from a failure.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any, Protocol
from urllib import parse

import msgspec

from agent import clock as clock_
from agent.sources.kubernetes import access, api, connection, notices, wire

COMPONENT = "nodewall"
REASON = "NotHonoured"
CLUSTER_WIDE = "default"
"""The namespace of Events about what has none; the API server takes no other."""
CONNECT_S = 3.0
READ_S = 5.0
_ANSWER_BYTES_MAX = 64 * 1024
_CREATED = (200, 201)
_NOT_FOUND = 404
_CONFLICT = 409
_UNAUTHORIZED = 401
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_API_VERSIONS = {one.kind: one.api_version for one in api.POLICIES}


class Sender(Protocol):
    """Sends; blocks for CONNECT_S and READ_S at most, twice."""

    def send(self, notice: notices.Notice) -> int:
        """Have the Event at the server, and return how often it was told. Raises connection.Failed."""


class _Counted(msgspec.Struct):
    """What is read of an Event."""

    count: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes


class EventSender:
    """Sender over the client's transport, with a connection of its own; for one thread at a time."""

    def __init__(self, *, access_: access.Access, node: str, clock: clock_.Clock) -> None:
        """Connect to nothing yet."""
        self._access = access_
        self._node = node
        self._clock = clock
        self._configuration: Any = None
        self._transport: Any = None
        self._server = ""

    def send(self, notice: notices.Notice) -> int:
        """Create the Event, or where it was told before, by us or another, count it up."""
        if notice.count:
            answer = self._patch(notice, {"count": notice.count + 1})
            if answer.status != _NOT_FOUND:
                return self._counted(answer)
        answer = self._request("POST", _path(notice), body(notice, node=self._node, at=self._now()))
        if answer.status == _CONFLICT:
            # Another node's, or ours of before a restart: its count is in the answer.
            answer = self._patch(notice, {})
        return self._counted(answer)

    def close(self) -> None:
        """Give the connection back; the next request opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _patch(self, notice: notices.Notice, more: Mapping[str, object]) -> _Answer:
        path = f"{_path(notice)}/{parse.quote(notice.name, safe='')}"
        return self._request("PATCH", path, {"lastTimestamp": self._now(), **more}, _MERGE_PATCH)

    def _counted(self, answer: _Answer) -> int:
        if answer.status not in _CREATED:
            said = wire.status(answer.content)
            raise connection.Failed(f"{answer.status} {said.reason}: {said.message}")
        try:
            return msgspec.json.decode(answer.content, type=_Counted).count
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise connection.Failed(f"the answer is no Event: {error}") from error

    def _request(self, method: str, path: str, body_: object, content_type: str = _JSON) -> _Answer:
        try:
            if self._transport is None:
                self._configuration = self._access.configuration()
                self._transport = self._access.transport(self._configuration)
                # A service account's hook puts the ClusterIP back whenever it is asked for the token.
                self._server = self._configuration.host
            credentials = {one["key"]: one["value"] for one in self._configuration.auth_settings().values()}
            headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": connection.USER_AGENT}
            response = self._transport.request(
                method,
                f"{self._server}{path}",
                headers=headers | credentials,
                body=body_,
                _request_timeout=(CONNECT_S, READ_S),
            ).response
            try:
                answer = _Answer(response.status, response.read(_ANSWER_BYTES_MAX, decode_content=True))
            finally:
                response.close()
        except access.Unusable as error:
            raise connection.Failed(f"the credentials cannot be used: {error}") from error
        except Exception as error:  # the transport's errors, and those of its credentials' files and plugins
            self.close()
            raise connection.Failed(f"{type(error).__name__}: {error}") from error
        if answer.status == _UNAUTHORIZED:
            self.close()
        return answer

    def _now(self) -> str:
        return stamp(self._clock.unix_ns())


def body(notice: notices.Notice, *, node: str, at: str) -> dict[str, object]:
    """Write an Event; `at` as `stamp` writes it."""
    policy = notice.policy
    about = {"apiVersion": _API_VERSIONS[policy.kind], "kind": policy.kind, "name": policy.name}
    if policy.namespace:
        about["namespace"] = policy.namespace
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": notice.name, "namespace": policy.namespace or CLUSTER_WIDE},
        "involvedObject": about | ({"uid": notice.uid} if notice.uid else {}),
        "type": "Warning",
        "reason": REASON,
        "message": notice.message,
        "source": {"component": COMPONENT, "host": node},
        "reportingComponent": COMPONENT,
        "reportingInstance": node,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


def stamp(unix_ns: int) -> str:
    """Write a time as the API does: RFC 3339, whole seconds, UTC."""
    return dt.datetime.fromtimestamp(unix_ns // 1_000_000_000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _path(notice: notices.Notice) -> str:
    return f"/api/v1/namespaces/{parse.quote(notice.policy.namespace or CLUSTER_WIDE, safe='')}/events"
