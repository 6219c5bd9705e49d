"""Pods on a bridge, all of which come in by one interface: raw PREROUTING tells them apart by their ports.

Without the netdev table, which nothing here has: it is the first check, and others may delete it.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterator

import pytest

from agent.datapath.iptables import datapath as datapath_
from agent.datapath.iptables import variant
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import packets, states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT = 8080
LISTEN_SECONDS = 0.5
STRANGERS = {
    net.Family.IPV4: ipaddress.ip_address("198.51.100.9"),
    net.Family.IPV6: ipaddress.ip_address("2001:db8:51::9"),
}
ETHERTYPES = {net.Family.IPV4: packets.ETH_IPV4, net.Family.IPV6: packets.ETH_IPV6}


@pytest.fixture(scope="module", params=tuple(variant.Variant), ids=lambda which: which.value)
def bridged(request: pytest.FixtureRequest) -> Iterator[conftest.Rig]:
    with node_.running(bridge=True) as node:
        datapath = datapath_.IptablesDatapath(variant=request.param)
        try:
            datapath.open()
            datapath.apply(states.pods(node, ingress_ifindex=socket.if_nametoindex("cni0")))
            yield conftest.Rig(node, datapath, request.param)
        finally:
            datapath.uninstall()


def test_pods_on_a_bridge_talk_to_each_other_and_outside(bridged: conftest.Rig) -> None:
    first, second = bridged.node.pods
    with second.started(traffic.listens(PORT)) as ready, bridged.node.outside.started(traffic.listens(PORT)) as also:
        ready(), also()
        for target in (*node_.addresses(second), *node_.addresses(bridged.node.outside)):
            assert first.run(traffic.connects(target, PORT)) == 0


@pytest.mark.parametrize("family", net.Family)
def test_a_pod_on_a_bridge_sends_only_from_its_own_address(bridged: conftest.Rig, family: net.Family) -> None:
    first, second = bridged.node.pods
    outside = bridged.node.outside
    for receiver in (second, outside):
        for source, arrive in ((_of(second, family), 0), (STRANGERS[family], 0), (_of(first, family), 1)):
            assert _arriving(first, receiver, source, family) == arrive, (receiver.name, source)


@pytest.mark.parametrize("family", net.Family)
def test_what_comes_in_by_a_bridge_from_elsewhere_is_held_against_the_bridge(
    bridged: conftest.Rig, family: net.Family
) -> None:
    """The uplink is a port of no pod's, or no port: honest there is everything but a pod's address."""
    _, second = bridged.node.pods
    outside = bridged.node.outside
    assert _arriving(outside, second, _of(outside, family), family) == 1
    assert _arriving(outside, second, _of(bridged.node.pods[0], family), family) == 0


def _of(guest: node_.Guest, family: net.Family) -> net.Address:
    return guest.address4 if family is net.Family.IPV4 else guest.address6


def _arriving(sender: node_.Guest, receiver: node_.Guest, source: net.Address, family: net.Family) -> int:
    """Count what arrives of one datagram; a neighbour on the bridge is sent it without the node's routing."""
    neighbours = "pod" in sender.name and "pod" in receiver.name
    hardware = node_.within(receiver.namespace, lambda: node_.mac_of("eth0")) if neighbours else sender.mac
    packet = packets.udp(source, _of(receiver, family), PORT)
    with receiver.started(traffic.receives(PORT, LISTEN_SECONDS)) as count:
        time.sleep(0.15)
        sender.run(traffic.sends_raw(packet, ethertype=ETHERTYPES[family], to=hardware))
        return count()
