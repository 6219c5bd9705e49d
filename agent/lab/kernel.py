"""The four system calls the lab needs and Python 3.11 lacks, and the two mounts it has to find.

Standard library only, and light: the processes of pods start through this module.
"""

from __future__ import annotations

import ctypes
import os
import pathlib

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1


def unshare_network() -> None:
    """Put the calling thread into a new network namespace; OSError as from unshare(2)."""
    _check(ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET), "unshare a network namespace")


def enter_network(path: str | os.PathLike[str]) -> None:
    """Put the calling thread into the network namespace bound to `path`; OSError as from setns(2)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET), f"enter {os.fspath(path)}")
    finally:
        os.close(descriptor)


def join_cgroup(path: str | os.PathLike[str]) -> None:
    """Move the calling process into the cgroup at `path`, which is made if absent."""
    directory = pathlib.Path(path)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text("0")


def die_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends; 0 for none."""
    _check(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number), "set the signal of a parent's death")


def mount(source: str, target: str | os.PathLike[str], kind: str, flags: int = 0) -> None:
    """Mount `source` without options; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = source.encode(), os.fsencode(target), kind.encode() or None
    _check(libc.mount(*arguments, ctypes.c_ulong(flags), None), f"mount {source} on {os.fspath(target)}")


def unmount(target: str | os.PathLike[str]) -> None:
    """Detach what is mounted on `target`, also while it is in use."""
    _check(ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(target), MNT_DETACH), f"unmount {os.fspath(target)}")


def mounts_below(directory: pathlib.Path) -> list[str]:
    """Return the mount points at and below `directory`, the deepest first."""
    prefix = os.fspath(directory)
    points = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((point for point in points if point == prefix or point.startswith(prefix + "/")), reverse=True)


def mount_of(kind: str) -> pathlib.Path | None:
    """Return where a file system of this kind is mounted (`cgroup2`, `bpf`), the first in /proc/mounts."""
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _source, target, found, *_rest = line.split()
        if found == kind:
            return pathlib.Path(target)
    return None


def _check(result: int, doing: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
