"""The thread that asks, against a real gRPC server that speaks the wire."""

from __future__ import annotations

import concurrent.futures
import contextlib
import pathlib
import queue
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from agent import clock, errors, patience
from agent.node import joining
from agent.node.cri import client, messages, runtime
from tests.node.cri import answers, test_crosscheck

WAIT_S = 10.0


class Server:
    """A container runtime that answers what it is told to, and writes down what it was asked."""

    def __init__(self) -> None:
        """Know no sandbox."""
        self.listing = b""
        self.statuses: dict[bytes, bytes] = {}
        self.lists = 0
        self.asked: list[bytes] = []

    def _list(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        assert request == messages.LIST_READY
        self.lists += 1
        return self.listing

    def _status(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(request)
        if request not in self.statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such sandbox")
        return self.statuses[request]

    def know(self, key: str, status: bytes) -> None:
        self.listing += answers.listing(answers.sandbox(key))
        self.statuses[messages.status_request(key)] = status

    @contextlib.contextmanager
    def serving(self, socket: pathlib.Path) -> Iterator[None]:
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            served = grpc.server(pool)
            methods = {messages.LIST: self._list, messages.STATUS: self._status}
            handlers = {
                name.rpartition("/")[2]: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()
            }
            service = grpc.method_handlers_generic_handler(messages.SERVICE.strip("/"), handlers)
            served.add_generic_rpc_handlers((service,))
            served.add_insecure_port(f"unix://{socket}")
            served.start()
            try:
                yield
            finally:
                served.stop(None).wait()


@pytest.fixture
def socket(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "cri.sock"


@contextlib.contextmanager
def watching(socket: pathlib.Path) -> Iterator[tuple[runtime.RuntimeWatch, Callable[[Callable[[], bool]], None]]]:
    """Run the thread; the second value waits until something holds, looking each time the thread says so."""
    watch = runtime.RuntimeWatch(socket, clock=clock.SystemClock())
    changes: queue.SimpleQueue[int] = queue.SimpleQueue()

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + patience.seconds(WAIT_S)
        while not holds():
            assert changes.get(timeout=deadline - time.monotonic()) != threading.get_ident()

    with watch.running(lambda: changes.put(threading.get_ident())):
        yield watch, until


def test_a_sandbox_that_the_cache_does_not_know_comes_from_the_runtime(socket: pathlib.Path) -> None:
    server = Server()
    server.know("c-a", answers.status("c-a"))
    with server.serving(socket), watching(socket) as (watch, until):
        until(lambda: bool(watch.view(()).attachments))
        assert watch.view(()).attachments == (test_crosscheck.CACHED,)
        assert len(server.asked) == 1


def test_what_the_cache_explains_is_never_asked(socket: pathlib.Path) -> None:
    server = Server()
    server.know("c-a", answers.status("c-a"))
    with server.serving(socket), watching(socket) as (watch, until):
        watch.view((test_crosscheck.CACHED,))
        until(lambda: "c-a" in watch.state.known.listed)
        watch.expect()
        time.sleep(2 * runtime.EXPECTED_S)
        assert (watch.view((test_crosscheck.CACHED,)).attachments, server.asked) == ((), [])


def test_a_sandbox_that_is_expected_is_listed_sooner_and_once(socket: pathlib.Path) -> None:
    server = Server()
    with server.serving(socket), watching(socket) as (watch, until):
        until(lambda: watch.state.known.lists > 0 or not watch.state.error)
        while not server.lists:
            time.sleep(0.01)
        lists = server.lists
        server.know("c-a", answers.status("c-a"))
        for _ in range(20):
            watch.expect()
        until(lambda: "c-a" in watch.state.known.listed)
        assert server.lists <= lists + 2, "this one and the one of every second"


def test_a_runtime_that_goes_away_changes_nothing_and_is_asked_again(socket: pathlib.Path) -> None:
    server = Server()
    server.know("c-a", answers.status("c-a"))
    with watching(socket) as (watch, until):
        until(lambda: "UNAVAILABLE" in watch.state.error)
        assert watch.view(()) == joining.RuntimeView()
        with server.serving(socket):
            until(lambda: bool(watch.view(()).attachments))
            assert watch.state.error == ""
        until(lambda: bool(watch.state.error))
        assert watch.view(()).attachments == (test_crosscheck.CACHED,)
        with server.serving(socket):
            until(lambda: not watch.state.error)
        assert watch.state.failures > 0


def test_answers_that_cannot_be_read_are_told_and_change_nothing(socket: pathlib.Path) -> None:
    server = Server()
    server.know("c-a", b"\xff")
    with server.serving(socket), watching(socket) as (watch, until):
        until(lambda: bool(watch.view(()).problems))
        (problem,) = watch.view(()).problems
        assert "cannot be read" in problem.reason
        server.listing = b"\xff"
        until(lambda: "cannot be read" in watch.state.error)
        assert "c-a" in watch.state.known.listed


def test_a_sandbox_that_is_not_there_is_no_error(socket: pathlib.Path) -> None:
    with Server().serving(socket), client.Client(socket) as asked:
        assert asked.status("nobody") is None


def test_a_runtime_of_another_cri_is_told(socket: pathlib.Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        served = grpc.server(pool)
        served.add_insecure_port(f"unix://{socket}")
        served.start()
        with client.Client(socket) as asked, pytest.raises(errors.Unreachable, match="UNIMPLEMENTED"):
            asked.list()
        served.stop(None).wait()


def test_it_ends_at_once_though_nobody_answers(socket: pathlib.Path) -> None:
    before = threading.active_count()
    begun = time.monotonic()
    with watching(socket):
        pass
    assert time.monotonic() - begun < runtime.CLOSE_WAIT_S
    assert threading.active_count() <= before
