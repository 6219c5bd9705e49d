"""What a pod with CAP_NET_RAW tries past the socket hooks (it has that capability by default)."""

from __future__ import annotations

import errno
import ipaddress
import time
from collections.abc import Callable

import pytest

from agent.model import net
from agent.model import verdict as verdict_
from tests.bpf import conftest, node, packets, states, traffic

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
LISTEN_SECONDS = 0.4
STRANGER4, STRANGER6 = ipaddress.ip_address("198.51.100.9"), ipaddress.ip_address("2001:db8:51::9")
Address = Callable[[node.Guest], net.Address]


def four(guest: node.Guest) -> net.Address:
    """Return the IPv4 address."""
    return guest.address4


def six(guest: node.Guest) -> net.Address:
    """Return the IPv6 address."""
    return guest.address6


@pytest.mark.parametrize(("address", "stranger"), [(four, STRANGER4), (six, STRANGER6)])
def test_a_pod_cannot_send_from_an_address_that_is_not_its_own(
    rig: conftest.Rig, address: Address, stranger: net.Address
) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node))
    target = address(rig.node.outside)
    for source in (address(second), stranger):
        assert _arriving(first, rig.node.outside, packets.udp(source, target, PORT)) == 0
        assert _reasons(rig) == {(verdict_.Reason.SOURCE_SPOOFED, states.endpoint_of(0))}
    assert _arriving(first, rig.node.outside, packets.udp(address(first), target, PORT)) == 1


@pytest.mark.parametrize("address", [four, six])
def test_nobody_outside_can_send_from_a_pods_address(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node))
    assert _arriving(rig.node.outside, second, packets.udp(address(first), address(second), PORT)) == 0
    assert _reasons(rig) == {(verdict_.Reason.SOURCE_SPOOFED, states.endpoint_of(0))}


def test_the_node_does_not_answer_a_forged_ping(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node))
    ping = packets.ipv4(
        second.address4, ipaddress.ip_address(node.GATEWAY4), packets.ICMP, bytes([8, 0, 247, 255]) + bytes(4)
    )
    first.run(traffic.sends_raw(ping, to=first.mac))
    assert _reasons(rig) == {(verdict_.Reason.SOURCE_SPOOFED, states.endpoint_of(0))}


@pytest.mark.parametrize("address", [four, six])
def test_a_packet_socket_gets_no_further_than_connect(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, egress={(257, states.UDP, PORT, 16): states.ALLOW}))
    assert _arriving(first, second, packets.udp(address(first), address(second), OTHER), port=OTHER) == 0
    assert _reasons(rig) == {(verdict_.Reason.POLICY_DENIED, states.endpoint_of(0))}
    assert _arriving(first, second, packets.udp(address(first), address(second), PORT)) == 1


