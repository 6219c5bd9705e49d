"""Packets that the kernel holds until they are let go: a queue of nfnetlink_queue (Linux 2.6.14).

The problem: a packet has to wait until what it teaches is in force, and nobody may wait for an agent that is slow, busy
or dead. The rules: whoever sends packets here says `--queue-bypass`, so that without a reader they pass; what finds the
queue full passes likewise (fail-open, Linux 3.6), as does what the socket has no room for; and every packet that is
read is let go, whatever became of it. Packets come whole and in the order in which they passed.

Messages follow include/uapi/linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from agent import errors
from agent.datapath.iptables import netlink, subscription
from agent.model import net

QUEUE = 4711
"""The number of the queue; only the agent listens to it."""
LENGTH = 2048
"""Packets that wait at most: less than half a second's work."""
RECEIVE_BYTES = 1 << 17
SUBSYSTEM = 3 << 8
PACKET, VERDICT, CONFIGURE = SUBSYSTEM | 0, SUBSYSTEM | 1, SUBSYSTEM | 2
C_COMMAND, C_PARAMETERS, C_LENGTH, C_MASK, C_FLAGS = range(1, 6)
COMMAND_BIND, COMMAND_UNBIND = 1, 2
COPY_PACKET, FAIL_OPEN = 2, 1
WHOLE = 0xFFFF
A_HEADER, A_VERDICT, A_PAYLOAD = 1, 2, 10
ACCEPT = 1
ETHERTYPES = {0x0800: net.Family.IPV4, 0x86DD: net.Family.IPV6}

_BEGIN = netlink.HEADER.size + netlink.FAMILY.size
_NUMBER = struct.Struct(">I")
_HEADER = struct.Struct(">IH")
_PARAMETERS = struct.Struct(">IB")
_VERDICT = struct.Struct(">II")


class Held(NamedTuple):
    """One packet that waits."""

    number: int
    """By which it is let go."""
    family: net.Family | None
    """None: it is no IP packet."""
    payload: bytes
    """From the network header on; hostile."""


class Queue:
    """Reads one queue of the network namespace it was made in; for one thread."""

    def __init__(self, number: int = QUEUE) -> None:
        """Begin to hold packets.

        Raises NotSupported without nfnetlink_queue, DatapathError if another process has the queue.
        """
        self.number = number
        self.overruns = 0
        """Times that packets passed unread, for the socket had no room."""
        self._subscription = subscription.Subscription(
            "NFQUEUE queue",
            number,
            _configuration(number),
            needs="nfnetlink_queue (CONFIG_NETFILTER_NETLINK_QUEUE)",
            receive_bytes=RECEIVE_BYTES,
            overrun=self._note_overrun,
        )

    @property
    def fd(self) -> int:
        """Becomes readable when packets wait."""
        return self._subscription.fileno()

    def read(self) -> list[Held] | None:
        """Return the packets of one message, oldest first; None: nothing waits. Raises DatapathError."""
        datagram = self._subscription.receive()
        return list(decode(datagram)) if datagram is not None else None

    def let_go(self, number: int) -> None:
        """Let a packet pass. Raises DatapathError."""
        body = netlink.attribute(A_VERDICT, _VERDICT.pack(ACCEPT, number))
        head = netlink.HEADER.pack(_BEGIN + len(body), VERDICT, netlink.NLM_F_REQUEST, 0, 0)
        try:
            self._subscription.send(head + _of_queue(self.number) + body)
        except OSError as error:
            raise errors.DatapathError(f"letting a held packet go: {error}") from error

    def close(self) -> None:
        """Hold nothing any more: what comes passes, what waits is sent again by who asks. Safe to repeat.

        The queue is given up before the socket, for a child that was forked may have that, too.
        """
        if self._subscription.fileno() < 0:
            return
        body = netlink.attribute(C_COMMAND, struct.pack(">BxH", COMMAND_UNBIND, socket.AF_UNSPEC))
        head = netlink.HEADER.pack(_BEGIN + len(body), CONFIGURE, netlink.NLM_F_REQUEST, 0, 0)
        with contextlib.suppress(OSError):
            self._subscription.send(head + _of_queue(self.number) + body)
        self._subscription.close()

    def _note_overrun(self) -> None:
        self.overruns += 1


def decode(datagram: bytes) -> Iterator[Held]:
    """Yield the packets in one message of the kernel; whatever is not whole is left out."""
    offset = 0
    while offset + _BEGIN <= len(datagram):
        length, kind, _, _, _ = netlink.HEADER.unpack_from(datagram, offset)
        if length < _BEGIN or offset + length > len(datagram):
            return
        if kind == PACKET:
            told = netlink.attributes(datagram[offset + _BEGIN : offset + length])
            header = told.get(A_HEADER, b"")
            if len(header) >= _HEADER.size:
                number, ethertype = _HEADER.unpack_from(header)
                yield Held(number, ETHERTYPES.get(ethertype), told.get(A_PAYLOAD, b""))
        offset += netlink.aligned(length)


def _configuration(number: int) -> bytes:
    """Write one message that binds the queue and sets everything, so that no packet comes in between."""
    body = b"".join(
        (
            netlink.attribute(C_COMMAND, struct.pack(">BxH", COMMAND_BIND, socket.AF_UNSPEC)),
            netlink.attribute(C_PARAMETERS, _PARAMETERS.pack(WHOLE, COPY_PACKET)),
            netlink.attribute(C_LENGTH, _NUMBER.pack(LENGTH)),
            netlink.attribute(C_MASK, _NUMBER.pack(FAIL_OPEN)),
            netlink.attribute(C_FLAGS, _NUMBER.pack(FAIL_OPEN)),
        )
    )
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
    return netlink.HEADER.pack(_BEGIN + len(body), CONFIGURE, flags, 0, 0) + _of_queue(number) + body


def _of_queue(number: int) -> bytes:
    return netlink.FAMILY.pack(socket.AF_UNSPEC, 0, socket.htons(number))
