"""Processes that live in a pod and obey one line of JSON at a time.

They are started by the lab's own launcher, which joins the pod's cgroup and network namespace before the first socket:
entering a namespace changes a whole thread, and forking a test runner that has threads is unsafe.
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

from agent import patience
from agent.lab import lab

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANSWER_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0


class PodProcess:
    """A Python module that runs in a pod; `ask` sends it a command and returns its answer."""

    def __init__(self, running: lab.Lab, party: str, module: str, *words: str) -> None:
        """Start it; it ends with `close`, or when this process dies."""
        self._name = f"{module.rpartition('.')[2]} in {party}"
        command = running.exec_command(party, [sys.executable, "-m", module, *words])
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._pending = b""

    @property
    def pid(self) -> int:
        """Return the process id: the launcher becomes the program."""
        return self._process.pid

    def ask(self, **command: object) -> dict[str, Any]:
        """Send a command, wait for the answer."""
        self.tell(**command)
        return self.answer()

    def tell(self, **command: object) -> None:
        """Send a command, wait for nothing: `answer` must follow."""
        os.write(self._input, json.dumps(command).encode() + b"\n")

    def answer(self, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the answer to the oldest command that has none; TimeoutError, or RuntimeError if it died."""
        end = time.monotonic() + patience.seconds(timeout_s)
        while b"\n" not in self._pending:
            if not select.select([self._output], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"{self._name} does not answer within {timeout_s:.0f} s")
            content = os.read(self._output, 1 << 16)
            if not content:
                raise RuntimeError(f"{self._name} ended with status {self._process.wait(END_TIMEOUT_S)}")
            self._pending += content
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    @property
    def _input(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    @property
    def _output(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def close(self) -> None:
        """End the process: ask by closing its input, then kill it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_TIMEOUT_S)
        self._process.stdout.close()

    def __enter__(self) -> Self:
        """Return the running process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, also on failure."""
        self.close()
