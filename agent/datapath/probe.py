"""What this machine must have before any datapath is tried.

The rule: test what is there (file system magics, mounts), never a version, and say what is missing and
what provides it. Engines prove themselves after loading (`bpf/selftest.py`); here is only what would
make them fail with a misleading errno: a bpffs that is really sysfs answers ENOENT.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
from collections.abc import Iterator

from agent import errors

BPFFS_MAGIC = 0xCAFE4A11
CGROUP2_MAGIC = 0x63677270
MOUNTS = pathlib.Path("/proc/self/mounts")


def require_bpffs(path: pathlib.Path) -> None:
    """Raise NotSupported unless `path`, or the nearest directory above it that exists, is on a bpffs."""
    if _magic(_existing(path)) != BPFFS_MAGIC:
        raise errors.NotSupported(feature=f"bpffs at {path}", needs=f"`mount -t bpf bpf {path}` on the node")


def cgroup_root(given: pathlib.Path | None, mounts: pathlib.Path = MOUNTS) -> pathlib.Path:
    """Return the cgroup v2 directory that is meant by `given`: itself, else what is mounted at the top below it.

    Hybrid systems have version 1 there and version 2 one level deeper; in a container the node's tree is wherever it
    was mounted, next to the container's own. None: what is mounted at the top of the machine. Raises NotSupported
    naming what was looked for where.
    """
    if given is not None and given.is_dir() and _magic(given) == CGROUP2_MAGIC:
        return given
    top = (given or pathlib.Path("/")).absolute()
    found = [path for path in _mounts_of("cgroup2", mounts) if path.is_relative_to(top)]
    if found:
        return min(found, key=lambda path: len(path.parts))
    raise errors.NotSupported(
        feature=f"cgroup v2 at or below {top} (no file system of type cgroup2 in {mounts})",
        needs="the node's cgroup v2 hierarchy there (Linux 4.5; in a container, a mount of the node's /sys/fs/cgroup)",
    )


def _mounts_of(kind: str, mounts: pathlib.Path) -> Iterator[pathlib.Path]:
    for line in mounts.read_text().splitlines():
        _, directory, found, *_ = line.split(" ")
        if found == kind:
            yield pathlib.Path(directory.encode().decode("unicode_escape"))


def _existing(path: pathlib.Path) -> pathlib.Path:
    while not path.exists():
        path = path.parent
    return path


def _magic(path: pathlib.Path) -> int:
    """Return statfs(2)'s f_type, which Python's os.statvfs leaves out."""
    answer = ctypes.create_string_buffer(512)
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), answer) != 0:
        code = ctypes.get_errno()
        raise errors.DatapathError(f"statfs of {path}: {os.strerror(code)}")
    return ctypes.c_uint32.from_buffer(answer).value
