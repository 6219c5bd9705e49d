"""bpf(2), as far as the agent needs it: maps, pins, programs, links.

The problem: the agent runs for months and only reads and writes pinned objects; for that neither LLVM
nor libbpf is worth its memory. The rule: one function a command, arguments in, OSError out, no policy.
Errors carry the kernel's errno; callers say what was being done to what. What the kernel answers
spuriously under load (ENOMEM of LPM tries, EBUSY of hash buckets, EAGAIN of the verifier) is retried
here and nowhere else.

Structures follow union bpf_attr and the bpf_*_info of include/uapi/linux/bpf.h, in native byte order.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import enum
import errno
import functools
import os
import platform
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from agent.datapath.bpf import assembly

BPF_CALLS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
MEMBARRIER_CALLS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "s390x": 356, "ppc64le": 365}

MEMBARRIER_CMD_GLOBAL = 1
F_NO_PREALLOC = 1 << 0
F_MMAPABLE = 1 << 10
F_NETFILTER_IP_DEFRAG = 1 << 0
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.001
SPURIOUS = frozenset({errno.ENOMEM, errno.EBUSY, errno.EAGAIN, errno.EINTR})

T = TypeVar("T")


class Command(enum.IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_DETACH = 34


class MapType(enum.IntEnum):
    """enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


class AttachType(enum.IntEnum):
    """enum bpf_attach_type."""

    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    NETFILTER = 45
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MapInfo:
    """struct bpf_map_info, the part that must agree with what we expect."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo:
    """struct bpf_prog_info."""

    type: int
    id: int
    name: str
    jited_bytes: int
    xlated_bytes: int
    verified_instructions: int
    tag: str = ""
    """SHA of the instructions, the first eight bytes in hex."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """struct bpf_link_info; `detail` is the union: four u32 whose meaning depends on the kind of link."""

    type: int
    id: int
    program_id: int
    detail: tuple[int, int, int, int]

    @property
    def cgroup_id(self) -> int:
        """The cgroup of a cgroup link; 0 when it is gone."""
        low, high = self.detail[:2]
        return struct.unpack("=Q", struct.pack("=II", low, high))[0]  # type: ignore[no-any-return]

    @property
    def ifindex(self) -> int:
        """The interface of a tcx link; 0 when it is gone."""
        return self.detail[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NetfilterHook:
    """Where a netfilter link sits; `defrag` has the kernel put fragments together first (Linux 6.6)."""

    family: int
    """NFPROTO_IPV4 (2) or NFPROTO_IPV6 (10)."""
    number: int
    """enum nf_inet_hooks."""
    priority: int
    defrag: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """Result of BPF_PROG_TEST_RUN."""

    verdict: int
    data: bytes
    nanoseconds: int
    """Mean of one run."""


def bpf(command: Command, attr: bytes | bytearray) -> tuple[int, bytearray]:
    """Make one call; return its result and the attribute as the kernel left it. Raises OSError."""
    result, code, left = attempt(command, attr)
    if code:
        raise OSError(code, f"bpf({command.name}): {os.strerror(code)}")
    return result, left


def attempt(command: Command, attr: bytes | bytearray) -> tuple[int, int, bytearray]:
    """Return (result, errno or 0, the attribute afterwards): batches say in it how far they came."""
    buffer = bytearray(attr)
    view = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    result: int = _libc().syscall(_number(BPF_CALLS), int(command), view, len(buffer))
    return result, ctypes.get_errno() if result < 0 else 0, buffer


def patiently(call: Callable[[], T]) -> T:
    """Make `call`, again after growing pauses while the kernel's answer is one of SPURIOUS. Raises OSError."""
    pause = FIRST_PAUSE_SECONDS
    for _ in range(ATTEMPTS - 1):
        try:
            return call()
        except OSError as error:
            if error.errno not in SPURIOUS:
                raise
        time.sleep(pause)
        pause *= 2
    return call()


