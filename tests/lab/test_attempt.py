"""Servers and tries over loopback, without any namespace."""

from __future__ import annotations

import json
import pathlib
import selectors
import socket
import threading
from typing import Any

import pytest

from agent.lab import attempt, pod


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, int]:
    """Start a server in a thread; it ends with the process."""
    path, port = tmp_path_factory.mktemp("s") / "s", _free_port()
    server = pod.Server(name="x/a", path=str(path), ports=[(port, "TCP"), (port, "UDP")])
    threading.Thread(target=server.serve, daemon=True).start()
    return path, port


def _order(path: pathlib.Path, *probes: dict[str, Any], timeout_s: float = 2.0) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(json.dumps({"timeout_s": timeout_s, "probes": probes}).encode() + b"\n")
        received = b""
        while not received.endswith(b"\n"):
            received += connection.recv(65536)
        answers: list[dict[str, Any]] = json.loads(received)
        return answers


def _probe(port: int, protocol: str, address: str = "127.0.0.1", *, connected: bool = True) -> dict[str, Any]:
    return {"address": address, "port": port, "protocol": protocol, "connected": connected}


def test_the_server_answers_with_its_name(served: tuple[pathlib.Path, int]) -> None:
    path, port = served
    addresses = "127.0.0.1", "::1", "::ffff:127.0.0.1"
    probes = [_probe(port, protocol, address) for protocol in ("TCP", "UDP") for address in addresses]
    answers = _order(path, *probes, _probe(port, "UDP", connected=False))
    assert [answer["answered_by"] for answer in answers] == ["x/a"] * 7
    assert all(answer["allowed"] and answer["errno"] == 0 for answer in answers)


def test_the_order_of_the_answers_is_that_of_the_probes(served: tuple[pathlib.Path, int]) -> None:
    path, port = served
    closed = _free_port()
    answers = _order(path, _probe(closed, "TCP"), _probe(port, "TCP"), _probe(closed, "UDP"), _probe(port, "UDP"))
    assert [answer["allowed"] for answer in answers] == [False, True, False, True]


def test_nobody_there_is_an_errno_and_silence_a_time_out(served: tuple[pathlib.Path, int]) -> None:
    path, _port = served
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        answers = _order(path, _probe(silent.getsockname()[1], "UDP"), _probe(_free_port(), "TCP"), timeout_s=0.2)
    assert [answer["errno"] for answer in answers] == [110, 111]
    assert 200 <= answers[0]["milliseconds"] < 2000


def test_an_empty_order_is_answered(served: tuple[pathlib.Path, int]) -> None:
    assert _order(served[0]) == []


def test_an_order_may_be_long(served: tuple[pathlib.Path, int]) -> None:
    path, port = served
    answers = _order(path, *[_probe(port, "UDP")] * 2000, timeout_s=30.0)
    assert len(answers) == 2000
    assert sum(answer["allowed"] for answer in answers) == 2000


def test_tcp_connections_echo_for_as_long_as_they_last(served: tuple[pathlib.Path, int]) -> None:
    with socket.create_connection(("127.0.0.1", served[1]), timeout=5) as connection:
        stream = connection.makefile("rb")
        assert stream.readline() == b"x/a\n"
        for line in (b"one\n", b"two\n"):
            connection.sendall(line)
            assert stream.readline() == line
        stream.close()


def test_an_idle_prober_sleeps_for_ever() -> None:
    with selectors.DefaultSelector() as selector:
        assert attempt.Attempts(selector).patience_s() is None
