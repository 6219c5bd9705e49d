"""One attempt: who attacks whom, and the mark by which its packets are known wherever they turn up.

Each attempt has a mark of its own in the payload and a source port of its own, so a sniffer in the victim tells
late packets of one attempt from those of the next, and echoes (an RST, an ICMP error that quotes) from silence.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import socket
import struct
from collections.abc import Callable

BOTH = frozenset({4, 6})
ONLY4 = frozenset({4})
ONLY6 = frozenset({6})
MAGIC = b"nw-mark:"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Addresses are text, so that an aim can be sent to a process in a pod as JSON."""

    source: str
    """The attacker's own address."""
    victim: str
    friend: str
    """Another pod, which the victim's policy admits."""
    node: str
    """An address of the attacker's node."""
    port: int
    """Where the victim listens, TCP, UDP and UDP-Lite alike."""
    friend_port: int
    """Where the friend listens for UDP; the victim has a flow from `port` to it."""
    source_port: int
    """Unique to the attempt."""
    mark: str
    """Unique to the attempt: eight bytes in hexadecimal."""

    @property
    def family(self) -> int:
        """Return the IP version."""
        return ipaddress.ip_address(self.victim).version

    @property
    def domain(self) -> socket.AddressFamily:
        """Return the address family for socket()."""
        return socket.AF_INET if self.family == 4 else socket.AF_INET6

    @property
    def payload(self) -> bytes:
        """Return the bytes that say: this attempt arrived."""
        return MAGIC + bytes.fromhex(self.mark)

    @property
    def traces(self) -> tuple[bytes, ...]:
        """Return what betrays the attempt in a frame: the mark anywhere, its ports in either order as its ports."""
        return (
            self.payload,
            struct.pack("!HH", self.source_port, self.port),
            struct.pack("!HH", self.port, self.source_port),
        )

    def encode(self) -> dict[str, object]:
        """Return the aim as JSON can carry it."""
        return dataclasses.asdict(self)


def decode(fields: dict[str, object]) -> Aim:
    """Rebuild an aim from `Aim.encode`."""
    return Aim(**json.loads(json.dumps(fields)))


def new_mark() -> str:
    """Return a mark nothing else carries."""
    return os.urandom(8).hex()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One row of the table. `run` raises OSError where the kernel refuses the sender."""

    name: str
    run: Callable[[Aim], None]
    families: frozenset[int] = BOTH
    neighbours: bool | None = None
    """True: works only between neighbours on one bridge; False: only where a node routes; None: everywhere."""
