"""The calls by which the agent finds out whether the socket layer refuses, made by a process of their own.

Run as `python -m agent.datapath.bpf.attempts [CGROUP]` this joins the cgroup, prints the cookie of its network
namespace, and for each line it reads prints what every attempt got (an errno, 0 for none) as JSON.

The process lives in the node's network namespace, like the agent, for one of its own would need CAP_SYS_ADMIN. So that
no packet leaves the node whatever the hooks say, sockets are UDP, which connects without a packet, and bound to the
loopback device, where a datagram for a foreign address is thrown away. (`SO_BINDTODEVICE` asks for no capability since
Linux 5.7, and is no bind().) The addresses are reserved: 192.0.2.0/24 for documentation, 100::/64 for discarding.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import socket
import sys
from collections.abc import Callable

from agent import errors
from agent.datapath.bpf import cookies
from agent.model import net

EXIT_NO_COOKIE = 3
PORT = 9
"""`discard`, with a reserved address: nobody serves there."""
SERVERS: tuple[net.Address, net.Address] = (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("100::1"))
HOOKS = ("connect4", "connect6", "sendmsg4", "sendmsg6")
"""What must refuse, in the order of the attempts."""
EXEMPTING_HOOKS = ("post_bind4", "post_bind6")
"""What exempts a bound UDP socket, which may be answering (rule A38); the attempts after those of HOOKS."""


def main() -> int:
    """Be the process."""
    if sys.argv[1:]:
        (pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    try:
        _say(str(cookies.own()))
    except errors.NotSupported as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_COOKIE
    for _ in sys.stdin:
        _say(json.dumps(attempt_all()))
    return 0


def attempt_all() -> list[int]:
    """Return an errno for each of HOOKS and EXEMPTING_HOOKS; EAFNOSUPPORT where the node has no IPv6."""
    four, six = ((str(server), PORT) for server in SERVERS)
    return [
        _attempt(socket.AF_INET, lambda probe: probe.connect(four)),
        _attempt(socket.AF_INET6, lambda probe: probe.connect(six)),
        _attempt(socket.AF_INET, lambda probe: probe.sendto(b"", four)),
        _attempt(socket.AF_INET6, lambda probe: probe.sendto(b"", six)),
        _attempt(socket.AF_INET, lambda probe: probe.connect(four), bound=True),
        _attempt(socket.AF_INET6, lambda probe: probe.connect(six), bound=True),
    ]


def _attempt(family: socket.AddressFamily, action: Callable[[socket.socket], object], *, bound: bool = False) -> int:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            if bound:
                probe.bind(("", 0))
            action(probe)
    except OSError as error:
        return error.errno or 0
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
