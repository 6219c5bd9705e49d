"""A packet as the kernel logs it: the netlink messages of nfnetlink_log.

The bytes of the packet are hostile, and so is the prefix, for anybody's rule may log to any group: `decode` raises on
nothing and leaves out what is not whole. What a packet was and who is to blame, `verdicts` says.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from agent.datapath.iptables import netlink

NFPROTO_IPV4, NFPROTO_NETDEV, NFPROTO_IPV6 = 2, 5, 10
LOCAL_IN = 1
"""NF_INET_LOCAL_IN."""
SUBSYSTEM = 4 << 8
PACKET = SUBSYSTEM | 0
A_HEADER, A_IN, A_OUT, A_PAYLOAD, A_PREFIX, A_SEQUENCE = 1, 4, 5, 9, 10, 12

BEGIN = netlink.HEADER.size + netlink.FAMILY.size
"""Where the attributes of a message begin."""
_HEADER = struct.Struct(">HB")
_NUMBER = struct.Struct(">I")


class Logged(NamedTuple):
    """One packet as the kernel logged it; what it did not say is 0 or empty."""

    family: int = 0
    """NFPROTO_*: 2 IPv4, 10 IPv6, 5 netdev."""
    hook: int = 0
    """NF_INET_*: 0 PRE_ROUTING, 1 LOCAL_IN, 2 FORWARD; netdev: 0 ingress."""
    ethertype: int = 0
    prefix: bytes = b""
    """Without the NUL."""
    in_ifindex: int = 0
    out_ifindex: int = 0
    payload: bytes = b""
    """From the network header on."""
    sequence: int | None = None
    """Counts the packets logged to the group, those that were lost among them; u32 that wraps."""


def decode(datagram: bytes) -> list[Logged]:
    """Return the packets in one message of the kernel, in order; whatever is not whole is left out."""
    found: list[Logged] = []
    offset, end = 0, len(datagram)
    while offset + BEGIN <= end:
        length, kind, _, _, _ = netlink.HEADER.unpack_from(datagram, offset)
        if length < netlink.HEADER.size or offset + length > end:
            break
        if kind == PACKET and length >= BEGIN:
            found.append(_packet(datagram, offset + BEGIN, offset + length))
        offset += length + 3 & ~3
    return found


def _packet(datagram: bytes, offset: int, end: int) -> Logged:
    hook = ethertype = in_ifindex = out_ifindex = 0
    prefix = payload = b""
    sequence = None
    family = datagram[offset - netlink.FAMILY.size]
    unpack = netlink.ATTRIBUTE.unpack_from
    while offset + 4 <= end:
        length, kind = unpack(datagram, offset)
        if length < netlink.ATTRIBUTE.size or offset + length > end:
            break
        kind &= netlink.NLA_TYPE_MASK
        content = datagram[offset + 4 : offset + length]
        if kind == A_PAYLOAD:
            payload = content
        elif kind == A_PREFIX:
            prefix = content.rstrip(b"\0")
        elif length >= 8:  # noqa: PLR2004 - all others are a word
            if kind == A_HEADER:
                ethertype, hook = _HEADER.unpack_from(content)
            elif kind == A_IN:
                (in_ifindex,) = _NUMBER.unpack_from(content)
            elif kind == A_OUT:
                (out_ifindex,) = _NUMBER.unpack_from(content)
            elif kind == A_SEQUENCE:
                (sequence,) = _NUMBER.unpack_from(content)
        offset += length + 3 & ~3
    return Logged(family, hook, ethertype, prefix, in_ifindex, out_ifindex, payload, sequence)
