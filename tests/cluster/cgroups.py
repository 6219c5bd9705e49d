"""A control group for every member of a cluster, in every hierarchy that this machine has.

Hybrid machines have version 1 controllers beside version 2 below /sys/fs/cgroup, others version 2 alone. A member's
group is the root of its cgroup namespace, so that its kubelet takes it for the machine's. Whatever a member started is
in its group, even after a crash of who started it: removal kills by group and needs no process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence

ROOT = pathlib.Path("/sys/fs/cgroup")
MOUNTS = pathlib.Path("/proc/self/mounts")
OWN = "system"
"""Where a member's own processes move, below its group: version 2 wants processes in leaves."""
TRIES = 100


def hierarchies() -> tuple[tuple[str, str, pathlib.Path], ...]:
    """Return file system type, options for mount(8), and mount point of each."""
    found = []
    for line in MOUNTS.read_text().splitlines():
        _, directory, kind, options, *_ = line.split(" ")
        if kind not in {"cgroup", "cgroup2"}:
            continue
        wanted = [
            word for word in options.split(",") if word not in {"rw", "ro", "relatime", "nosuid", "nodev", "noexec"}
        ]
        if kind == "cgroup" and any(word.startswith("name=") for word in wanted):
            wanted = ["none", *wanted]
        found.append((kind, ",".join(wanted) if kind == "cgroup" else "", pathlib.Path(directory)))
    return tuple(found)


def write(path: pathlib.Path) -> None:
    """Keep what `hierarchies` says for who will not see these mounts."""
    path.write_text(json.dumps([(kind, options, str(place)) for kind, options, place in hierarchies()]))


def read(path: pathlib.Path) -> tuple[tuple[str, str, pathlib.Path], ...]:
    """Return what was kept."""
    return tuple((kind, options, pathlib.Path(place)) for kind, options, place in json.loads(path.read_text()))


def make(group: str) -> None:
    """Make a group of that path everywhere; where there is only version 2, with the controllers that its parents have.

    A group that gives controllers to others holds no process, so the member gives, after it has moved out of the way.
    """
    found = hierarchies()
    for kind, _, root in found:
        directory = root
        for part in pathlib.PurePath(group).parts:
            if kind == "cgroup2" and len(found) == 1:
                _delegate(directory)
            directory /= part
            directory.mkdir(exist_ok=True)
            if kind == "cgroup":
                _inherit(directory)


def inside(group: str, command: Sequence[str]) -> list[str]:
    """Return a command that first joins the group everywhere."""
    joins = [str(root / group / "cgroup.procs") for _, _, root in hierarchies()]
    script = 'while [ "$1" != -- ]; do echo $$ >"$1"; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-c", script, "join", *joins, "--", *command]


def join(directory: pathlib.Path) -> None:
    """Make a group and move this process into it."""
    directory.mkdir(exist_ok=True)
    _inherit(directory)
    (directory / "cgroup.procs").write_text(f"{os.getpid()}\n")


def processes(group: str) -> frozenset[int]:
    """Return who is in the group or below it, in any hierarchy."""
    return frozenset(
        int(word)
        for tree in _trees(group)
        for directory, _, _ in os.walk(tree)  # which passes over groups that go meanwhile
        for word in _text(pathlib.Path(directory) / "cgroup.procs").split()
        if word != "0"
    )


def remove(group: str) -> None:
    """Kill whoever is in the group or below it, and remove it. Raises TimeoutError; what is not there is removed."""
    for _ in range(TRIES):
        for process in processes(group):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for tree in _trees(group):
            subprocess.run(
                ["find", str(tree), "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
                check=False,
                capture_output=True,
            )
        if not any(_trees(group)):
            return
        time.sleep(0.05)
    raise TimeoutError(f"control group {group} cannot be removed; still in it: {sorted(processes(group))}")


def _inherit(directory: pathlib.Path) -> None:
    """Give a group its parent's processors: under version 1 a new group has none, and holds no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (directory / file).exists() and not (directory / file).read_text().strip():
            (directory / file).write_text((directory.parent / file).read_text())


def _trees(group: str) -> Iterator[pathlib.Path]:
    for _, _, root in hierarchies():
        if (root / group).is_dir():
            yield root / group


def _text(path: pathlib.Path) -> str:
    # A group may go while it is read, and one of threads says EOPNOTSUPP.
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def _delegate(directory: pathlib.Path) -> None:
    """Give a version 2 group's controllers to those below it."""
    for controller in (directory / "cgroup.controllers").read_text().split():
        # The root of a machine without systemd may hold processes that cannot be moved.
        with contextlib.suppress(OSError):
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")
