"""Takes a lab, or a part of one, off the machine, from what is found and not from what was planned.

A lab may have been left by a test that was killed, half built, or half removed already: every step looks at the
machine, does what is left to do, and can be repeated. Processes are found by the lab's own cgroup, so no pid that
meanwhile belongs to somebody else is ever signalled.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import time
from collections.abc import Sequence

from agent import errors, patience
from agent.lab import kernel, rundir

PATIENCE_S = 5.0
PAUSE_S = 0.005


def remove(paths: rundir.RunDirectory) -> bool:
    """Remove everything of a lab; tell whether there was anything."""
    found = paths.path.exists() or paths.cgroup.exists() or paths.bpffs.exists()
    kill_cgroups([paths.cgroup])
    shutil.rmtree(paths.bpffs, ignore_errors=True)
    remove_cgroup(paths.cgroup)
    for point in kernel.mounts_below(paths.path):
        kernel.unmount(point)
    mounted = paths.mounted_bpffs
    if mounted.exists() and rundir.existing() == [paths.name]:
        with contextlib.suppress(OSError):
            kernel.unmount(mounted.read_text())
    elif mounted.exists():
        _bequeath(paths)
    shutil.rmtree(paths.path, ignore_errors=True)
    with contextlib.suppress(OSError):
        rundir.ROOT.rmdir()
    return found


def remove_namespace(path: pathlib.Path) -> None:
    """Let a network namespace go; its links go with it."""
    with contextlib.suppress(OSError):
        kernel.unmount(path)
    path.unlink(missing_ok=True)


def kill_cgroups(directories: Sequence[pathlib.Path]) -> None:
    """Kill every process in cgroups and below, and wait until they are gone; LabError if one stays."""
    deadline = time.monotonic() + patience.seconds(PATIENCE_S)
    left = list(directories)
    while left := [directory for directory in left if processes(directory)]:
        for directory in left:
            _kill(directory)
        if time.monotonic() > deadline:
            raise errors.LabError(f"processes in {left[0]} do not die: {processes(left[0])}")
        time.sleep(PAUSE_S)


def _kill(directory: pathlib.Path) -> None:
    kill = directory / "cgroup.kill"  # Linux 5.14
    if kill.exists():
        kill.write_text("1")
        return
    for pid in processes(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes(directory: pathlib.Path) -> list[int]:
    """Return the processes in a cgroup and below."""
    found: list[int] = []
    for path in directory.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in path.read_text().split()]
    with contextlib.suppress(OSError):
        found += [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]
    return sorted({*found} - {0})


def remove_cgroup(directory: pathlib.Path) -> None:
    """Remove a cgroup without processes and those below it; LabError if the kernel does not let go."""
    deadline = time.monotonic() + patience.seconds(PATIENCE_S)
    while directory.exists():
        for path, _names, _files in os.walk(directory, topdown=False):
            with contextlib.suppress(OSError):
                pathlib.Path(path).rmdir()
        if directory.exists():
            if time.monotonic() > deadline:
                raise errors.LabError(f"the cgroup {directory} cannot be removed: {processes(directory)}")
            time.sleep(PAUSE_S)


def _bequeath(paths: rundir.RunDirectory) -> None:
    """Leave the unmounting of bpffs to another lab, which may be using it."""
    heirs = [rundir.RunDirectory(name) for name in rundir.existing() if name != paths.name]
    for heir in heirs:
        if heir.path.exists():
            heir.mounted_bpffs.write_text(paths.mounted_bpffs.read_text())
            return