@contextlib.contextmanager
def owned(descriptor: int) -> Iterator[int]:
    """Close `descriptor` at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def map_create(*, kind: MapType, key_size: int, value_size: int, max_entries: int, flags: int, name: str) -> int:
    """Create a map; return its descriptor."""
    attr = struct.pack("=7I15sx", kind, key_size, value_size, max_entries, flags, 0, 0, name.encode()[:15])
    return bpf(Command.MAP_CREATE, attr + bytes(40))[0]


def pin(descriptor: int, path: os.PathLike[str]) -> None:
    """Pin a map, program or link; the directory must be on a bpffs."""
    name = buffer_of(os.fsencode(path) + b"\0")
    bpf(Command.OBJ_PIN, struct.pack("=QIII", ctypes.addressof(name), descriptor, 0, 0))


def open_pin(path: os.PathLike[str]) -> int:
    """Open a pinned object; return its descriptor."""
    name = buffer_of(os.fsencode(path) + b"\0")
    return bpf(Command.OBJ_GET, struct.pack("=QIII", ctypes.addressof(name), 0, 0, 0))[0]


def map_info(descriptor: int) -> MapInfo:
    """Describe a map."""
    raw = _info(descriptor, 80)
    kind, number, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", raw)
    return MapInfo(
        type=kind, id=number, key_size=key_size, value_size=value_size, max_entries=max_entries, flags=flags,
        name=_name(raw[24:40]),
    )  # fmt: skip


def program_info(descriptor: int) -> ProgramInfo:
    """Describe a program."""
    raw = _info(descriptor, 232)
    kind, number = struct.unpack_from("=2I", raw)
    jited, xlated = struct.unpack_from("=2I", raw, 16)
    return ProgramInfo(
        type=kind, id=number, name=_name(raw[64:80]), jited_bytes=jited, xlated_bytes=xlated,
        verified_instructions=struct.unpack_from("=I", raw, 216)[0], tag=raw[8:16].hex(),
    )  # fmt: skip


def link_info(descriptor: int) -> LinkInfo:
    """Describe a link."""
    raw = _info(descriptor, 64)
    kind, number, program = struct.unpack_from("=3I", raw)
    return LinkInfo(type=kind, id=number, program_id=program, detail=struct.unpack_from("=4I", raw, 16))


def load_accepting(kind: int, attach: int) -> int:
    """Load `return 1`, a program of type `kind` for `attach`; return its descriptor. EINVAL: the type is unknown."""
    return load_program(assembly.RETURN_1, kind=kind, attach=attach, name="nw_nothing")


def load_program(instructions: Sequence[bytes], *, kind: int, attach: int, name: str) -> int:
    """Load a program of type `kind` for `attach`; return its descriptor.

    EINVAL: the type or a function it calls is unknown; EACCES: the verifier refuses it.
    """
    code, licence = buffer_of(b"".join(instructions)), buffer_of(b"GPL\0")
    count = len(code) // assembly.BYTES
    attr = struct.pack("=IIQQ", kind, count, ctypes.addressof(code), ctypes.addressof(licence))
    attr += struct.pack("=IIQII15sxII", 0, 0, 0, 0, 0, name.encode()[:15], 0, attach)
    return patiently(lambda: bpf(Command.PROG_LOAD, attr)[0])


def link_cgroup(program: int, cgroup: int, attach: AttachType) -> int:
    """Attach a program to a cgroup directory's descriptor, beside what others attached; return the link."""
    return bpf(Command.LINK_CREATE, struct.pack("=4I", program, cgroup, attach, 0) + bytes(48))[0]


def link_netfilter(program: int, hook: NetfilterHook) -> int:
    """Attach to a netfilter hook of this network namespace; EBUSY: the priority is taken (Linux 6.4)."""
    flags = F_NETFILTER_IP_DEFRAG if hook.defrag else 0
    where = struct.pack("=IIiI", hook.family, hook.number, hook.priority, flags)
    attr = struct.pack("=4I", program, 0, AttachType.NETFILTER, 0) + where + bytes(32)
    return bpf(Command.LINK_CREATE, attr)[0]


def link_tcx(program: int, ifindex: int, attach: AttachType = AttachType.TCX_INGRESS) -> int:
    """Attach to tc ingress or egress of an interface, behind other programs (Linux 6.6)."""
    return bpf(Command.LINK_CREATE, struct.pack("=4I", program, ifindex, attach, 0) + bytes(48))[0]


def link_update(link: int, program: int) -> None:
    """Replace a link's program atomically; not for netfilter links."""
    bpf(Command.LINK_UPDATE, struct.pack("=4I", link, program, 0, 0))


def link_detach(link: int) -> None:
    """Detach; the link lives on, dead, while it is pinned or open."""
    bpf(Command.LINK_DETACH, struct.pack("=I", link) + bytes(12))


def program_test_run(program: int, data: bytes, *, repeat: int = 1) -> TestRun:
    """Run a program on a packet."""
    given, out = buffer_of(data), ctypes.create_string_buffer(len(data) + 256)
    attr = struct.pack(
        "=4IQQII", program, 0, len(data), len(out), ctypes.addressof(given), ctypes.addressof(out), repeat, 0
    )
    filled = bpf(Command.PROG_TEST_RUN, attr)[1]
    verdict, length = struct.unpack_from("=I", filled, 4)[0], struct.unpack_from("=I", filled, 12)[0]
    return TestRun(verdict=verdict, data=out.raw[:length], nanoseconds=struct.unpack_from("=I", filled, 36)[0])


def wait_for_programs() -> bool:
    """Return True once every program that was running has ended (an RCU grace period); False: cannot tell.

    MEMBARRIER_CMD_GLOBAL is synchronize_rcu(); kernels with nohz_full CPUs refuse it.
    """
    return bool(_libc().syscall(_number(MEMBARRIER_CALLS), MEMBARRIER_CMD_GLOBAL, 0, 0) == 0)


@functools.cache
def _libc() -> ctypes.CDLL:
    """Open it once: that takes longer than most calls."""
    return ctypes.CDLL(None, use_errno=True)


def _number(calls: Mapping[str, int]) -> int:
    return calls[platform.machine()]


def _info(descriptor: int, size: int) -> bytes:
    raw = ctypes.create_string_buffer(size)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, size, ctypes.addressof(raw)))
    return raw.raw


def buffer_of(content: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return memory the kernel can read; it must be kept alive during the call."""
    return ctypes.create_string_buffer(content, max(len(content), 1))


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")
