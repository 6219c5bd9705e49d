"""What the process must be allowed to do, asked before anything is touched.

bpf(2) says EPERM and no more, after directories have been made; here the missing capability has a name. CAP_SYS_ADMIN
stands for CAP_BPF and CAP_PERFMON (capabilities(7)), but not for CAP_NET_ADMIN.
"""

from __future__ import annotations

import pathlib

from agent import errors

STATUS = pathlib.Path("/proc/self/status")
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
NEEDED = {CAP_NET_ADMIN: "CAP_NET_ADMIN", 38: "CAP_PERFMON", 39: "CAP_BPF"}


def require() -> None:
    """Raise NotSupported naming the capabilities that BPF enforcement needs and this process lacks."""
    lacking = missing(STATUS.read_text(encoding="ascii", errors="replace"))
    if lacking:
        needs = f"{', '.join(lacking)}: run as root, or give the container these capabilities"
        raise errors.NotSupported(feature="enforcing with BPF", needs=needs)


def missing(status: str) -> tuple[str, ...]:
    """Return the capabilities that are needed and not effective in the text of /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    every = bool(effective & 1 << CAP_SYS_ADMIN)
    return tuple(
        name
        for number, name in NEEDED.items()
        if not effective & 1 << number and not (every and number != CAP_NET_ADMIN)
    )
