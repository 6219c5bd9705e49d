"""What BPF can do on this kernel, found out by trying.

The problem: the socket layer shall run from Linux 5.10 on, and distributions carry features back and leave features
out. The rule: load the smallest program that needs a feature and see; a version is never compared. What is missing is
either done another way, and said, or is a NotSupported of whoever needs it. Nothing is left behind.
"""

from __future__ import annotations

import errno
import os
import resource

from agent.datapath.bpf import assembly, syscalls

PROGRAM_SOCK_ADDR = 18
"""BPF_PROG_TYPE_CGROUP_SOCK_ADDR."""
SET_RETVAL = 187
"""bpf_set_retval(int): Linux 5.18."""
ERRNO_UNSET = (
    "a call that the socket layer refuses ends with EPERM, not EACCES: hooks can choose the error from Linux 5.18 on"
)


def sets_errno() -> bool:
    """Tell whether a hook that refuses connect() can choose the error. Raises OSError if it cannot be found out."""
    instructions = (assembly.put(1, -errno.EACCES), assembly.call(SET_RETVAL), *assembly.RETURN_1)
    attach = syscalls.AttachType.CGROUP_INET4_CONNECT
    try:
        os.close(syscalls.load_program(instructions, kind=PROGRAM_SOCK_ADDR, attach=attach, name="nw_try_errno"))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def refused_errno(*, sets_errno: bool) -> int:
    """Return what a process sees whose connect() or sendmsg() is refused."""
    return errno.EACCES if sets_errno else errno.EPERM


def unlock_memory() -> None:
    """Let this process and its children have maps of any size.

    Before Linux 5.11 maps and programs count as locked memory, of which a process may have 64 KiB; afterwards as the
    cgroup's memory. Without CAP_SYS_RESOURCE it is as much as the process may have.
    """
    unlimited = resource.RLIM_INFINITY
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (unlimited, unlimited))
    except (OSError, ValueError):  # not allowed to
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
