"""What a bundle has of the node: kernel, mounts of cgroup2 and bpffs, our pins, chains and sets, conntrack's size.

Everything is of the agent's network namespace, and chains, sets and pins are ours alone: what others have on the node
is none of this bundle's business. Nothing here brings an iptables table into being.
"""

from __future__ import annotations

import itertools
import pathlib
import platform
from collections.abc import Iterator, Mapping

from agent import errors
from agent.cli import output
from agent.datapath.bpf import syscalls
from agent.datapath.iptables import commands, ruleset, sets
from agent.model import net

PROC = pathlib.Path("/proc")
LEGACY_TABLES: Mapping[net.Family, str] = {
    net.Family.IPV4: "thread-self/net/ip_tables_names",
    net.Family.IPV6: "thread-self/net/ip6_tables_names",
}
"""Of the calling thread, which may be in the agent's network namespace."""
KERNEL_FILES = ("version", "sys/kernel/osrelease", "uptime", "loadavg")
SYSCTLS = (
    *("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/rp_filter"),
    *("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"),
    *("net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count"),
    *("net/netfilter/nf_conntrack_tcp_be_liberal", "net/netfilter/nf_log_all_netns"),
    *("kernel/unprivileged_bpf_disabled", "net/core/bpf_jit_enable", "net/core/bpf_jit_harden"),
)
MOUNTS = frozenset({"cgroup2", "bpf"})
PINS_MOST = 1000


def kernel() -> Mapping[str, object]:
    """Return the kernel's release and the settings that concern us."""
    return {
        "machine": platform.machine(),
        **{name: _text(PROC / name) for name in KERNEL_FILES},
        "sysctl": {name.replace("/", "."): _text(PROC / "sys" / name) for name in SYSCTLS},
    }


def conntrack() -> Mapping[str, object]:
    """Return how many connections the kernel tracks here, and how many it can."""
    return {name: _text(PROC / "sys/net/netfilter" / name) for name in ("nf_conntrack_count", "nf_conntrack_max")}


def mounts() -> str:
    """Return the mounts of cgroup2 and bpffs."""
    return "".join(f"{line}\n" for line in _mounts((PROC / "self/mountinfo").read_text(errors="replace")))


def _mounts(text: str) -> Iterator[str]:
    for line in text.splitlines():
        fields = line.partition(" - ")[2].split()
        if fields and fields[0] in MOUNTS:
            yield line


def pins(root: pathlib.Path) -> list[Mapping[str, object]]:
    """Return every pin below `root`, with what the kernel says of its size. Raises OSError."""
    paths = itertools.islice((path for path in sorted(root.rglob("*")) if not path.is_dir()), PINS_MOST)
    return [{"pin": str(path), **_pinned(path)} for path in paths]


def _pinned(path: pathlib.Path) -> Mapping[str, object]:
    try:
        with syscalls.owned(syscalls.open_pin(path)) as descriptor:
            lines = (PROC / "thread-self/fdinfo" / str(descriptor)).read_text().splitlines()
    except OSError as error:
        return {"error": error.strerror}
    fields = (line.partition(":") for line in lines)
    return {key: value.strip() for key, _, value in fields if key not in {"pos", "flags", "mnt_id", "ino"}}


def chains() -> str:
    """Return our chains, and the rules that lead to them, of both variants and families."""
    return "".join(f"{line}\n" for line in _chains())


def _chains() -> Iterator[str]:
    for variant in commands.Variant:
        for family in net.Family:
            tool = commands.tool(family, variant, "save")
            if tool is None:
                continue
            there = _tables(family, variant)
            for table in (one.value for one in ruleset.Table):
                if table not in there:
                    continue
                try:
                    text = commands.save(family, variant, table)
                except errors.DatapathError as error:
                    yield f"# {tool} -t {table}: {error}"
                    continue
                yield f"# {tool} -t {table}"
                yield from (line for line in text.splitlines() if ruleset.CHAIN_PREFIX in line)


def _tables(family: net.Family, variant: commands.Variant) -> frozenset[str]:
    """Return the tables that can be read without bringing them into being."""
    if variant is commands.Variant.NFT:
        return frozenset(one.value for one in ruleset.Table)
    try:
        return frozenset((PROC / LEGACY_TABLES[family]).read_text().split())
    except OSError:  # the module is not loaded
        return frozenset()


def ipsets() -> Mapping[str, object]:
    """Return our sets, without their members. Raises NotSupported, ApplyFailed."""
    kernel_sets = sets.Sets()
    try:
        return {name: output.plain(header) for name, header in kernel_sets.headers(ruleset.SET_PREFIX).items()}
    finally:
        kernel_sets.close()


def _text(path: pathlib.Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None
