"""Pods on a bridge: PRE_ROUTING sees only the bridge, so sources are checked at each pod's veth."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.datapath import bridges
from agent.model import net
from agent.model import verdict as verdict_
from tests.bpf import conftest, node, packets, states, traffic

pytestmark = pytest.mark.root

PORT = 8080
SOLICITED_OVERRIDE = bytes([0x60, 0, 0, 0])


@pytest.fixture
def guarded(bridged: conftest.Rig) -> Iterator[conftest.Rig]:
    bridge = socket.if_nametoindex("cni0")
    bridged.datapath.attach_links(states.sandboxes(bridged.node, ingress_ifindex=bridge))
    bridged.datapath.apply(states.pods(bridged.node, ingress_ifindex=bridge))
    yield bridged
    bridged.datapath.attach_links(())


def test_pods_on_a_bridge_talk_to_each_other_the_node_and_outside(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    with second.started(traffic.listens(PORT)) as ready, guarded.node.outside.started(traffic.listens(PORT)) as also:
        ready(), also()
        for target in (*node.addresses(second), *node.addresses(guarded.node.outside)):
            assert first.run(traffic.connects(target, PORT)) == 0
    assert _spoofed(guarded) == []


def test_a_forged_source_does_not_reach_the_neighbour(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    outside = guarded.node.outside
    packet = packets.udp(outside.address4, second.address4, PORT)
    with second.started(traffic.receives(PORT, 0.4)) as result:
        time.sleep(0.1)
        first.run(traffic.sends_raw(packet, to=_hardware_of(second)))
        assert result() == 0
    assert _spoofed(guarded) == [(states.endpoint_of(0), outside.address4)]


def test_a_neighbours_address_cannot_be_claimed_by_arp(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    gateway = ipaddress.ip_address(node.GATEWAY4)
    claim = packets.arp_reply(second.address4, _hardware_of(first), gateway)
    first.run(traffic.sends_raw(claim, ethertype=packets.ETH_ARP, to=first.mac))
    assert _spoofed(guarded) == [(states.endpoint_of(0), second.address4)]
    own = packets.arp_reply(first.address4, _hardware_of(first), gateway)
    first.run(traffic.sends_raw(own, ethertype=packets.ETH_ARP, to=first.mac))
    assert _spoofed(guarded) == []


def test_a_neighbours_address_cannot_be_advertised_by_neighbour_discovery(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    gateway = ipaddress.ip_address(node.GATEWAY6)
    for target, expected in ((second.address6, [(states.endpoint_of(0), first.address6)]), (first.address6, [])):
        body = SOLICITED_OVERRIDE + target.packed + bytes([2, 1]) + _hardware_of(first)
        advertisement = packets.icmp6(first.address6, gateway, 136, body)
        first.run(traffic.sends_raw(advertisement, ethertype=packets.ETH_IPV6, to=first.mac))
        assert _spoofed(guarded) == expected


def test_an_advertisement_behind_more_headers_than_are_followed_is_dropped(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    gateway = ipaddress.ip_address(node.GATEWAY6)
    plain = packets.icmp6(first.address6, gateway, 136, SOLICITED_OVERRIDE + second.address6.packed + bytes(8))
    for count, dropped in ((1, True), (9, True)):
        chain = packets.options6(count, packets.ICMPV6, plain[packets.IPV6_BYTES :])
        packet = packets.ipv6(first.address6, gateway, packets.DESTINATION_OPTIONS, chain)
        first.run(traffic.sends_raw(packet, ethertype=packets.ETH_IPV6, to=first.mac))
        assert bool(_spoofed(guarded)) is dropped


@pytest.mark.parametrize("kind", [134, 137])
def test_a_pod_on_a_bridge_is_no_router(guarded: conftest.Rig, kind: int) -> None:
    """Rule A41 lets discovery pass; what only routers say is not a pod's to say (CVE-2020-10749)."""
    first, _ = guarded.node.pods
    link_local = ipaddress.ip_address("fe80::1")
    message = packets.icmp6(link_local, ipaddress.ip_address("ff02::1"), kind, bytes(36))
    first.run(traffic.sends_raw(message, ethertype=packets.ETH_IPV6, to=first.mac))
    assert _spoofed(guarded) == [(states.endpoint_of(0), link_local)]


def test_frames_whose_source_nobody_can_check_are_dropped(guarded: conftest.Rig) -> None:
    first, second = guarded.node.pods
    before = _received(second)
    for _ in range(5):
        first.run(traffic.sends_raw(bytes(64), ethertype=0x88B5, to=_hardware_of(second)))
    assert _received(second) - before < 5 * 64


def test_the_check_follows_the_pods(guarded: conftest.Rig) -> None:
    pins = guarded.datapath.events_path.parent / "links"
    names = {f"tc_{pod.ifindex}" for pod in guarded.node.pods}
    assert {path.name for path in pins.glob("tc_*")} == names
    guarded.datapath.attach_links(states.sandboxes(guarded.node)[:1])
    assert {path.name for path in pins.glob("tc_*")} == set(), "a routed pod is checked at PRE_ROUTING"


def test_a_veth_that_has_just_gone_keeps_no_other_from_being_checked(guarded: conftest.Rig) -> None:
    pins = guarded.datapath.events_path.parent / "links"
    bridge = socket.if_nametoindex("cni0")
    gone = dataclasses.replace(states.sandboxes(guarded.node)[0], veth_ifindex=54321, ingress_ifindex=bridge)
    guarded.datapath.attach_links((gone, *states.sandboxes(guarded.node, ingress_ifindex=bridge)))
    assert {path.name for path in pins.glob("tc_*")} == {f"tc_{pod.ifindex}" for pod in guarded.node.pods}


@pytest.mark.usefixtures("bridged")
@pytest.mark.parametrize(("value", "lines"), [("0", 1), ("1", 0)])
def test_a_bridge_that_netfilter_does_not_see_is_said_to_be_one(value: str, lines: int) -> None:
    switch = pathlib.Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not switch.exists():
        pytest.skip("this kernel has no br_netfilter")
    before = [path.read_text() for path in (switch, switch.with_name("bridge-nf-call-ip6tables"))]
    switch.write_text(value)
    switch.with_name("bridge-nf-call-ip6tables").write_text("1")
    try:
        reasons = bridges.unfiltered()
        assert len(reasons) == lines
        assert all("cni0" in line and "bridge-nf-call-iptables" in line for line in reasons)
    finally:
        switch.write_text(before[0])
        switch.with_name("bridge-nf-call-ip6tables").write_text(before[1])


def _spoofed(rig: conftest.Rig) -> list[tuple[int, net.Address]]:
    reason = verdict_.Reason.SOURCE_SPOOFED.value
    return [(event.endpoint, event.source) for event in rig.verdicts() if event.reason == reason]


def _hardware_of(guest: node.Guest) -> bytes:
    return node.within(guest.namespace, lambda: node.mac_of("eth0"))


def _received(guest: node.Guest) -> int:
    def count() -> int:
        shown = subprocess.run(["ip", "-j", "-s", "link", "show", "eth0"], check=True, capture_output=True, text=True)
        received: int = json.loads(shown.stdout)[0]["stats64"]["rx"]["bytes"]
        return received

    return node.within(guest.namespace, count)
