"""What this machine must have before any datapath is tried.

The rule: test what is there (file system magics, mounts), never a version, and say what is missing and
what provides it. Engines prove themselves after loading (`bpf/selftest.py`); here is only what would
make them fail with a misleading errno: a bpffs that is really sysfs answers ENOENT.
"""

from __future__ import annotations

import ctypes
import os
import pathlib

from agent import errors

BPFFS_MAGIC = 0xCAFE4A11
CGROUP2_MAGIC = 0x63677270
MOUNTS = pathlib.Path("/proc/self/mounts")


def require_bpffs(path: pathlib.Path) -> None:
    """Raise NotSupported unless `path`, or the nearest directory above it that exists, is on a bpffs."""
    if _magic(_existing(path)) != BPFFS_MAGIC:
        raise errors.NotSupported(feature=f"bpffs at {path}", needs=f"`mount -t bpf bpf {path}` on the node")


def require_cgroup2(path: pathlib.Path) -> None:
    """Raise NotSupported unless `path` is a directory of a cgroup v2 hierarchy."""
    if not path.is_dir() or _magic(path) != CGROUP2_MAGIC:
        raise errors.NotSupported(feature=f"cgroup v2 at {path}", needs="a mounted cgroup v2 hierarchy (Linux 4.5)")


def cgroup2_mount(mounts: pathlib.Path = MOUNTS) -> pathlib.Path:
    """Return where cgroup v2 is mounted: hybrid systems have it below /sys/fs/cgroup. Raises NotSupported."""
    for line in mounts.read_text().splitlines():
        _, directory, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return pathlib.Path(directory.encode().decode("unicode_escape"))
    raise errors.NotSupported(feature="cgroup v2", needs="a mounted cgroup v2 hierarchy (Linux 4.5)")


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
