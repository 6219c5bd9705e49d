"""Sources that are not the sender's, and what fragments could hide, against both variants."""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Callable

import pytest

from agent.model import net
from tests.bpf import node, packets, states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT = 8080
LISTEN_SECONDS = 0.5
MORE_FRAGMENTS = 0x2000
Address = Callable[[node.Guest], net.Address]


def four(guest: node.Guest) -> net.Address:
    """Return the IPv4 address."""
    return guest.address4


def six(guest: node.Guest) -> net.Address:
    """Return the IPv6 address."""
    return guest.address6


STRANGERS: dict[Address, net.Address] = {
    four: ipaddress.ip_address("198.51.100.9"),
    six: ipaddress.ip_address("2001:db8:51::9"),
}


@pytest.mark.parametrize("address", [four, six])
def test_a_pod_sends_only_from_its_own_address(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node))
    target = address(rig.node.outside)
    for source in (address(second), STRANGERS[address]):
        assert _arriving(first, rig.node.outside, packets.udp(source, target, PORT)) == 0
    assert _arriving(first, rig.node.outside, packets.udp(address(first), target, PORT)) == 1


@pytest.mark.parametrize("address", [four, six])
def test_nobody_outside_sends_from_a_pods_address(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node))
    forged = packets.udp(address(first), address(second), PORT)
    assert _arriving(rig.node.outside, second, forged) == 0
    honest = packets.udp(address(rig.node.outside), address(second), PORT)
    assert _arriving(rig.node.outside, second, honest) == 1


@pytest.mark.parametrize("address", [four, six])
def test_raw_has_the_source_check_also_without_the_netdev_table(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node))
    rig.datapath.attach_links(())
    for source in (address(second), STRANGERS[address]):
        forged = packets.udp(source, address(rig.node.outside), PORT)
        assert _arriving(first, rig.node.outside, forged) == 0


def test_a_forged_fragment_does_not_get_into_anothers_datagram(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    outside = rig.node.outside
    rig.apply(states.pods(rig.node))
    whole = packets.udp(first.address4, outside.address4, PORT, payload=bytes(24))[20:]
    head = _fragment(first.address4, outside.address4, whole[:16], offset=0, more=True)
    tail = _fragment(first.address4, outside.address4, whole[16:], offset=16, more=False)
    with outside.started(traffic.receives(PORT, 2 * LISTEN_SECONDS)) as count:
        time.sleep(0.15)
        first.run(traffic.sends_raw(head, to=first.mac))
        second.run(traffic.sends_raw(tail, to=second.mac))  # from the first pod's address
        assert count() == 0
    with outside.started(traffic.receives(PORT, 2 * LISTEN_SECONDS)) as count:
        time.sleep(0.15)
        first.run(traffic.sends_raw(tail, to=first.mac))
        assert count() == 1, "the head has waited for the honest tail"


def _arriving(sender: node.Guest, receiver: node.Guest, packet: bytes) -> int:
    kind = packets.ETH_IPV4 if packet[0] >> 4 == 4 else packets.ETH_IPV6
    with receiver.started(traffic.receives(PORT, LISTEN_SECONDS)) as count:
        time.sleep(0.15)
        sender.run(traffic.sends_raw(packet, ethertype=kind, to=sender.mac))
        return count()


def _fragment(source: net.Address, destination: net.Address, content: bytes, *, offset: int, more: bool) -> bytes:
    packet = bytearray(packets.ipv4(source, destination, packets.UDP, content))
    struct.pack_into(">H", packet, 6, (MORE_FRAGMENTS if more else 0) | offset // 8)
    packet[10:12] = bytes(2)
    struct.pack_into(">H", packet, 10, packets.checksum(bytes(packet[:20])))
    return bytes(packet)
