"""Servers and a client in each of some pods: the lab's own, which try many connections at once and say who answered.

The process in a pod is `python -m tests.cluster.prober NAME SOCKET PORTS`; a test asks it over a unix socket, which no
network namespace separates.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from agent import patience
from agent.lab import pod
from tests.cluster import inside, programs

STARTS_S = 20.0
GRACE_S = 10.0
"""How much later than its time-out an answer may come, on a busy machine."""
CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One connection to try."""

    source: str
    """`namespace/pod`."""
    target: str
    """Whose address it is; shown."""
    address: str
    port: int
    protocol: str = "TCP"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of it."""

    question: Question
    allowed: bool
    """The server's name came back."""
    error: str
    milliseconds: float
    by: str
    """Who answered."""


class Probers:
    """A process in each pod; a context manager that ends them all."""

    def __init__(self, directory: pathlib.Path, ports: Sequence[tuple[int, str]]) -> None:
        """Have sockets in a directory whose path is short (sun_path holds 108 bytes); every pod serves these ports."""
        self._directory = directory
        self._ports = ports
        self._running: dict[str, tuple[pathlib.Path, subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_about: object) -> None:
        """End every process."""
        for path, process in self._running.values():
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)
        self._running.clear()

    def start(self, *places: inside.Place) -> None:
        """Start one in each pod and wait until all of them answer. Raises TimeoutError."""
        for number, place in enumerate(places, len(self._running)):
            path = self._directory / f"p{number}"
            words = ["-m", "tests.cluster.prober", place.party, str(path), json.dumps(self._ports)]
            process = subprocess.Popen(place.python(*words), cwd=programs.ROOT)
            self._running[place.party] = path, process
        deadline = time.monotonic() + patience.seconds(STARTS_S)
        for place in places:
            while not self._answers(place.party):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the prober of {place.party} does not answer within {STARTS_S} s")
                time.sleep(0.05)

    def ask(self, questions: Sequence[Question], timeout_s: float) -> list[Answer]:
        """Try all of them at once. Raises OSError if a process does not answer."""
        by_source: dict[str, list[Question]] = {}
        for question in questions:
            by_source.setdefault(question.source, []).append(question)
        with contextlib.ExitStack() as stack:
            asked = [
                (own, stack.enter_context(self._asked(source, own, timeout_s))) for source, own in by_source.items()
            ]
            answers = {
                question: answer
                for own, connection in asked
                for question, answer in zip(own, _answers(own, connection), strict=True)
            }
        return [answers[question] for question in questions]

    def _asked(self, source: str, questions: Iterable[Question], timeout_s: float) -> socket.socket:
        probes = [
            {"address": one.address, "port": one.port, "protocol": one.protocol, "connected": True} for one in questions
        ]
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s + patience.seconds(GRACE_S))
        connection.connect(str(self._running[source][0]))
        connection.sendall(json.dumps({"timeout_s": timeout_s, "probes": probes}).encode() + b"\n")
        return connection

    def _answers(self, party: str) -> bool:
        path, process = self._running[party]
        if process.poll() is not None:
            raise RuntimeError(f"the prober of {party} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as tried:
            tried.connect(str(path))
            return True
        return False


def _answers(questions: Sequence[Question], connection: socket.socket) -> list[Answer]:
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = connection.recv(CHUNK)
        if not chunk:
            raise ConnectionError(f"the prober of {questions[0].source} died while it was asked")
        received += chunk
    found: list[Mapping[str, Any]] = json.loads(received)
    return [
        Answer(
            question=question,
            allowed=one["allowed"],
            error=errno.errorcode.get(one["errno"], str(one["errno"])) if one["errno"] else "",
            milliseconds=one["milliseconds"],
            by=one["answered_by"],
        )
        for question, one in zip(questions, found, strict=True)
    ]


if __name__ == "__main__":
    pod.Server(name=sys.argv[1], path=sys.argv[2], ports=json.loads(sys.argv[3])).serve()
