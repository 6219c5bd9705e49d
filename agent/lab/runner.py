"""Builds what it is told to, in a process of its own: namespaces, links, rules, files, then processes.

Entering a network namespace changes the whole thread, and forking a process that holds threads (gRPC) is unsafe: so
neither happens in the process of whoever uses the lab. This program imports only the standard library, is told
everything by one JSON document on standard input, and answers with one on standard output:

    {"namespaces": [{"path", "sysctls": {...}}], "batches": [{"program", "netns", "lines"}],
     "restores": [{"commands", "netns", "text"}], "files": [{"path", "text"}],
     "processes": [{"name", "netns", "cgroup", "log", "argv" or "server": {...}}]}

The processes outlive it, each a session of its own. A pod joins its cgroup before its first socket: a socket made
outside and carried in would escape the socket hooks.
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from typing import Any

from agent import patience
from agent.lab import kernel, pod

READY_TIMEOUT_S = 10.0
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
    return {"pids": start_all(orders.get("processes", []))}


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


def become(process: dict[str, Any], writer: int, runner: int) -> None:
    """Turn this forked child into the process; never returns. An empty pipe, closed, means ready."""
    try:
        os.setsid()
        # `down` finds processes by their cgroup: one that is in none yet dies with the runner
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != runner:  # which died before it could be asked for
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
        if "argv" in process:
            # the pipe closes itself at exec, and so says "ready"
            os.execve(process["argv"][0], process["argv"], process["environment"])  # noqa: S606 - fixed by the lab
        served = pod.Server(**process["server"])
        os.close(writer)
        served.serve()
    except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
        os.write(writer, f"{type(error).__name__}: {error}".encode())
    os._exit(1)


if __name__ == "__main__":
    main()
