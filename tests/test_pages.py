"""Pages over HTTP: what is asked for is answered, and nobody can hold the agent up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from agent import errors, pages

OK = "HTTP/1.1 200 OK"


@contextlib.asynccontextmanager
async def site() -> AsyncIterator[int]:
    def page(query: frozenset[str]) -> pages.Answer:
        return pages.Answer(content=f"page {sorted(query)}".encode())

    async with asyncio.timeout(20), pages.serving(host="127.0.0.1", port=0, pages={"/page": page}, flag="--x") as port:
        yield port


async def ask(port: int, request: bytes) -> tuple[str, dict[str, str], str]:
    """Return status line, fields and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


def asked(request: bytes) -> tuple[str, dict[str, str], str]:
    async def scenario() -> tuple[str, dict[str, str], str]:
        async with site() as port:
            return await ask(port, request)

    return asyncio.run(scenario())


def get(target: str, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def test_a_page_is_answered_whole_and_the_connection_closed() -> None:
    first, fields, body = asked(get("/page"))
    assert (first, body) == (OK, "page ['']")
    assert fields["Content-Length"] == str(len(body))
    assert fields["Connection"] == "close"


def test_a_page_is_told_the_names_in_the_query() -> None:
    assert asked(get("/page?verbose&x=1"))[2] == "page ['verbose', 'x']"


def test_head_is_get_without_the_body() -> None:
    first, fields, body = asked(get("/page", "HEAD"))
    assert (first, body, fields["Content-Length"]) == (OK, "", "9")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_every_other_method_is_405_and_says_which_there_are(method: str) -> None:
    first, fields, _ = asked(get("/page", method))
    assert first.startswith("HTTP/1.1 405 ")
    assert fields["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/other"), 404),
        (get("/page/"), 404),
        (get("/../page"), 404),
        (get("/%70age"), 404),
        (b"GET  /page HTTP/1.1\r\n\r\n", 400),
        (b"GET page HTTP/1.1\r\n\r\n", 400),
        (b"GET http://x/page HTTP/1.1\r\n\r\n", 400),
        (b"GET /page HTTP/2.0\r\n\r\n", 400),
        (b"get /page HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /page HTTP/1.1\r\nX: " + b"x" * pages.HEAD_BYTES_MAX + b"\r\n\r\n", 431),
    ],
)
def test_what_is_no_request_for_a_page_is_refused(request_: bytes, status: int) -> None:
    assert asked(request_)[0].startswith(f"HTTP/1.1 {status} ")


def test_an_endless_head_ends() -> None:
    async def scenario() -> None:
        async with site() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                while not writer.is_closing():
                    writer.write(b"x" * 4096)
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

    asyncio.run(scenario())


def test_who_says_nothing_is_left_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "REQUEST_S", 0.1)

    async def scenario() -> None:
        async with site() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /page HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_more_connections_than_there_may_be_are_closed_and_the_next_one_is_answered() -> None:
    async def scenario() -> None:
        async with site() as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(pages.CONNECTIONS_MAX)]
            with contextlib.suppress(ConnectionError):
                assert await ask(port, get("/page")) == ("", {}, "")
            for _, writer in silent:
                writer.close()
            while True:
                with contextlib.suppress(ConnectionError, ValueError):
                    if (await ask(port, get("/page")))[0] == OK:
                        return
                await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_an_address_that_is_taken_is_named_with_the_flag() -> None:
    async def scenario() -> None:
        async with site() as port:
            with pytest.raises(errors.InvalidInput, match=f"--y: '127.0.0.1:{port}'"):
                async with pages.serving(host="127.0.0.1", port=port, pages={}, flag="--y"):
                    pass

    asyncio.run(scenario())
