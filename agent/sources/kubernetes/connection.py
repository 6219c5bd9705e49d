"""Requests of one resource to the API server, one at a time, each of which ends.

Every way a request can hang has an end: connecting and each read by time-outs of the socket, a page that trickles and
a watch that is open and says nothing by `deadline_ns`, which the event loop looks at and upon which it calls `abort`.
Nothing is repeated here: `reflector` decides what follows from a failure.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Generator, Iterator
from typing import Any, Protocol
from urllib import parse

from agent import clock as clock_
from agent.sources.kubernetes import access, api, wire

CONNECT_S = 5.0
"""A ClusterIP without kube-proxy swallows packets: without a limit a connect takes 130 s."""
READ_S = 30.0
"""Between two reads of a page."""
PAGE_S = 60.0
"""For a whole page."""
IDLE_S = 100.0
"""A watch that is silent for longer is dead: the server sends a bookmark every 60 to 75 s [Kubernetes 1.35]."""
WATCH_S = 300.0
"""The server ends a watch after this, or up to twice as long: chosen at random, lest all agents resume at once."""
PAGE_BYTES_MAX = 256 * 1024 * 1024
LINE_BYTES_MAX = 16 * 1024 * 1024
"""etcd takes objects of 1.5 MiB."""
USER_AGENT = "nodewall-agent"
_CHUNK_BYTES = 256 * 1024
_ERROR_BYTES_MAX = 64 * 1024
_OK = 200
_UNAUTHORIZED = 401
_NOT_FOUND = 404
_GONE = (400, 410)
"""400 is what a version of another server gets."""
_TOO_LARGE = "Too large resource version"
"""A version from the future: etcd was restored from a backup."""


class Failed(Exception):  # noqa: N818 - states what became of the request; it ends in the reflector
    """A request did not succeed; try again after `asked_s` (0: the server did not say) or later."""

    def __init__(self, reason: str, *, asked_s: float = 0.0) -> None:
        """Say what happened."""
        super().__init__(reason)
        self.asked_s = asked_s


class Gone(Failed):
    """The version, or the continue token, is one the server does not have: list again from the beginning."""


class NotServed(Failed):
    """The server knows no such resource: its CustomResourceDefinition is not there."""


class Idle(Failed):
    """The watch said nothing for too long."""


class Connection(Protocol):
    """What a reflector needs; one thread uses it, except for `abort` and `deadline_ns`."""

    deadline_ns: int
    """When the request under way counts as hanging, nanoseconds of the monotonic clock; 0 for none."""

    def page(self, *, limit: int, continue_: str) -> bytes:
        """Return one page of the list. Raises Failed."""

    def watch(self, *, version: str) -> contextlib.AbstractContextManager[Iterator[bytes]]:
        """Return the lines of a watch from `version` on, once the server has begun it. Raises Failed."""

    def abort(self) -> None:
        """Break the request under way, if its answer has begun; from any thread."""

    def close(self) -> None:
        """Give back what it holds."""


class HTTPConnection:
    """Connection over the client's transport."""

    def __init__(
        self, resource: api.Resource, *, access_: access.Access, clock: clock_.Clock, idle_s: float = IDLE_S
    ) -> None:
        """Connect to nothing yet."""
        self._resource = resource
        self._access = access_
        self._clock = clock
        self._idle_s = idle_s
        self._configuration: Any = None
        self._transport: Any = None
        self._response: Any = None
        self._server = ""
        self.deadline_ns = 0

    def page(self, *, limit: int, continue_: str) -> bytes:
        """Return one page; without `resourceVersion`, so that the server must not answer from a stale cache."""
        query = {"limit": str(limit)} | ({"continue": continue_} if continue_ else {})
        with self._open(query, read_s=READ_S, whole_s=PAGE_S) as chunks:
            content = bytearray()
            for chunk in chunks:
                content += chunk
                if len(content) > PAGE_BYTES_MAX:
                    raise Failed(f"a page of {self._resource.value} is larger than {PAGE_BYTES_MAX} bytes")
            return bytes(content)

    @contextlib.contextmanager
    def watch(self, *, version: str) -> Generator[Iterator[bytes], None, None]:
        """Watch; each line moves the deadline."""
        seconds = round(WATCH_S * (1 + random.random()))  # noqa: S311 - jitter
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        with self._open(query, read_s=self._idle_s, whole_s=self._idle_s) as chunks:
            yield self._lines(chunks)

    def abort(self) -> None:
        """Shut the socket of the answer under way."""
        response = self._response
        if response is not None:
            # It may end at this moment, or be a plain socket's or a TLS one's: whatever it raises, it is broken.
            with contextlib.suppress(Exception):
                response.shutdown()

    def close(self) -> None:
        """Give the connection back; only by the thread that uses it. The next request opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _lines(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Put lines together; what an answer ends with that is no whole line is dropped: it will be told again."""
        rest = b""
        for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._extend(self._idle_s)
                if line.strip():
                    yield line
            if len(rest) > LINE_BYTES_MAX:
                raise Failed(f"an event of {self._resource.value} is larger than {LINE_BYTES_MAX} bytes")

    @contextlib.contextmanager
    def _open(self, query: dict[str, str], *, read_s: float, whole_s: float) -> Generator[Iterator[bytes], None, None]:
        """Send a GET and give the body in pieces, as they come. Raises Failed, also out of the body."""
        self._extend(whole_s)
        try:
            response = self._request(query, read_s)
            self._response = response
            try:
                if response.status != _OK:
                    raise self._refusal(response)
                yield self._chunks(response)
            finally:
                self._response = None
                # One that was read to its end has given its connection back already.
                response.close()
        finally:
            self.deadline_ns = 0

    def _request(self, query: dict[str, str], read_s: float) -> Any:
        """Return the answer as urllib3 has it, its body unread."""
        try:
            if self._transport is None:
                self._configuration = self._access.configuration()
                self._transport = self._access.transport(self._configuration)
                # A service account's hook puts the ClusterIP back whenever it is asked for the token.
                self._server = self._configuration.host
            credentials = [(one["key"], one["value"]) for one in self._configuration.auth_settings().values()]
            headers = {"Accept": "application/json", "User-Agent": USER_AGENT} | dict(credentials)
            url = f"{self._server}{self._resource.path}?{parse.urlencode(query)}"
            return self._transport.request("GET", url, headers=headers, _request_timeout=(CONNECT_S, read_s)).response
        except access.Unusable as error:
            raise Failed(f"the credentials cannot be used: {error}") from error
        except Exception as error:  # the transport's errors, and those of its credentials' files and plugins
            raise Failed(f"{type(error).__name__}: {error}") from error

    def _chunks(self, response: Any) -> Iterator[bytes]:
        """Read the body."""
        try:
            yield from response.stream(_CHUNK_BYTES, decode_content=True)
        except Exception as error:  # the transport's errors, and what a socket raises that `abort` shuts
            late = 0 < self.deadline_ns <= self._clock.monotonic_ns()
            if late or type(error).__name__ == "ReadTimeoutError":
                raise Idle(f"nothing came for too long ({type(error).__name__})") from error
            raise Failed(f"{type(error).__name__}: {error}") from error

    def _refusal(self, response: Any) -> Failed:
        """Read what a server says that does not do what it was asked."""
        content = b"".join(itertools.islice(self._chunks(response), 1))[:_ERROR_BYTES_MAX]
        status = wire.status(content)
        text = f"{response.status} {status.reason}: {status.message}"
        if response.status == _UNAUTHORIZED:
            # The token may have been replaced a moment ago, the certificates too.
            self.close()
        return gone_or_failed(response.status, text, asked_s=_seconds(response.headers.get("Retry-After")))

    def _extend(self, seconds: float) -> None:
        self.deadline_ns = self._clock.monotonic_ns() + round(seconds * 1e9)


def gone_or_failed(code: int, text: str, *, asked_s: float = 0.0) -> Failed:
    """Build the exception for a refusal, which came as a status or as an event of a watch."""
    if code in _GONE or _TOO_LARGE in text:
        return Gone(text)
    if code == _NOT_FOUND:
        return NotServed(text)
    return Failed(text, asked_s=asked_s)


def _seconds(text: str | None) -> float:
    """Read Retry-After in seconds; the form with a date is not used by the API."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else 0.0
