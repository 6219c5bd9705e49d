"""Our programs and links as the kernel tells of them, by their pins.

Without CAP_SYS_ADMIN the kernel gives no instructions and no list by number; by a pin it tells everything shown here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import struct
from collections.abc import Collection, Iterator, Mapping

from agent.datapath import tracing
from agent.datapath.bpf import links, syscalls

NAMES: Mapping[int, str] = {
    1: "socket_filter",
    3: "sched_cls",
    9: "cgroup_sock",
    18: "cgroup_sock_addr",
    32: "netfilter",
}
"""enum bpf_prog_type, as far as ours go."""
HOOKS: Mapping[int, str] = {links.PRE_ROUTING: "prerouting", links.LOCAL_IN: "input", links.FORWARD: "forward"}
FAMILIES: Mapping[int, str] = {links.NFPROTO_IPV4: "IPv4", links.NFPROTO_IPV6: "IPv6"}
CGROUP_LINK, NETFILTER_LINK, TCX_LINK = 3, 10, 11
"""enum bpf_link_type."""
MOUNTS = pathlib.Path("/proc/self/mounts")


def listed(pins: pathlib.Path) -> Iterator[tracing.Program]:
    """Yield every pinned program of the build that is there, with what it is attached to. Raises OSError."""
    found = [info for pin in sorted((pins / "links").glob("*")) if (info := _link(pin)) is not None]
    cgroups = _cgroups({info.cgroup_id for info in found if info.type == CGROUP_LINK})
    attached: dict[int, list[str]] = {}
    for info in found:
        attached.setdefault(info.program_id, []).append(_where(info, cgroups))
    for pin in sorted((pins / "programs").glob("*/*")):
        with syscalls.owned(syscalls.open_pin(pin)) as program:
            told = syscalls.program_info(program)
        yield tracing.Program(
            name=pin.name,
            type=NAMES.get(told.type, str(told.type)),
            id=told.id,
            tag=told.tag,
            instructions=told.verified_instructions,
            attached=", ".join(attached.get(told.id, ())),
            pin=str(pin),
        )


def _link(pin: pathlib.Path) -> syscalls.LinkInfo | None:
    try:
        with syscalls.owned(syscalls.open_pin(pin)) as link:
            return syscalls.link_info(link)
    except FileNotFoundError:  # replaced meanwhile
        return None


def _where(info: syscalls.LinkInfo, cgroups: Mapping[int, str]) -> str:
    match info.type:
        case kind if kind == NETFILTER_LINK:
            family, hook, raw, _ = info.detail
            priority = struct.unpack("=i", struct.pack("=I", raw))[0]
            return f"netfilter {FAMILIES.get(family, family)} {HOOKS.get(hook, hook)} priority {priority}"
        case kind if kind == TCX_LINK:
            side = "egress" if info.detail[1] == syscalls.AttachType.TCX_EGRESS else "ingress"
            return f"tc {side} of interface {info.ifindex}" if info.ifindex else "an interface that is gone"
        case kind if kind == CGROUP_LINK:
            hook_name = syscalls.AttachType(info.detail[2]).name.removeprefix("CGROUP_").lower()
            return f"cgroup {cgroups.get(info.cgroup_id, 'that is gone')} {hook_name}"
        case other:
            return f"a link of type {other}"


def _cgroups(numbers: Collection[int]) -> Mapping[int, str]:
    """Return the paths of cgroups by their ids, which are the inodes of their directories."""
    wanted = set(numbers) - {0}
    found: dict[int, str] = {}
    roots = (line.split() for line in MOUNTS.read_text().splitlines())
    for root in (pathlib.Path(place) for _, place, kind, *_ in roots if kind == "cgroup2"):
        for directory, _, _ in os.walk(root):
            if not wanted - found.keys():
                return found
            with contextlib.suppress(FileNotFoundError):
                inode = pathlib.Path(directory).stat().st_ino
                if inode in wanted:
                    found[inode] = directory
    return found
