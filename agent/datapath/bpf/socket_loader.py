"""Compile, load and pin the socket programs with BCC, then exit: `python -m agent.datapath.bpf.socket_loader`.

The problem: importing and running a compiler costs 140 MiB, once in the life of a node. The rule: this is
a process of its own and the only file that names bcc; the agent starts it, reads how it ended, and opens
the pins. Maps are opened by their pins and handed to the compiler as numbers (`bpf/include/engine.h`):
BCC can neither declare nor adopt them without CAP_SYS_ADMIN. What it compiled is kept and loaded again without it
where somebody asked for that (`compiled`).

It prints nothing when all went well. When not, what BCC and the verifier said is on standard error and
the exit status is 1; 3 says that bcc is missing.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys

from agent import errors, patience
from agent.datapath.bpf import artifacts, compiled, features, maps, syscalls

ATTACH_TYPES = {
    # first, so that a socket made while the others are attached is known
    "nw_sock_create": syscalls.AttachType.CGROUP_INET_SOCK_CREATE,
    "nw_post_bind4": syscalls.AttachType.CGROUP_INET4_POST_BIND,
    "nw_post_bind6": syscalls.AttachType.CGROUP_INET6_POST_BIND,
    "nw_connect4": syscalls.AttachType.CGROUP_INET4_CONNECT,
    "nw_connect6": syscalls.AttachType.CGROUP_INET6_CONNECT,
    "nw_sendmsg4": syscalls.AttachType.CGROUP_UDP4_SENDMSG,
    "nw_sendmsg6": syscalls.AttachType.CGROUP_UDP6_SENDMSG,
}
"""Program -> where it belongs; the expected attach type must be given at load."""
SOCKET_LIFE = frozenset(
    {
        syscalls.AttachType.CGROUP_INET_SOCK_CREATE,
        syscalls.AttachType.CGROUP_INET4_POST_BIND,
        syscalls.AttachType.CGROUP_INET6_POST_BIND,
    }
)
"""Hooks whose programs see a socket, not an address."""
CGROUP_SOCK, CGROUP_SOCK_ADDR = 9, 18
"""enum bpf_prog_type."""
SOURCE = "socket.bpf.c"
EXIT_REJECTED = 1
EXIT_NO_BCC = 3
TIMEOUT_SECONDS = 120
"""A starved node has taken 3 s; a compiler that hangs must not keep the last policy from being adopted."""


def load(*, map_pins: pathlib.Path, program_pins: pathlib.Path, sets_errno: bool | None = None) -> None:
    """Run the loader as a child process and wait. Raises NotSupported without bcc, ProgramRejected with its log.

    `sets_errno`: have refused calls end with EACCES, not EPERM; None: where the kernel can.
    """
    sets_errno = features.sets_errno() if sets_errno is None else sets_errno
    kept = compiled.Kept.of(_flags(sets_errno=sets_errno))
    if kept is not None and kept.load(programs(), map_pins=map_pins, program_pins=program_pins):
        return
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    command += ["--maps", str(map_pins), "--programs", str(program_pins)]
    command += ["--sets-errno"] if sets_errno else []
    timeout_s = patience.seconds(TIMEOUT_SECONDS)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise errors.ProgramRejected(program=SOURCE, log=f"no end after {timeout_s:.0f} s") from error
    if ended.returncode == EXIT_NO_BCC:
        raise errors.NotSupported(feature="the socket layer", needs="bcc: install the distribution's python3-bpfcc")
    if ended.returncode != 0:
        raise errors.ProgramRejected(program=SOURCE, log=ended.stderr + ended.stdout)


def main() -> int:
    """Do it in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=pathlib.Path, required=True, help="directory of the pinned maps")
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory to pin the programs in")
    parser.add_argument("--sets-errno", action="store_true", help="refuse with EACCES, not EPERM")
    arguments = parser.parse_args()
    try:
        import bcc  # noqa: PLC0415 - 70 MiB that only this process may spend
    except ImportError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_BCC
    found = artifacts.find()
    os.environ["BCC_KERNEL_SOURCE"] = str(found.headers)
    opened = {shape.name: syscalls.open_pin(arguments.maps / shape.name) for shape in maps.shapes()}
    flags = _flags(sets_errno=arguments.sets_errno)
    kept = compiled.Kept.of(flags)
    flags += [f"-I{found.sources / 'include'}", *(f"-DNW_FD_{name}={number}" for name, number in opened.items())]
    try:
        module = bcc.BPF(src_file=str(found.sources / SOURCE).encode(), cflags=flags)
        for name, attach_type in ATTACH_TYPES.items():
            kind = bcc.BPF.CGROUP_SOCK if attach_type in SOCKET_LIFE else bcc.BPF.CGROUP_SOCK_ADDR
            program = module.load_func(name, kind, attach_type=int(attach_type))
            syscalls.pin(program.fd, arguments.programs / name)
        if kept is not None:
            kept.keep({name: module.dump_func(name.encode()) for name in ATTACH_TYPES}, opened)
    except Exception as error:  # noqa: BLE001 - bcc raises bare Exception
        sys.stderr.write(f"{error}\n")
        return EXIT_REJECTED
    return 0


def _flags(*, sets_errno: bool) -> list[str]:
    """Return what the compiler is told, wherever headers and maps are."""
    return ["-w", "-DNW_BCC", *(["-DNW_SETS_ERRNO"] if sets_errno else [])]


def programs() -> list[compiled.Program]:
    """Return what is loaded."""
    return [
        compiled.Program(name=name, kind=CGROUP_SOCK if attach in SOCKET_LIFE else CGROUP_SOCK_ADDR, attach=attach)
        for name, attach in ATTACH_TYPES.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
