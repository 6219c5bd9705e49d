"""The source check in raw PREROUTING says what bpf/include/source.h says."""

from __future__ import annotations

import dataclasses
import ipaddress
import random

import pytest

from agent import desired
from agent.datapath.iptables import interpreter, prefix, render, ruleset
from agent.model import net
from tests.support import random_state

ROUTED, BRIDGED, UNKNOWN = 900, 901, 902
BRIDGE = 5
NAMES = {ROUTED: "veth900", BRIDGED: "veth901", BRIDGE: "cni0"}
LINK, NONE = ipaddress.ip_address("fe80::1"), ipaddress.ip_address("::")
INTERFACES = ("veth900", "cni0", "eth0", "veth9001", "lo")
"""Where packets come in; a veth on a bridge is none, for PREROUTING sees the bridge."""
SOURCES = (*random_state.LOCAL, ipaddress.ip_address("192.0.2.9"), ipaddress.ip_address("2001:db8::9"), LINK, NONE)


def state() -> desired.DesiredState:
    """Return a pod that is routed, one on a bridge, and one whose interfaces nobody knows."""
    dice = random.Random(1)
    pods = [
        dataclasses.replace(
            random_state.endpoint(dice, number, random_state.LOCAL[number - ROUTED :: 3]),
            veth_ifindex=number if number != UNKNOWN else 0,
            ingress_ifindex={ROUTED: ROUTED, BRIDGED: BRIDGE, UNKNOWN: 0}[number],
        )
        for number in (ROUTED, BRIDGED, UNKNOWN)
    ]
    return desired.DesiredState(endpoints={pod.id: pod for pod in pods})


def genuine(packet: interpreter.Packet, known: desired.DesiredState) -> bool:
    """Decide as source.h does, at the port of a bridge as tc_source.bpf.c does at the veth."""
    place = packet.port if packet.port in NAMES.values() else packet.interface
    arrived = next((index for index, name in NAMES.items() if name == place), 0)
    sender = next((item for item in known.endpoints.values() if arrived and item.veth_ifindex == arrived), None)
    owner = next((item for item in known.endpoints.values() if packet.source in item.addresses), None)
    kind, hops = packet.icmp_type, packet.hop_limit
    on_link = packet.source in (LINK, NONE)
    discovery = packet.protocol == 58 and (
        (kind in range(133, 138) and hops == 255) or (kind in (130, 131, 132, 143) and hops == 1 and on_link)
    )
    if sender is not None:
        if discovery and kind in (134, 137):
            return False
        return owner is sender or (discovery and on_link)
    return owner is None or not owner.ingress_ifindex or owner.ingress_ifindex == arrived


@pytest.mark.parametrize("ports", [(), tuple(net.Family)], ids=["bare", "ports"])
def test_every_packet_is_judged_as_the_bpf_program_does(ports: tuple[net.Family, ...]) -> None:
    known = state()
    verdicts = set()
    places = [(interface, "") for interface in INTERFACES]
    places += [("cni0", port) for port in ("veth901", "eth0", "veth9001")] if ports else []
    for family in net.Family:
        model = interpreter.Model(render.render(known, family, NAMES, 1, ports=ports))
        icmp = [(58, kind, hops) for kind in (*range(128, 138), 143) for hops in (1, 64, 255)]
        for source in (each for each in SOURCES if net.family_of(each) is family):
            for interface, port in places:
                for protocol, kind, hops in ((6, 0, 64), *(icmp if family is net.Family.IPV6 else ())):
                    packet = interpreter.Packet(
                        source=source,
                        destination=source,
                        protocol=protocol,
                        icmp_type=kind,
                        hop_limit=hops,
                        interface=interface,
                        port=port,
                    )
                    outcome = model.hook("PREROUTING", packet)
                    expected = genuine(packet, known)
                    assert outcome.passed is expected, packet
                    assert outcome.notes == (() if expected else (prefix.Note.FORGED,))
                    verdicts.add((family, interface, port, expected))
    assert len(verdicts) > 14


def test_a_pod_on_a_bridge_speaks_only_from_its_own_address_where_ports_are_shown() -> None:
    known = state()
    mine, others = (random_state.LOCAL[number - ROUTED :: 3] for number in (BRIDGED, ROUTED))
    for family in net.Family:
        model = interpreter.Model(render.render(known, family, NAMES, 1, ports=(family,)))
        for sources, passes in ((mine, True), (others, False), (SOURCES[-4:-2], False)):
            for source in (each for each in sources if net.family_of(each) is family):
                packet = interpreter.Packet(
                    source=source, destination=source, protocol=17, interface="cni0", port="veth901"
                )
                assert model.hook("PREROUTING", packet).passed is passes, packet


def test_a_pod_on_a_bridge_has_one_chain_and_one_rule_on_the_way_to_it() -> None:
    rules = render.render(state(), net.Family.IPV4, NAMES, 1, ports=tuple(net.Family)).chains[ruleset.Table.RAW]
    assert len(rules["NW-PORT"]) == 2
    assert "NW-PORT=veth901" in rules
    assert not [
        name for name in render.render(state(), net.Family.IPV4, NAMES, 1).chains[ruleset.Table.RAW] if "PORT" in name
    ]


def test_without_known_interfaces_nothing_is_forged() -> None:
    known = state()
    for family in net.Family:
        rules = render.render(known, family, {}, 1)
        assert not [name for name in rules.sets if "OWN" in name or "PODS" in name]
        model = interpreter.Model(rules)
        for source in (each for each in SOURCES if net.family_of(each) is family):
            packet = interpreter.Packet(source=source, destination=source, protocol=6, interface="eth0")
            assert model.hook("PREROUTING", packet).passed


def test_names_that_iptables_would_misread_are_left_out() -> None:
    for name in ("veth+", "-x", "!x", 'a"b', "a b", "a" * 16):
        rules = render.render(state(), net.Family.IPV4, {ROUTED: name}, 1)
        assert not [each for each in rules.sets if "OWN" in each or "PODS" in each]
