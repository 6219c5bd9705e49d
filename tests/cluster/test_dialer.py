"""What runs in pods, tried on loopback: it sees what answers, what refuses, and when that changes."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import subprocess

import pytest

from tests.cluster import dialer, inside


@pytest.fixture(scope="module")
def program() -> pathlib.Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    return dialer.build()


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def first(program: pathlib.Path, seconds: int, **targets: int) -> dict[str, dialer.Seen]:
    words = [f"{name}=127.0.0.1,{port}" for name, port in targets.items()]
    ended = subprocess.run([program, "first", str(seconds), *words], check=True, capture_output=True, text=True)
    return {name: dialer.Seen(**one) for name, one in json.loads(ended.stdout).items()}


def test_it_ends_soon_after_everybody_answered_and_tells_the_first_time(program: pathlib.Path) -> None:
    with listening() as server:
        port = server.getsockname()[1]
        seen = first(program, 20, server=port, never=1)
    assert seen["server"].successes
    assert 0 <= seen["server"].first_ms < 1000
    assert (seen["never"].successes, seen["never"].first_ms) == (0, -1)
    assert seen["never"].tries == seen["server"].tries


def test_where_nobody_is_waited_for_it_uses_its_time(program: pathlib.Path) -> None:
    with listening() as server:
        seen = first(program, 1, never=server.getsockname()[1])
    assert seen["never"].successes
    assert seen["never"].tries > 50


def test_it_tells_when_what_it_watches_changes(program: pathlib.Path) -> None:
    server = listening()
    where = f"127.0.0.1,{server.getsockname()[1]}"
    command = [str(program), "watch", "1000", where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        opened = process.stdout.readline().split()
        server.close()
        closed = process.stdout.readline().split()
        process.stdin.close()
    assert opened[1] == "0"
    assert closed[1] != "0"
    assert int(opened[0]) < int(closed[0])


def test_a_pod_that_ended_without_a_word_is_an_error() -> None:
    state = {"terminated": {"exitCode": 137}}
    pod = {"metadata": {"name": "p"}, "status": {"containerStatuses": [{"state": state}]}}
    with pytest.raises(ValueError, match="without a word"):
        dialer.seen(pod)


@pytest.mark.parametrize("middle", ["kubepods/besteffort", "kubepods"])
def test_a_containers_group_is_found_whatever_its_class(tmp_path: pathlib.Path, middle: str) -> None:
    group = tmp_path / middle / "podu-1" / "c1"
    group.mkdir(parents=True)
    assert inside.find(tmp_path, uid="u-1", identifier="c1") == group
    with pytest.raises(FileNotFoundError):
        inside.find(tmp_path, uid="u-2", identifier="c1")
