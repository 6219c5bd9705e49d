"""Whether anybody has written to our tables, asked in microseconds.

The problem: foreign rules must be found within seconds, and reading ten thousand rules each second costs more than
enforcing them. The rule: the kernel keeps something that moves with every change. nftables counts generations of a
network namespace; x_tables tells of each table its size, its number of entries and where its built-in chains begin.
Two stamps that are equal mean that nothing was written in between, except, in x_tables, where a rule was exchanged
for one of the same size: `jumps` looks for the one such change that matters.

Structures follow include/uapi/linux/netfilter_ipv4/ip_tables.h (struct ipt_getinfo) and nf_tables.h.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from agent import errors
from agent.datapath.iptables import commands, netlink, ruleset
from agent.model import net

SO_GET_INFO = 64
"""IPT_SO_GET_INFO and IP6T_SO_GET_INFO."""
SOCKETS: Mapping[net.Family, tuple[socket.AddressFamily, int]] = {
    net.Family.IPV4: (socket.AF_INET, socket.IPPROTO_IP),
    net.Family.IPV6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
NAME_BYTES = 32
INFO = struct.Struct(f"={NAME_BYTES}s13I")
"""Name, valid hooks, five entry points, five underflows, entries, size."""
ENTRIES = 11
"""Where the number of entries is in what `info` returns."""
NFT_GETGEN = 10 << 8 | 16
NFTA_GEN_ID = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Stamp:
    """What moves when tables change."""

    generation: int | None
    """Of nftables; None where it does not count."""
    tables: Mapping[tuple[net.Family, ruleset.Table], tuple[int, ...] | None]
    """Of x_tables, see `info`; empty where they do not count."""


def take(variant: commands.Variant, tables: Sequence[ruleset.Table]) -> Stamp:
    """Return the stamp of these tables as they are now. Raises DatapathError."""
    if variant is commands.Variant.NFT:
        return Stamp(generation(), {})
    return Stamp(None, {(family, table): info(family, table) for family in net.Family for table in tables})


def is_next(
    before: Stamp, after: Stamp, *, commits: int, entries: Mapping[tuple[net.Family, ruleset.Table], int]
) -> bool:
    """Tell whether nothing but our own transactions lies between: so many commits, and so many entries more a table."""
    if before.generation is not None and after.generation is not None:
        return after.generation - before.generation == commits
    for key, then in before.tables.items():
        now = after.tables.get(key)
        if then is None or now is None or now[ENTRIES] - then[ENTRIES] != entries.get(key, 0):
            return False
    return bool(before.tables)


def generation() -> int | None:
    """Return the number of nftables commits in this network namespace; None: the kernel has no nf_tables."""
    try:
        asking = netlink.Nfnetlink()
    except OSError:
        return None
    try:
        answer = asking.ask(netlink.Request(kind=NFT_GETGEN, family=socket.AF_UNSPEC, body=b""))
    except OSError:
        return None
    finally:
        asking.close()
    return int.from_bytes(netlink.attributes(answer)[NFTA_GEN_ID], "big")


def info(family: net.Family, table: ruleset.Table) -> tuple[int, ...] | None:
    """Return an x_tables table's numbers; None: it is not there and cannot be loaded. Raises DatapathError."""
    address_family, level = SOCKETS[family]
    buffer = ctypes.create_string_buffer(INFO.pack(table.value.encode(), *(0,) * 13), INFO.size)
    size = ctypes.c_uint32(INFO.size)
    with _raw_socket(address_family) as asking:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(asking.fileno(), level, SO_GET_INFO, buffer, ctypes.byref(size)) != 0:
            code = ctypes.get_errno()
            if code in {errno.ENOENT, errno.ENOPROTOOPT}:
                return None
            raise errors.DatapathError(f"asking for the table {table.value} of IPv{family.value}: {os.strerror(code)}")
    return INFO.unpack(buffer.raw)[1:]


def _raw_socket(address_family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(address_family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
    except OSError as error:
        raise errors.DatapathError(f"a socket to ask for tables: {error}") from error
