"""Both layers against real traffic of two pods, their node and an outside host."""

from __future__ import annotations

import errno
import ipaddress
import json
import subprocess

import pytest

from agent.datapath.bpf import layout
from agent.model import identity, net
from agent.model import verdict as verdict_
from tests.bpf import conftest, node, packets, states, traffic

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
TO_POD1 = {(256 + 1, states.TCP, PORT, 16): states.ALLOW}
FROM_POD0 = {(256, states.TCP, PORT, 16): states.ALLOW}


@pytest.mark.parametrize("version", [4, 6])
def test_egress_that_no_rule_allows_fails_at_once_with_eacces(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    target = _address(second, version)
    rig.datapath.apply(states.pods(rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert first.run(traffic.connects(target, PORT)) == 0
        assert first.run(traffic.connects(target, OTHER)) == errno.EACCES
        assert first.run(traffic.asks(target, PORT)) == errno.EACCES, "sendmsg, not connect"
    denied = [event for event in rig.verdicts() if event.verdict == verdict_.Verdict.DROPPED.value]
    assert {(event.reason, event.layer, event.destination_port) for event in denied} == {
        (verdict_.Reason.POLICY_DENIED.value, verdict_.Layer.SOCKET.value, OTHER),
        (verdict_.Reason.POLICY_DENIED.value, verdict_.Layer.SOCKET.value, PORT),
    }
    assert all(event.destination == target and event.pid > 0 and event.command for event in denied)


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_server_without_any_egress_answers_rule_a38(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, egress={}))
    with first.started(traffic.listens(PORT)) as ready:
        ready()
        assert second.run(traffic.asks(_address(first, version), PORT)) == 0
        assert rig.node.outside.run(traffic.asks(_address(first, version), PORT)) == 0
    assert first.run(traffic.asks(_address(second, version), PORT)) == errno.EACCES, "who never bound asks"


def test_a_mapped_address_is_judged_as_ipv4_at_connect_and_sendmsg_rule_a24(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    mapped = _mapped(second.address4)
    rig.datapath.apply(states.pods(rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.connects(mapped, PORT)) == 0
        assert first.run(traffic.connects(mapped, OTHER)) == errno.EACCES
        assert first.run(traffic.asks(mapped, PORT)) == errno.EACCES


@pytest.mark.parametrize("version", [4, 6])
def test_ingress_that_no_rule_allows_is_dropped_and_attributed_to_the_server(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    target = _address(second, version)
    rig.datapath.apply(states.pods(rig.node, ingress=FROM_POD0))
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert first.run(traffic.connects(target, PORT)) == 0
        assert first.run(traffic.connects(target, OTHER)) == errno.ETIMEDOUT
        assert rig.node.outside.run(traffic.connects(target, PORT)) == errno.ETIMEDOUT
    denied = [event for event in rig.verdicts() if event.verdict == verdict_.Verdict.DROPPED.value]
    assert {(event.endpoint, event.direction, event.layer, event.source_identity) for event in denied} == {
        (states.endpoint_of(1), net.Direction.INGRESS.value, verdict_.Layer.PACKET.value, 256),
        (states.endpoint_of(1), net.Direction.INGRESS.value, verdict_.Layer.PACKET.value, identity.WORLD),
    }


def test_an_allowed_flow_is_reported_once_a_side_with_its_rule(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.connects(second.address4, PORT)) == 0
    assert [_gist(event) for event in rig.verdicts()] == [
        (verdict_.Layer.SOCKET, net.Direction.EGRESS, verdict_.Reason.RULE_ALLOWED, states.RULE),
        (verdict_.Layer.PACKET, net.Direction.EGRESS, verdict_.Reason.RULE_ALLOWED, states.RULE),
        (verdict_.Layer.PACKET, net.Direction.INGRESS, verdict_.Reason.NOT_ISOLATED, 0),
    ]


def test_in_drop_mode_the_socket_hooks_only_report_and_the_packet_layer_is_silent(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.silent(states.pods(rig.node, egress={})))
    assert first.run(traffic.connects(second.address4, PORT)) == errno.ETIMEDOUT
    layers = {(event.layer, event.verdict) for event in rig.verdicts()}
    assert layers == {(layer.value, verdict_.Verdict.DROPPED.value) for layer in verdict_.Layer}


def test_a_revoked_permission_cuts_a_live_flow_in_both_directions_rule_a39(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={(256, states.UDP, PORT, 16): states.ALLOW}))
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.asks(second.address4, PORT)) == 0
        rig.datapath.apply(states.pods(rig.node, ingress={}))
        assert first.run(traffic.asks(second.address4, PORT)) == errno.ETIMEDOUT


def test_replies_pass_although_the_client_is_isolated_for_ingress_rule_a38(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={}))
    with first.started(traffic.listens(PORT)) as ready:
        ready()
        assert second.run(traffic.connects(first.address4, PORT)) == 0
        assert second.run(traffic.connects(first.address4, OTHER)) == errno.ECONNREFUSED
        assert second.run(traffic.asks(first.address4, OTHER, connected=True)) == errno.ECONNREFUSED, (
            "a related ICMP error"
        )


def test_the_node_reaches_its_pods_whatever_they_allow_rule_a37(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, ingress={}, egress={}, held=frozenset({1})))
    with second.started(traffic.listens(PORT)) as ready, first.started(traffic.listens(PORT)) as also:
        ready(), also()
        for address in (*node.addresses(first), *node.addresses(second)):
            assert traffic.connects(address, PORT)() == 0


@pytest.mark.parametrize("gateway", [node.GATEWAY4, node.GATEWAY6])
def test_a_pod_reaches_its_own_node_only_if_its_egress_allows_it_rule_a37(rig: conftest.Rig, gateway: str) -> None:
    first, second = rig.node.pods
    target = ipaddress.ip_address(gateway)
    rig.datapath.apply(states.pods(rig.node, egress={}))
    assert first.run(traffic.connects(target, PORT)) == errno.EACCES
    assert second.run(traffic.connects(target, PORT)) == errno.ECONNREFUSED


def test_a_link_local_address_of_the_node_is_no_way_round_rule_a37(rig: conftest.Rig) -> None:
    first = rig.node.pods[0]
    rig.datapath.apply(states.pods(rig.node, egress={}))
    assert first.run(traffic.connects(_link_local_of("veth0"), PORT)) == errno.EACCES
    packet = packets.udp(first.address6, ipaddress.ip_address(str(_link_local_of("veth0")).partition("%")[0]), PORT)
    first.run(traffic.sends_raw(packet, ethertype=packets.ETH_IPV6, to=first.mac))
    reasons = [(event.reason, event.layer) for event in rig.verdicts()]
    denied = verdict_.Reason.POLICY_DENIED.value
    assert reasons == [(denied, verdict_.Layer.SOCKET.value), (denied, verdict_.Layer.PACKET.value)]


def test_a_held_pod_speaks_to_nobody_and_nobody_to_it_rule_a45(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, held=frozenset({1})))
    with second.started(traffic.listens(PORT)) as ready, first.started(traffic.listens(PORT)) as also:
        ready(), also()
        assert second.run(traffic.connects(first.address4, PORT)) == errno.EACCES
        assert first.run(traffic.connects(second.address4, PORT)) == errno.ETIMEDOUT
    assert {event.reason for event in rig.verdicts()} >= {verdict_.Reason.ENDPOINT_HELD.value}


