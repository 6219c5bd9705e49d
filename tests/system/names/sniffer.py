"""The control of requirement F15: a learner in user space, as fast as Python allows, at the same veth.

It reads every frame to a pod, and writes the addresses of DNS answers into the very map that the kernel's learner
writes, with the same class. What is between the answer's way to the pod and this map is what is measured: the pod's
connect() may come first. It trusts everybody, so that it can learn from a server of which the kernel learns nothing.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
import select
import socket
import sys

from agent.datapath.bpf import syscalls
from tests.bpf import learned
from tests.system.names import dns

ETHERNET, UDP, UDP_HEADER = 14, 17, 8
VALID_S = 60.0
SO_RCVBUFFORCE, ROOM = 33, 1 << 26
"""No frame is lost to it: late is not the same as never."""


def answered(frame: bytes) -> tuple[str, ...]:
    """Return the addresses in a frame, if it is a DNS answer by UDP over IPv4."""
    at = ETHERNET
    if len(frame) < at + 28 or frame[12:14] != b"\x08\x00" or frame[at + 9] != UDP:
        return ()
    at += (frame[at] & 15) * 4
    if int.from_bytes(frame[at : at + 2], "big") != dns.PORT:
        return ()
    return dns.read(frame[at + UDP_HEADER :]).addresses


def main(interface: str, pin: str, endpoint: int, class_: int) -> None:
    """Learn until standard input ends; a line there is answered, when no frame waits, with how many were."""
    with (
        syscalls.owned(syscalls.open_pin(pathlib.Path(pin))) as descriptor,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as frames,
    ):
        frames.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        frames.bind((interface, 0))
        known, count = learned.Learned(descriptor), 0
        while True:
            ready, _, _ = select.select([frames, sys.stdin.fileno()], [], [])
            if frames in ready:
                for address in answered(frames.recv(1 << 16)):
                    known.put(endpoint, ipaddress.ip_address(address), {class_: VALID_S})
                    count += 1
            elif ready:
                if not os.read(sys.stdin.fileno(), 1 << 16):
                    return
                print(json.dumps({"learned": count}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
