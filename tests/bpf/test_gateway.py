"""The node's own addresses that lie in its pod range: a bridge's gateway is no pod that is not known yet."""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import socket

import pytest

from agent import desired
from agent.model import verdict as verdict_
from tests.bpf import conftest, node, states, traffic

pytestmark = pytest.mark.root

PORT = 8080
RANGES = frozenset({ipaddress.ip_network("10.244.1.0/24"), ipaddress.ip_network("fd00:244:1::/64")})


def held(state: desired.DesiredState) -> desired.DesiredState:
    """Hold the node's pod ranges."""
    return dataclasses.replace(state, held_ranges=RANGES)


@pytest.mark.parametrize("gateway", [node.GATEWAY4, node.GATEWAY6])
def test_the_node_reaches_itself_at_its_gateway_address_rule_a37(bridged: conftest.Rig, gateway: str) -> None:
    bridged.datapath.apply(held(desired.DesiredState()))
    assert traffic.connects(ipaddress.ip_address(gateway), PORT)() == errno.ECONNREFUSED
    assert bridged.verdicts() == []


def test_a_pod_that_is_not_known_yet_reaches_neither_node_nor_outside_rule_a45(bridged: conftest.Rig) -> None:
    first, _ = bridged.node.pods
    bridged.datapath.apply(held(desired.DesiredState()))
    for target in (*map(ipaddress.ip_address, (node.GATEWAY4, node.GATEWAY6)), *node.addresses(bridged.node.outside)):
        assert first.run(traffic.connects(target, PORT)) == errno.ETIMEDOUT
    assert {event.reason for event in bridged.verdicts()} == {verdict_.Reason.ENDPOINT_HELD.value}


def test_known_pods_pass_in_a_held_range(bridged: conftest.Rig) -> None:
    first, _ = bridged.node.pods
    bridged.datapath.apply(held(states.pods(bridged.node, ingress_ifindex=socket.if_nametoindex("cni0"))))
    for target in map(ipaddress.ip_address, (node.GATEWAY4, node.GATEWAY6)):
        assert first.run(traffic.connects(target, PORT)) == errno.ECONNREFUSED