def test_loopback_and_the_pods_own_addresses_are_never_judged_rule_a40(rig: conftest.Rig) -> None:
    first = rig.node.pods[0]
    rig.datapath.apply(states.pods(rig.node, egress={}))
    for address in ("127.0.0.1", "::1", "0.0.0.0", "::", str(first.address4), str(first.address6)):
        assert first.run(traffic.connects(ipaddress.ip_address(address), PORT)) == errno.ECONNREFUSED


def test_processes_of_unknown_namespaces_are_not_ours(rig: conftest.Rig) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    assert rig.node.outside.run(traffic.connects(ipaddress.ip_address("203.0.113.1"), PORT)) == errno.ECONNREFUSED


def _address(guest: node.Guest, version: int) -> net.Address:
    return guest.address4 if version == 4 else guest.address6


def _mapped(address: ipaddress.IPv4Address) -> net.Address:
    return ipaddress.IPv6Address(layout.MAPPED_PREFIX + address.packed)


def _gist(event: layout.RawEvent) -> tuple[verdict_.Layer, net.Direction, verdict_.Reason, int]:
    return (
        verdict_.Layer(event.layer),
        net.Direction(event.direction),
        verdict_.Reason(event.reason),
        event.rule,
    )


def _link_local_of(interface: str) -> ipaddress.IPv6Address:
    """Return the node's link-local address on a veth, as the pod behind it dials it."""
    command = ["ip", "-j", "-6", "addr", "show", "dev", interface, "scope", "link"]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    local = next(item["local"] for link in shown for item in link.get("addr_info", ()) if "local" in item)
    return ipaddress.IPv6Address(f"{local}%eth0")
