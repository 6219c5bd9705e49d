"""Logged packets as the kernel writes them, for tests without a kernel."""

from __future__ import annotations

import struct

from agent.datapath.iptables import logged as logged_
from agent.datapath.iptables import netlink, prefix
from agent.model import net
from tests.bpf import packets

FORWARD, LOCAL_IN, PRE_ROUTING, INGRESS = 2, 1, 0, 0
IN, OUT = 7, 8


def packet(
    payload: bytes,
    note: prefix.Note,
    *,
    generation: int = 1,
    hook: int = FORWARD,
    ifindex: int = IN,
    family: int | None = None,
) -> logged_.Logged:
    """Return what the reader decodes of one packet; the family is the payload's."""
    version = logged_.NFPROTO_IPV4 if payload[:1] < b"\x60" else logged_.NFPROTO_IPV6
    return logged_.Logged(
        family=family or version,
        hook=hook,
        ethertype=packets.ETH_IPV4 if version == logged_.NFPROTO_IPV4 else packets.ETH_IPV6,
        prefix=str(prefix.Prefix(generation, note)).encode(),
        in_ifindex=ifindex,
        out_ifindex=OUT,
        payload=payload,
        sequence=0,
    )


def message(logged: logged_.Logged, *, sequence: int = 0) -> bytes:
    """Return the netlink message of one packet, attributes in the kernel's order."""
    attributes = [
        (logged_.A_HEADER, struct.pack(">HBB", logged.ethertype, logged.hook, 0)),
        (logged_.A_PREFIX, logged.prefix + b"\0"),
        (logged_.A_IN, struct.pack(">I", logged.in_ifindex)),
        (logged_.A_OUT, struct.pack(">I", logged.out_ifindex)),
        (15, b"\0\x01"),
        (logged_.A_SEQUENCE, struct.pack(">I", sequence)),
        (logged_.A_PAYLOAD, logged.payload),
    ]
    content = b"".join(netlink.attribute(kind, value) for kind, value in attributes)
    length = 20 + len(content)
    return struct.pack("=IHHII", length, logged_.PACKET, 0, 0, 0) + struct.pack(">BBH", logged.family, 0, 0) + content


def flow(client: net.Address, server: net.Address, protocol: int, port: int, *, sport: int = 4000) -> bytes:
    """Return the first packet of a connection."""
    content = struct.pack(">HH", sport, port) + struct.pack(">IIBB", 0, 0, 0x50, 2) + bytes(6)
    if protocol in {1, 58}:
        content = bytes([8 if protocol == 1 else 128]) + bytes(7)
    make = packets.ipv4 if client.version == net.Family.IPV4.value else packets.ipv6
    return make(client, server, protocol, content)
