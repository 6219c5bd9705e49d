"""Pages for machines over plain HTTP: kubelet's probes and Prometheus's scrapes.

The problem: whoever reaches the port may send anything, for ever, and the agent has one event loop. The rule: nothing
but GET and HEAD of a known path; a bounded number of connections, a bounded head, one deadline for all of it, and one
answer a connection. A body is never read. Asyncio streams, not a thread: that a page is answered at all then shows that
the event loop runs.

It must not keep anything of a request, and what a page says comes whole from its function.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TypeAlias

from agent import errors

HEAD_BYTES_MAX = 8192
"""Request line and header fields."""
REQUEST_S = 5.0
"""From the connection to the end of the answer."""
CONNECTIONS_MAX = 16
"""At one time; one more is closed unanswered."""
TEXT = "text/plain; charset=utf-8"
_REQUEST = re.compile(rb"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.[01]")
_METHODS = ("GET", "HEAD")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a page says."""

    status: http.HTTPStatus = http.HTTPStatus.OK
    content: bytes
    content_type: str = TEXT


Page: TypeAlias = Callable[[frozenset[str]], Answer]
"""Given the parameters of the query that were there (`?verbose`), returns the answer; must return at once."""


@contextlib.asynccontextmanager
async def serving(*, host: str, port: int, pages: Mapping[str, Page], flag: str) -> AsyncGenerator[int, None]:
    """Answer `pages`, by path, inside the context, which is the port that is bound (`port`, unless that is 0).

    Raises InvalidInput naming `flag` where the address cannot be bound.
    """
    site = _Site(pages)
    try:
        server = await asyncio.start_server(site.connected, host, port, limit=HEAD_BYTES_MAX)
    except OSError as error:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        remedy = f"it cannot be bound ({error.strerror}); choose another, or 'none'"
        raise errors.InvalidInput(field=flag, value=address, remedy=remedy) from error
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        site.abort()


class _Site:
    """The pages, and who is being answered."""

    def __init__(self, pages: Mapping[str, Page]) -> None:
        self._pages = pages
        self._writers: set[asyncio.StreamWriter] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, or close the connection without a word."""
        if len(self._writers) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            async with asyncio.timeout(REQUEST_S):
                writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except asyncio.LimitOverrunError:
            writer.write(_response(_short(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)))
            writer.close()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    def abort(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        found = _REQUEST.fullmatch(head.partition(b"\r\n")[0])
        if found is None:
            return _response(_short(http.HTTPStatus.BAD_REQUEST))
        method, target = found[1].decode(), found[2].decode()
        path, _, query = target.partition("?")
        page = self._pages.get(path)
        if page is None:
            answer = _short(http.HTTPStatus.NOT_FOUND)
        elif method not in _METHODS:
            answer = _short(http.HTTPStatus.METHOD_NOT_ALLOWED)
        else:
            answer = page(frozenset(part.partition("=")[0] for part in query.split("&")))
        return _response(answer, body=method != "HEAD")


def _short(status: http.HTTPStatus) -> Answer:
    return Answer(status=status, content=f"{status.phrase}\n".encode())


def _response(answer: Answer, *, body: bool = True) -> bytes:
    fields = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.content)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Connection": "close",
    }
    if answer.status is http.HTTPStatus.METHOD_NOT_ALLOWED:
        fields["Allow"] = ", ".join(_METHODS)
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{name}: {fields[name]}" for name in fields)]
    head = "".join(f"{line}\r\n" for line in lines)
    return f"{head}\r\n".encode() + (answer.content if body else b"")
