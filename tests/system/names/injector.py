"""Puts DNS answers on the node's end of a pod's veth, where those of the real resolver come by. Runs in the node.

What it sends is as far from the pod's reach as an answer of the resolver itself: what the learner does not take from
here, it takes from nobody.
"""

from __future__ import annotations

import json
import socket
import sys

from tests.system.names import forging

IPV4 = 0x0800


def inject(*, interface: str, hardware: str, **given: object) -> None:
    """Send one answer to a pod's hardware address."""
    one = forging.Forgery(**given)  # type: ignore[arg-type]  # of the tests
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
        raw.sendto(one.packet(), (interface, IPV4, 0, 0, bytes.fromhex(hardware.replace(":", ""))))


def main() -> None:
    """Obey until standard input ends."""
    for line in sys.stdin:
        command = json.loads(line)
        command.pop("do")
        inject(**command)
        print("{}", flush=True)


if __name__ == "__main__":
    main()
