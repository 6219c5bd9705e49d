"""Hubble's own command line, pointed at an agent that says what a test has it say."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from agent import clock
from agent.hubble import agent_events, server
from agent.observer import stream
from tests.hubble import serving, variety

PATIENCE_S = 30


class Cli:
    """The command line, and the agent it is pointed at; that runs in a thread of its own."""

    def __init__(
        self,
        program: pathlib.Path,
        socket: pathlib.Path,
        home: pathlib.Path,
        *,
        tcp: server.Tcp | None = None,
        node: serving.Node | None = None,
    ) -> None:
        """Nothing runs yet; see `served`. The command line asks on the socket; see `remote`."""
        self._program = program
        self._server = ["--server", f"unix://{socket}"]
        self._tcp, self._node = tcp, node or serving.Node()
        mine = {name: value for name, value in os.environ.items() if not name.startswith("HUBBLE")}
        own = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "TZ": "UTC"}
        self._environment = {**mine, **own, "GOGC": "off"}  # a life this short needs no collector; a fifth is saved
        self._socket = socket
        self.verdicts = stream.Stream(clock=clock.SystemClock())

    def remote(self, *words: str) -> Cli:
        """Return the command line pointed at the same agent from another machine, with `words` for TLS."""
        assert self._tcp is not None
        other = copy.copy(self)
        other._server = ["--server", f"tls://{serving.LOOPBACK}:{self._tcp.port}", *words]
        return other

    @property
    def target(self) -> str:
        """Where the command line asks, as it says itself."""
        return self._server[1].removeprefix("tls://")

    @contextlib.contextmanager
    def served(self) -> Iterator[Cli]:
        """Serve what is published, inside the context."""
        ready, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            node, now = self._node, clock.SystemClock()
            async with server.serving(
                self.verdicts,
                node,
                events=agent_events.AgentEvents(node, name=variety.NODE, clock=now),
                name=variety.NODE,
                version="7",
                socket=self._socket,
                clock=now,
                tcp=self._tcp,
            ):
                ready.set()
                await end.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(PATIENCE_S)
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()
            loop.close()

    def __call__(self, *words: str) -> str:
        """Run it and return what it prints; fails where it complains."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._program), *words, *self._server],
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run it while the context lasts, and no longer than patience does: nobody waits for a line for ever."""
        with subprocess.Popen(
            [str(self._program), *words, *self._server],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            patience = threading.Timer(PATIENCE_S, process.kill)
            patience.start()
            try:
                yield process
            finally:
                patience.cancel()
                process.terminate()

    def seen(self, *words: str) -> list[int]:
        """Return the numbers of the flows that `observe` prints."""
        return [serial(json.loads(line)) for line in self("observe", "-o", "json", *words).splitlines()]


def serial(answer: dict[str, Any]) -> int:
    """Return the number of a flow."""
    return int(answer["flow"]["uuid"].rpartition("-")[2], 16)
