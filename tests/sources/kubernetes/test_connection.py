"""Requests over HTTP: every way one can end is one of few, and every one ends."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from agent import clock
from agent.sources.kubernetes import access, api, connection
from tests.sources.kubernetes import server

STATUS = {"kind": "Status", "reason": "Because", "message": "so it is"}


@contextlib.contextmanager
def connected(between: server.Server, idle_s: float = 5.0) -> Iterator[tuple[connection.HTTPConnection, server.Plain]]:
    plain = server.Plain(between.url)
    made = connection.HTTPConnection(api.Resource.PODS, access_=plain, clock=clock.SystemClock(), idle_s=idle_s)
    try:
        yield made, plain
    finally:
        made.close()


def status(code: int, **headers: str) -> server.Server:
    body = json.dumps(STATUS | {"code": code}).encode()
    return server.Server(lambda request: request.say(body, status=code, headers=headers))


def hangs(request: server.Request) -> None:
    request.server.released.wait()


def test_a_page_is_asked_for_by_limit_and_token_over_one_connection() -> None:
    with server.Server(lambda request: request.say(b"{}")) as between, connected(between) as (made, _):
        assert made.page(limit=2, continue_="") == b"{}"
        assert made.page(limit=2, continue_="a b&c") == b"{}"
    assert [path for path, _ in between.requests] == ["/api/v1/pods?limit=2", "/api/v1/pods?limit=2&continue=a+b%26c"]
    _, headers = between.requests[0]
    assert headers["authorization"] == "bearer first"
    assert headers["accept"] == "application/json"
    assert headers["user-agent"] == connection.USER_AGENT
    assert len(between.clients) == 1


@pytest.mark.parametrize("code", [403, 404, 500, 503])
def test_a_refusal_says_what_the_server_said(code: int) -> None:
    with status(code) as between, connected(between) as (made, _):
        with pytest.raises(connection.Failed, match=f"{code} Because: so it is") as raised:
            made.page(limit=1, continue_="")
        assert not isinstance(raised.value, connection.Gone)


@pytest.mark.parametrize("code", [410, 400])
def test_a_version_or_token_the_server_does_not_have_is_gone(code: int) -> None:
    with status(code) as between, connected(between) as (made, _):
        with pytest.raises(connection.Gone):
            made.page(limit=1, continue_="x")
        with pytest.raises(connection.Gone), made.watch(version="1"):
            pass


def test_a_resource_the_server_does_not_know_is_not_served() -> None:
    with status(404) as between, connected(between) as (made, _):
        with pytest.raises(connection.NotServed):
            made.page(limit=1, continue_="")
        with pytest.raises(connection.NotServed), made.watch(version="1"):
            pass


def test_retry_after_is_read() -> None:
    with status(429, **{"Retry-After": "7"}) as between, connected(between) as (made, _):
        with pytest.raises(connection.Failed) as raised:
            made.page(limit=1, continue_="")
        assert raised.value.asked_s == 7.0


def test_after_401_the_credentials_are_read_anew() -> None:
    def answer(request: server.Request) -> None:
        good = request.headers["Authorization"] == "bearer second"
        request.say(b"{}", status=200 if good else 401)

    with server.Server(answer) as between, connected(between) as (made, plain):
        with pytest.raises(connection.Failed, match="401"):
            made.page(limit=1, continue_="")
        plain.token = "second"
        assert made.page(limit=1, continue_="") == b"{}"
        assert made.page(limit=1, continue_="") == b"{}"
        assert plain.read == 2


def test_a_redirect_is_not_followed_lest_the_token_go_elsewhere() -> None:
    with server.Server(lambda request: request.say(b"{}")) as elsewhere:
        headers = {"Location": f"{elsewhere.url}/api/v1/pods"}
        with (
            server.Server(lambda request: request.say(b"", status=302, headers=headers)) as between,
            connected(between) as (made, _),
            pytest.raises(connection.Failed, match="302"),
        ):
            made.page(limit=1, continue_="")
        assert elsewhere.requests == []


def test_a_body_that_breaks_off_fails() -> None:
    def answer(request: server.Request) -> None:
        request.begin()
        request.chunk(b'{"items":')
        request.close_connection = True

    with (
        server.Server(answer) as between,
        connected(between) as (made, _),
        pytest.raises(connection.Failed, match=r"Protocol|Incomplete|Chunk"),
    ):
        made.page(limit=1, continue_="")


def test_nobody_there_fails_and_is_not_repeated_here() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    plain = server.Plain(f"http://127.0.0.1:{port}")
    made = connection.HTTPConnection(api.Resource.PODS, access_=plain, clock=clock.SystemClock())
    with pytest.raises(connection.Failed, match="refused"):
        made.page(limit=1, continue_="")


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "READ_S", 0.2)
    with (
        server.Server(hangs) as between,
        connected(between) as (made, _),
        pytest.raises(connection.Failed, match="Timeout"),
    ):
        made.page(limit=1, continue_="")


def test_a_watch_gives_whole_lines_however_they_are_cut() -> None:
    def answer(request: server.Request) -> None:
        request.begin()
        for content in (b'{"a":', b"1}\n", b"{}\n{", b"}\n\n", b'{"half'):
            request.chunk(content)
        request.chunk(b"")

    with (
        server.Server(answer) as between,
        connected(between) as (made, _),
        made.watch(version="12") as lines,
    ):
        assert list(lines) == [b'{"a":1}', b"{}", b"{}"]
    path, _ = between.requests[0]
    assert path.startswith("/api/v1/pods?watch=1&allowWatchBookmarks=true&resourceVersion=12&timeoutSeconds=")
    assert connection.WATCH_S <= int(path.rpartition("=")[2]) <= connection.WATCH_S * 2


def test_a_line_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINE_BYTES_MAX", 1000)

    def answer(request: server.Request) -> None:
        request.begin()
        while not request.server.released.is_set():
            request.chunk(b"x" * 400)

    with (
        server.Server(answer) as between,
        connected(between) as (made, _),
        pytest.raises(connection.Failed, match="larger than 1000"),
        made.watch(version="1") as lines,
    ):
        list(lines)


def silent(request: server.Request) -> None:
    request.begin()
    request.chunk(b"{}\n")
    hangs(request)


def test_a_watch_that_falls_silent_is_idle() -> None:
    with (
        server.Server(silent) as between,
        connected(between, idle_s=0.2) as (made, _),
        pytest.raises(connection.Idle),
        made.watch(version="1") as lines,
    ):
        list(lines)


def test_a_watch_that_trickles_no_line_is_overdue_and_idle_when_it_is_aborted() -> None:
    def answer(request: server.Request) -> None:
        request.begin()
        while not request.server.released.wait(0.05):
            request.chunk(b" ")

    with (
        server.Server(answer) as between,
        connected(between, idle_s=0.3) as (made, _),
        made.watch(version="1") as lines,
    ):
        threading.Timer(0.5, made.abort).start()
        with pytest.raises(connection.Idle):
            list(lines)


def test_abort_ends_a_watch_at_once() -> None:
    with (
        server.Server(silent) as between,
        connected(between, idle_s=60) as (made, _),
        made.watch(version="1") as lines,
    ):
        assert made.deadline_ns > time.monotonic_ns()
        threading.Timer(0.1, made.abort).start()
        began = time.monotonic()
        with pytest.raises(connection.Failed):
            list(lines)
    assert time.monotonic() - began < 5
    assert made.deadline_ns == 0
    made.abort()


def test_a_server_that_was_set_stays_set_when_the_token_is_refreshed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("abc")
    (tmp_path / "ca.crt").write_text("a certificate")
    environment = {"KUBERNETES_SERVICE_HOST": "192.0.2.1", "KUBERNETES_SERVICE_PORT": "443"}
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    pod = access.Access(service_account=tmp_path, environment=environment, server=f"https://127.0.0.1:{port}")
    made = connection.HTTPConnection(api.Resource.PODS, access_=pod, clock=clock.SystemClock())
    for _ in range(2):
        with pytest.raises(connection.Failed, match=r"127\.0\.0\.1.*refused"):
            made.page(limit=1, continue_="")
    made.close()
