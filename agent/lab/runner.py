"""Builds what it is told to, in a process of its own: namespaces, links, rules, files, then processes.

Entering a network namespace changes the whole thread, and forking a process that holds threads (gRPC) is unsafe: so
neither happens in the process of whoever uses the lab. This program imports only the standard library, is told
everything by one JSON document on standard input, and answers with one on standard output:

    {"namespaces": [{"path", "sysctls": {...}}], "batches": [{"program", "netns", "lines"}],
     "restores": [{"commands", "netns", "text"}], "files": [{"path", "text"}],
     "processes": [{"name", "netns", "cgroup", "log", "argv" or "server": {...}}]}

One that names a `nursery` is forked by that (`nursery.py`) as what its `argv` would be.

The processes outlive it, each a session of its own. A pod joins its cgroup before its first socket: a socket made
outside and carried in would escape the socket hooks.
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from agent import patience
from agent.lab import kernel, pod

READY_TIMEOUT_S = 10.0
NURSERY_TIMEOUT_S = 30.0
"""It may be importing yet."""
LAST_DESCRIPTOR = 1024
FAILED = "Command failed -:"
"""How `ip -batch` begins the line that numbers the one it could not carry out."""


class Refused(Exception):  # noqa: N818 - states what happened, as the names in agent/errors.py do
    """A step failed; the text says which, on what."""


def main() -> None:
    """Read the orders, carry them out, report."""
    orders = json.load(sys.stdin)
    try:
        json.dump(run(orders), sys.stdout)
    except (Refused, OSError) as error:
        json.dump({"error": str(error)}, sys.stdout)
        sys.exit(1)


def run(orders: dict[str, Any]) -> dict[str, Any]:
    """Carry out `orders` in their fixed sequence; return the pids of the started processes by name."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    for namespace in orders.get("namespaces", ()):
        make_namespace(namespace["path"], namespace["sysctls"])
    for batch in orders.get("batches", ()):
        feed([batch["program"], "-force", "-batch", "-"], batch["netns"], "\n".join(batch["lines"]) + "\n")
    for restore in orders.get("restores", ()):
        feed_first(restore["commands"], restore["netns"], restore["text"])
    kernel.enter_network(f"/proc/self/fd/{home}")
    for file in orders.get("files", ()):
        path = pathlib.Path(file["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["text"])
    forked: dict[str, list[dict[str, Any]]] = {}
    for process in orders.get("processes", ()):
        forked.setdefault(process.get("nursery", ""), []).append(process)
    pids = start_all(forked.pop("", []))
    for nursery, processes in forked.items():
        pids |= ask(nursery, processes)
    return {"pids": pids}


def make_namespace(path: str, sysctls: dict[str, str]) -> None:
    """Make a network namespace, bind it to `path`, and set `sysctls` (paths below /proc/sys) inside."""
    kernel.unshare_network()
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    kernel.mount("/proc/self/ns/net", path, "", kernel.MS_BIND)
    for key, value in sysctls.items():
        setting = pathlib.Path("/proc/sys") / key
        if setting.exists():
            setting.write_text(value)


def feed(command: list[str], netns: str, text: str) -> None:
    """Run `command` inside `netns` with `text` on its standard input; Refused if it fails, save for deletions."""
    kernel.enter_network(netns)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    complaints = _complaints(done.stderr, text.splitlines())
    if complaints or FAILED not in done.stderr:
        why = "; ".join(complaints) or f"exit status {done.returncode}"
        raise Refused(f"{' '.join(command)} in {netns}: {why}")


def feed_first(commands: list[list[str]], netns: str, text: str) -> None:
    """Feed `text` to the first of `commands` that takes it; Refused with what each said."""
    refusals = []
    for command in commands:
        try:
            feed(command, netns, text)
        except (Refused, FileNotFoundError) as error:
            refusals.append(str(error))
        else:
            return
    raise Refused("; ".join(refusals))


def _complaints(stderr: str, lines: list[str]) -> list[str]:
    """Join each complaint of `ip -batch` with its line; leave out those about deletions."""
    found: list[str] = []
    messages: list[str] = []
    for message in stderr.splitlines():
        if not message.startswith(FAILED):
            messages.append(message)
            continue
        line = lines[int(message.rpartition(":")[2]) - 1]
        if " del " not in f" {line}":
            found.append(f"{line!r}: {' '.join(messages)}")
        messages = []
    return found + messages


def start_all(processes: list[dict[str, Any]]) -> dict[str, int]:
    """Fork every process and wait until each says that it is ready; Refused with the first that is not."""
    pids: dict[str, int] = {}
    waiting: dict[int, str] = {}
    runner = os.getpid()
    for process in processes:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            become(process, writer, runner)
        os.close(writer)
        pids[process["name"]] = pid
        waiting[reader] = process["name"]
    timeout_s = patience.seconds(READY_TIMEOUT_S)
    deadline = time.monotonic() + timeout_s
    while waiting:
        ready = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise Refused(f"not ready after {timeout_s:.0f} s: {', '.join(sorted(waiting.values()))}")
        for reader in ready:
            complaint = os.read(reader, 4096).decode()
            name = waiting.pop(reader)
            os.close(reader)
            if complaint:
                raise Refused(f"{name}: {complaint}")
    return pids


def ask(nursery: str, processes: list[dict[str, Any]]) -> dict[str, int]:
    """Have processes forked by the nursery behind a socket; Refused with the first that cannot be."""
    timeout_s = patience.seconds(NURSERY_TIMEOUT_S)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(nursery)
            connection.sendall(json.dumps(processes).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = json.loads(received(connection))
    except (OSError, ValueError) as error:
        names = ", ".join(process["name"] for process in processes)
        raise Refused(f"{names}: the nursery {nursery} forks nobody: {error}") from error
    if "error" in answer:
        raise Refused(answer["error"])
    pids: dict[str, int] = answer["pids"]
    return pids


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the other side has said it all."""
    chunks = iter(lambda: connection.recv(1 << 16), b"")
    return b"".join(chunks)


def become(process: dict[str, Any], writer: int, runner: int) -> None:
    """Turn this forked child into the process; never returns. An empty pipe, closed, means ready."""
    settle(process, writer, runner)
    try:
        if "argv" in process:
            # the pipe closes itself at exec, and so says "ready"
            os.execve(process["argv"][0], process["argv"], process["environment"])  # noqa: S606 - fixed by the lab
        served = pod.Server(**process["server"])
        os.close(writer)
        served.serve()
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        _complain(writer, error)
    os._exit(1)


def settle(process: Mapping[str, Any], writer: int, parent: int) -> None:
    """Put this forked child where the process belongs, with its log and no descriptors but `writer`; or end it."""
    try:
        os.setsid()
        # `down` finds processes by their cgroup: one that is in none yet dies with whoever forked it
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:  # which died before it could be asked for
            os._exit(1)
        kernel.join_cgroup(process["cgroup"])
        kernel.die_with_parent(0)
        kernel.enter_network(process["netns"])
        log = os.open(process["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(old, new)
        os.closerange(3, writer)
        os.closerange(writer + 1, LAST_DESCRIPTOR)
    except BaseException as error:  # noqa: BLE001 - likewise
        _complain(writer, error)
        os._exit(1)


def _complain(writer: int, error: BaseException) -> None:
    os.write(writer, f"{type(error).__name__}: {error}".encode())


if __name__ == "__main__":
    main()