def test_ports_behind_ip_options_are_found(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    # Options that spell the allowed port where it would be without them (an unknown one of eight bytes).
    options = bytes([0x5E, 8]) + PORT.to_bytes(2, "big") + bytes(4)
    for port, arriving in ((OTHER, 0), (PORT, 1)):
        datagram = packets.udp(first.address4, second.address4, port)[20:]
        padded = packets.ipv4(first.address4, second.address4, packets.UDP, datagram, options=options)
        assert _arriving(first, second, padded, port=port) == arriving


def test_ports_behind_extension_headers_are_found(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    for port, arriving in ((OTHER, 0), (PORT, 1)):
        datagram = packets.udp(first.address6, second.address6, port)[40:]
        chain = packets.options6(1, packets.UDP, datagram)
        packet = packets.ipv6(first.address6, second.address6, packets.DESTINATION_OPTIONS, chain)
        assert _arriving(first, second, packet, port=port) == arriving


def test_a_chain_of_headers_without_end_is_malformed_for_isolated_pods_only(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    datagram = packets.udp(first.address6, second.address6, PORT)[40:]
    chain = packets.options6(12, packets.UDP, datagram)
    packet = packets.ipv6(first.address6, second.address6, packets.DESTINATION_OPTIONS, chain)
    rig.datapath.apply(states.pods(rig.node, ingress={(0, 0, 0, 0): states.ALLOW}))
    _arriving(first, second, packet)
    assert _reasons(rig) == {(verdict_.Reason.MALFORMED, states.endpoint_of(1))}
    rig.datapath.apply(states.pods(rig.node))
    _arriving(first, second, packet)
    assert _reasons(rig) == set()


@pytest.mark.parametrize("address", [four, six])
def test_a_datagram_in_fragments_is_judged_by_its_ports(rig: conftest.Rig, address: Address) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert first.run(traffic.asks(address(second), PORT, size=4000)) == 0
        assert first.run(traffic.asks(address(second), OTHER, size=4000)) == errno.ETIMEDOUT


def test_ports_outside_the_linear_part_of_a_packet_are_read_all_the_same(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    _set_mtu(rig.node, 9000)
    try:
        for port, arriving in ((OTHER, 0), (PORT, 1)):
            packet = packets.udp(first.address4, second.address4, port, payload=bytes(6000))
            assert _arriving(first, second, packet, port=port) == arriving
    finally:
        _set_mtu(rig.node, 1500)


def test_an_icmp_error_about_somebody_elses_flow_is_forged(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    outside = rig.node.outside
    rig.datapath.apply(states.pods(rig.node))
    about = packets.udp(second.address4, outside.address4, PORT)
    assert _arriving(second, outside, about) == 1
    _reasons(rig)
    first.run(traffic.sends_raw(packets.unreachable(first.address4, second.address4, about), to=first.mac))
    assert _reasons(rig) == {(verdict_.Reason.RELATED_FORGED, states.endpoint_of(0))}
    outside.run(traffic.sends_raw(packets.unreachable(outside.address4, second.address4, about), to=outside.mac))
    assert _reasons(rig) == set()


def test_discovery_that_was_routed_is_data_and_judged(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, egress={}))
    for kind in (133, 135, 136, 143):
        message = packets.icmp6(first.address6, second.address6, kind, bytes(4) + b"smuggled goods..")
        first.run(traffic.sends_raw(message, ethertype=packets.ETH_IPV6, to=first.mac))
        assert _reasons(rig) == {(verdict_.Reason.POLICY_DENIED, states.endpoint_of(0))}


@pytest.mark.parametrize("kind", [134, 137])
def test_a_pod_is_no_router_to_its_node(rig: conftest.Rig, kind: int) -> None:
    """A node that forwards no IPv6 believes router advertisements (CVE-2020-10749)."""
    first, _ = rig.node.pods
    rig.datapath.apply(states.pods(rig.node))
    message = packets.icmp6(ipaddress.ip_address("fe80::1"), ipaddress.ip_address("ff02::1"), kind, bytes(36))
    first.run(traffic.sends_raw(message, ethertype=packets.ETH_IPV6, to=first.mac))
    assert _reasons(rig) == {(verdict_.Reason.SOURCE_SPOOFED, states.endpoint_of(0))}


def test_fragments_after_the_first_match_only_rows_for_every_port(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    late = bytearray(packets.ipv4(first.address4, second.address4, packets.UDP, bytes(16)))
    late[6:8] = (100).to_bytes(2, "big")
    assert _arriving(first, second, bytes(late)) == 0


def _arriving(sender: node.Guest, receiver: node.Guest, packet: bytes, *, port: int = PORT) -> int:
    """Send one packet through the node; return how many datagrams the receiver got."""
    kind = packets.ETH_IPV4 if packet[0] >> 4 == 4 else packets.ETH_IPV6
    with receiver.started(traffic.receives(port, LISTEN_SECONDS)) as result:
        time.sleep(0.1)  # until it listens
        sender.run(traffic.sends_raw(packet, ethertype=kind, to=sender.mac))
        return result()


def _reasons(rig: conftest.Rig) -> set[tuple[verdict_.Reason, int]]:
    """Return reason and endpoint of every drop since the last call."""
    dropped = verdict_.Verdict.DROPPED.value
    return {(verdict_.Reason(event.reason), event.endpoint) for event in rig.verdicts() if event.verdict == dropped}


def _set_mtu(running: node.Node, mtu: int) -> None:
    for index, pod in enumerate(running.pods):
        node.ip(f"link set veth{index} mtu {mtu}")
        node.within(pod.namespace, lambda: node.ip(f"link set eth0 mtu {mtu}"))
