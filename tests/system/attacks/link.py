"""Frames out of the pod's interface by AF_PACKET: below every socket hook, below the pod's own routing.

The next hop is found by asking the kernel for a route and its neighbour table, once and before policies: resolving
needs a datagram, which an egress policy would refuse. What is found is remembered for the life of the process.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import socket
import struct
import subprocess
import time

from tests.system.attacks import wire

INTERFACE = "eth0"
NEIGHBOUR_WAIT_S = 2.0
DISCARD_PORT = 9
ETHERNET_SIZE = 14
SOL_PACKET = 263
PACKET_VNET_HDR = 15
NEEDS_CHECKSUM = 1
GSO_TCP4 = 1
GSO_TCP6 = 4


def interface_mac() -> bytes:
    """Return the MAC address of the pod's interface; /sys may show another network namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((INTERFACE, 0))
        address: bytes = sock.getsockname()[4]
        return address


def _ip(*words: str) -> list[dict[str, object]]:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True, check=True)
    answer: list[dict[str, object]] = json.loads(done.stdout or "[]")
    return answer


def _next_hop(address: str) -> str:
    route = _ip("route", "get", address)[0]
    via = route.get("gateway") or route.get("via") or address
    return str(via["host"]) if isinstance(via, dict) else str(via)


def _neighbour(hop: str) -> bytes | None:
    for entry in _ip("neigh", "show", "to", hop, "dev", INTERFACE):
        mac = entry.get("lladdr")
        if isinstance(mac, str):
            return bytes.fromhex(mac.replace(":", ""))
    return None


def _provoke(hop: str) -> None:
    """Make the kernel ask for the neighbour's MAC address."""
    address = ipaddress.ip_address(hop)
    scoped = f"{hop}%{INTERFACE}" if address.version == 6 and address.is_link_local else hop
    target = socket.getaddrinfo(scoped, DISCARD_PORT, type=socket.SOCK_DGRAM)[0]
    with socket.socket(target[0], socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", target[4])


@functools.cache
def next_hop_mac(address: str) -> bytes:
    """Return the MAC address that frames to `address` go to; TimeoutError where nobody answers."""
    hop = _next_hop(address)
    end = time.monotonic() + NEIGHBOUR_WAIT_S
    found = _neighbour(hop)
    while found is None:
        if time.monotonic() > end:
            raise TimeoutError(f"no neighbour answers for {hop}, next hop to {address}")
        _provoke(hop)
        time.sleep(0.02)
        found = _neighbour(hop)
    return found


def transmit(packet: bytes, *, toward: str, tags: tuple[int, ...] = ()) -> None:
    """Send an IP packet to the next hop of `toward`; `tags` are EtherTypes of VLAN headers with number 0."""
    kind = wire.ETH_IPV4 if packet[0] >> 4 == 4 else wire.ETH_IPV6
    content = packet
    for tag in reversed(tags):
        content = b"\0\0" + kind.to_bytes(2, "big") + content
        kind = tag
    send_frame(wire.ethernet(next_hop_mac(toward), interface_mac(), kind, content))


def transmit_offloaded(packet: bytes, *, toward: str, transport: int, checksum: int, size: int) -> None:
    """Send a TCP packet and leave checksum and segmentation to the link (struct virtio_net_hdr)."""
    v4 = packet[0] >> 4 == 4
    kind = wire.ETH_IPV4 if v4 else wire.ETH_IPV6
    head = struct.pack(
        "=BBHHHH", NEEDS_CHECKSUM, GSO_TCP4 if v4 else GSO_TCP6, transport + 20, size, transport, checksum
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        sock.bind((INTERFACE, 0))
        sock.send(head + wire.ethernet(next_hop_mac(toward), interface_mac(), kind, packet))


def send_frame(frame: bytes) -> None:
    """Send a whole Ethernet frame."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((INTERFACE, 0))
        sock.send(frame)
