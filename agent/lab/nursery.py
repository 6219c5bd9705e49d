"""One process that has imported the agent and forks one at every request, for who starts many: tests.

The problem: starting Python and importing the agent takes most of a second of processor time; tests start hundreds of
agents. The rule: the process (`main`) has a single thread and opens nothing, so that what it forks differs from an
executed agent in no more than the memory it shares. `runner.settle` gives a child what it gives to one that is
executed: a session, cgroup, network namespace, log and no other descriptor. The rest is here: arguments, environment,
what people see of it (/proc/PID/cmdline), and signals. Python seeds `random` anew in every child; strings have the same
hashes in all that one nursery forks, which they have not in agents that are executed.

It ends when the process that started it does, and the agents stay. It must not be used for anything that measures an
agent's start or memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.lab import runner

PACKAGE = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = "NODEWALL_NURSERY"
"""The socket of the nursery that a lab's agents shall come from; empty or not set: they are executed."""
AGENTS = "from agent import daemon; from agent.lab import nursery; nursery.main(daemon.main, nursery.LATER)"
"""The program whose children are agents."""
LATER = (
    "agent.datapath.bpf.datapath",
    "agent.datapath.bpf.events",
    "agent.datapath.bpf.fqdn_answers",
    "agent.datapath.iptables.datapath",
)
"""What the agent imports once it knows its engine."""
TITLE_BYTES = 4096
BACKLOG = 16
END_TIMEOUT_S = 5.0
ARGUMENTS_BEGIN = 47
"""Field `arg_start` of /proc/self/stat, from 0; the next is its end."""


@contextlib.contextmanager
def running(program: str, environment: Mapping[str, str]) -> Iterator[pathlib.Path]:
    """Run a nursery inside the context, which is its socket; it answers once it has imported what it needs.

    `program` is Python that calls `main`: AGENTS.
    """
    with (
        tempfile.TemporaryDirectory(prefix="nodewall-nursery-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = pathlib.Path(directory, "socket")
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
        # the last word is room for the title of those who are forked
        command = [sys.executable, "-c", program, str(listener.fileno()), " " * TITLE_BYTES]
        own = {"PYTHONPATH": str(PACKAGE), "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            env={**environment, **own},
        )
        try:
            yield path
        finally:
            assert process.stdin is not None  # noqa: S101 - a pipe, as asked for above
            process.stdin.close()
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(run: Callable[[], None], modules: Sequence[str]) -> None:
    """Fork whenever it is asked to, until standard input ends; children are `run`, which needs `modules`."""
    for name in modules:
        importlib.import_module(name)
    threads = list(pathlib.Path("/proc/self/task").iterdir())
    if len(threads) > 1:
        sys.exit(f"{len(threads)} threads run once everything is imported: a fork would lose them")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    gc.collect()
    gc.freeze()
    process = _child_of(socket.socket(fileno=int(sys.argv[1])))
    if process is not None:
        _take_on(process)
        run()


def _child_of(listener: socket.socket) -> dict[str, Any] | None:
    """Return in each child the process that it is to become, settled; None in the parent, at its end."""
    parent = os.getpid()
    while True:
        ready, _, _ = select.select([sys.stdin, listener], [], [])
        if sys.stdin in ready:
            return None
        connection, _ = listener.accept()
        with connection:
            try:
                processes = json.loads(runner.received(connection))
            except (OSError, ValueError):  # who asked has died over it
                continue
            pids: dict[str, int] = {}
            complaint = ""
            for process in processes:
                pid, complaint = _fork(process, parent)
                if pid == 0:
                    for gone in (connection, listener):
                        gone.detach()
                    return dict(process)
                pids[process["name"]] = pid
                if complaint:
                    break
            answer = {"error": complaint} if complaint else {"pids": pids}
            with contextlib.suppress(OSError):
                connection.sendall(json.dumps(answer).encode())


def _fork(process: Mapping[str, Any], parent: int) -> tuple[int, str]:
    """Return a child's number and what it complains of, once it is settled; in the child, 0."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        runner.settle(process, writer, parent)
        os.close(writer)
        return 0, ""
    os.close(writer)
    with open(reader, "rb") as said:  # noqa: PTH123 - a descriptor
        complaint = said.read().decode()
    return pid, f"{process['name']}: {complaint}" if complaint else ""


def _take_on(process: Mapping[str, Any]) -> None:
    """Give this child the arguments, the environment and the signals of the program it stands for."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(process["environment"])
    executable, flag, _code, *flags = process["argv"]
    sys.argv = [flag, *flags]
    _show_as(b"\0".join(map(os.fsencode, [executable, flag, process["name"], *flags])))


def _show_as(title: bytes) -> None:
    """Write over the arguments that this process was started with: what ps shows of it."""
    stat = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, end = (int(stat[field - 2]) for field in (ARGUMENTS_BEGIN, ARGUMENTS_BEGIN + 1))
    room = end - begin
    if room > 1:
        ctypes.memmove(begin, title[: room - 1].ljust(room, b"\0"), room)
