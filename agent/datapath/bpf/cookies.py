"""The cookie of the network namespace that the calling thread is in, on any kernel whose hooks know pods by it.

A socket tells it (SO_NETNS_COOKIE) from Linux 5.14 on; hooks have read it since 5.7, and before 5.12 a namespace has
none until somebody does. So on older kernels a hook is asked: a program for connect() is attached at the root of
cgroup v2, and a datagram socket is connected to a loopback address and port drawn at random. The program writes the
cookie beside that address, and nothing if it is not on its list; every connect() goes on. Loopback is never judged
(rule A40), so the pod's policy has no part in it. Nothing stays attached.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import socket
import struct

from agent import errors
from agent.datapath import probe
from agent.datapath.bpf import assembly, features, rows, syscalls

SO_NETNS_COOKIE = 71
FEATURE = "the cookie of a network namespace"
NEEDS = "Linux 5.14, or 5.7 with BPF programs for cgroup v2"
GET_NETNS_COOKIE = 122
"""bpf_get_netns_cookie(ctx): Linux 5.7."""
MAP_UPDATE_ELEM = 2
UPDATE_EXISTING = 2
"""BPF_EXIST: what user space has not put on the list stays off it."""
CONTEXT_ADDRESS, CONTEXT_PORT = 4, 24
"""Offsets of user_ip4 and user_port in struct bpf_sock_addr."""


def own() -> int:
    """Return the cookie of the calling thread's network namespace. Raises NotSupported, or OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        try:
            return int(struct.unpack("=Q", inside.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
        return told_by_hook(inside)


def told_by_hook(inside: socket.socket) -> int:
    """Return the cookie of the namespace of `inside`, an unused datagram socket made by this process.

    Raises NotSupported.
    """
    features.unlock_memory()
    try:
        with contextlib.ExitStack() as opened:
            answers = syscalls.map_create(
                kind=syscalls.MapType.HASH, key_size=8, value_size=8, max_entries=1, flags=0, name="nw_ask_netns"
            )
            opened.callback(os.close, answers)
            kind, attach = features.PROGRAM_SOCK_ADDR, syscalls.AttachType.CGROUP_INET4_CONNECT
            program = syscalls.load_program(_program(answers), kind=kind, attach=attach, name="nw_ask_netns")
            opened.callback(os.close, program)
            cgroup = os.open(probe.cgroup_root(None), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, cgroup)
            opened.callback(os.close, syscalls.link_cgroup(program, cgroup, attach))
            return _asked(inside, answers)
    except OSError as error:
        raise errors.NotSupported(feature=FEATURE, needs=NEEDS) from error


def _asked(inside: socket.socket, answers: int) -> int:
    """Ask the attached program."""
    address = ipaddress.IPv4Address("127.0.0.0") + secrets.randbelow(1 << 24)
    port = 1 + secrets.randbelow((1 << 16) - 1)
    question = _question(address, port)
    rows.update(answers, question, bytes(8))
    with contextlib.suppress(OSError):  # the namespace may have no way there: the hook comes first
        inside.connect((str(address), port))
    (cookie,) = struct.unpack("=Q", rows.lookup(answers, question, 8) or bytes(8))
    if not cookie:
        raise OSError(errno.ENOMSG, "the hook did not run")
    return int(cookie)


def _question(address: ipaddress.IPv4Address, port: int) -> bytes:
    """Return user_ip4 and user_port as a program reads them: wire order, the port as the lower half of a word."""
    return address.packed + struct.pack("=I", socket.htons(port))


def _program(answers: int) -> tuple[bytes, ...]:
    """Return the program: if what is connected to is a key of the map `answers`, its value becomes the cookie."""
    key, value = -16, -8
    return (
        assembly.copy(6, 1),
        assembly.call(GET_NETNS_COOKIE),
        assembly.keep64(value, 0),
        assembly.read32(1, 6, CONTEXT_ADDRESS),
        assembly.keep32(key, 1),
        assembly.read32(1, 6, CONTEXT_PORT),
        assembly.keep32(key + 4, 1),
        assembly.load_map(1, answers),
        assembly.stack(2, key),
        assembly.stack(3, value),
        assembly.put(4, UPDATE_EXISTING),
        assembly.call(MAP_UPDATE_ELEM),
        *assembly.RETURN_1,
    )
