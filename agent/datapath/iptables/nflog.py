"""Packets the kernel logged to a group, read in batches (nfnetlink_log, Linux 2.6.14).

The problem: the kernel tells of a packet by netlink, to one process a group and network namespace, and a busy node logs
tens of thousands a second. The rule: the kernel gathers up to GATHERED packets or FLUSH_CENTISECONDS into one message
and hands it over without waiting; what finds the receive buffer full is gone, and the numbers it counts packets with
show how many that were. So reading never holds a packet up, and nothing is lost in silence.
"""

from __future__ import annotations

import socket
import struct

from agent import clock as clock_
from agent.datapath.iptables import limit, logged, netlink, subscription, verdicts

COPIED_BYTES = 128
"""Of each packet; all the headers policy needs, but for very long chains of IPv6 extension headers."""
GATHERED = 100
"""Packets in one message at most."""
FLUSH_CENTISECONDS = 1
"""A packet waits this long for company; the observer gathers for 40 ms more."""
MESSAGE_BYTES = 32 << 10
RECEIVE_BYTES = 64 << 10
READ_EVENTS = 7900
"""One reading ends after the message that reaches this: a batch of the observer holds the whole of it, too."""
READ_PACKETS = 16 * READ_EVENTS
"""Or after so many packets of which there is nothing to tell."""

CONFIGURE = logged.SUBSYSTEM | 1
COPY_PACKET = 2
COMMAND_BIND = 1
FLAG_SEQUENCE = 1
A_COMMAND, A_MODE, A_BUFFER, A_TIMEOUT, A_THRESHOLD, A_FLAGS = range(1, 7)

_NUMBER = struct.Struct(">I")


class NflogReader:
    """Reads one group of the network namespace it was made in; satisfies the observer's Reader."""

    def __init__(self, group: int, moments: verdicts.Moments, *, clock: clock_.Clock, verdict_rate: int = 0) -> None:
        """Begin to listen; of verdicts of one kind tell `verdict_rate` a second and a burst (`limit`), 0: all.

        Raises NotSupported without nfnetlink_log, DatapathError if another process listens.
        """
        self._clock = clock
        self._attribution = verdicts.Attribution(moments)
        self._limit = limit.Limit(verdict_rate)
        self._sequence = 0
        self._gaps = 0
        self._overrun = False
        self._subscription = subscription.Subscription(
            "NFLOG group",
            group,
            _configuration(group),
            needs="nfnetlink_log (CONFIG_NETFILTER_NETLINK_LOG)",
            receive_bytes=RECEIVE_BYTES,
            overrun=self._note_overrun,
        )

    @property
    def fd(self) -> int:
        """Becomes readable when packets have been logged."""
        return self._subscription.fileno()

    @property
    def lost(self) -> int:
        """Packets logged that never got here, as far as is known: the next packet tells how many an overrun took."""
        return self._gaps + self._overrun

    @property
    def disagreed(self) -> int:
        """Packets whose verdict could not be explained from the state they were judged under."""
        return self._attribution.disagreed

    def read(self) -> list[verdicts.Event]:
        """Return what is there, oldest first, without waiting; about READ_EVENTS at most."""
        events: list[verdicts.Event] = []
        attribute, admitted = self._attribution.events, self._limit.admitted
        packets = 0
        while len(events) < READ_EVENTS and packets < READ_PACKETS:
            datagram = self._subscription.receive()
            if datagram is None:
                break
            now = self._clock.monotonic_ns()
            found = logged.decode(datagram)
            packets += len(found)
            for packet in found:
                if packet.sequence != self._sequence:
                    self._skip_to(packet.sequence)
                self._sequence = self._sequence + 1 & netlink.SEQUENCES - 1
                events += admitted(attribute(packet, now))
        return events

    def counters(self) -> dict[str, int]:
        """Return the losses by the names a datapath's counters have; any thread may ask."""
        return {
            "events_lost": self.lost,
            "attribution_disagreed": self.disagreed,
            "events_suppressed": self._limit.suppressed,
            "events_repeated": self._limit.repeated,
            "events_forgotten": self._limit.forgotten,
        }

    def close(self) -> None:
        """Stop listening; from then on the kernel logs to nobody."""
        self._subscription.close()

    def _note_overrun(self) -> None:
        self._overrun = True  # told once, ahead of what is still queued

    def _skip_to(self, sequence: int | None) -> None:
        if sequence is None:  # logged in the instant between binding and the flags
            self._sequence = self._sequence - 1 & netlink.SEQUENCES - 1
            return
        self._gaps += sequence - self._sequence & netlink.SEQUENCES - 1
        self._overrun = False
        self._sequence = sequence


def _configuration(group: int) -> bytes:
    """Write one message that binds the group and sets everything, so that hardly a packet comes in between."""
    attributes = b"".join(
        (
            netlink.attribute(A_COMMAND, bytes([COMMAND_BIND])),
            netlink.attribute(A_MODE, struct.pack(">IBx", COPIED_BYTES, COPY_PACKET)),
            netlink.attribute(A_BUFFER, _NUMBER.pack(MESSAGE_BYTES)),
            netlink.attribute(A_TIMEOUT, _NUMBER.pack(FLUSH_CENTISECONDS)),
            netlink.attribute(A_THRESHOLD, _NUMBER.pack(GATHERED)),
            netlink.attribute(A_FLAGS, struct.pack(">H", FLAG_SEQUENCE)),
        )
    )
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
    head = netlink.HEADER.pack(logged.BEGIN + len(attributes), CONFIGURE, flags, 0, 0)
    return head + netlink.FAMILY.pack(socket.AF_UNSPEC, 0, socket.htons(group)) + attributes
