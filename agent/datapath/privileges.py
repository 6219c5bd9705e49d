"""What the process must be allowed to do, asked before anything is touched.

bpf(2) says EPERM and no more, after directories have been made, BCC that it could not open a map, and iptables blames
the kernel's version; here the missing capability has a name, and where a manifest gives it. CAP_SYS_ADMIN stands for
CAP_BPF and CAP_PERFMON (capabilities(7)), but for no other.
"""

from __future__ import annotations

import enum
import pathlib

from agent import errors

STATUS = pathlib.Path("/proc/self/status")


class Capability(enum.Enum):
    """Capabilities by their numbers in linux/capability.h."""

    CAP_NET_ADMIN = 12
    CAP_NET_RAW = 13
    CAP_SYS_ADMIN = 21
    CAP_PERFMON = 38
    CAP_BPF = 39


BPF = (Capability.CAP_NET_ADMIN, Capability.CAP_PERFMON, Capability.CAP_BPF)
"""What attaching programs to netfilter and to sockets takes."""
IPTABLES = (Capability.CAP_NET_ADMIN, Capability.CAP_NET_RAW)
"""The iptables commands ask the kernel for its extensions by way of a raw socket, the set match among them."""


def require(feature: str, needed: tuple[Capability, ...]) -> None:
    """Raise NotSupported naming the capabilities that `feature` needs and this process lacks."""
    lacking = missing(STATUS.read_text(encoding="ascii", errors="replace"), needed)
    if lacking:
        field = f"add {', '.join(name.removeprefix('CAP_') for name in lacking)} to securityContext.capabilities.add"
        needs = f"{', '.join(lacking)}: run as root, or {field} of the agent's container"
        raise errors.NotSupported(feature=feature, needs=needs)


def missing(status: str, needed: tuple[Capability, ...]) -> tuple[str, ...]:
    """Return what of `needed` is not effective in the text of /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], 16)
    if effective & 1 << Capability.CAP_SYS_ADMIN.value:
        effective |= 1 << Capability.CAP_PERFMON.value | 1 << Capability.CAP_BPF.value
    return tuple(one.name for one in needed if not effective & 1 << one.value)
