"""What the iptables engine does to real packets is told as the BPF engine would tell it, both variants and families."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import select
import time
from collections.abc import Callable, Iterator

import pytest

from agent import clock
from agent.datapath.iptables import nflog, prefix, verdicts
from agent.model import net
from agent.model import verdict as verdict_
from tests.bpf import node as node_
from tests.bpf import packets, states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
TO_POD1 = {(257, states.TCP, PORT, 16): states.ALLOW, (257, states.UDP, PORT, 16): states.ALLOW}
SECONDS = 2
EGRESS, INGRESS = net.Direction.EGRESS, net.Direction.INGRESS
Reason = verdict_.Reason


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """The rig, and what it logs."""

    rig: conftest.Rig
    reader: nflog.NflogReader

    def of(self, port: int, *, count: int = 1) -> list[verdicts.Event]:
        """Wait for `count` events about a server's port, and return all there are about it."""
        return self.matching(lambda event: event.destination_port == port, count=count)

    def matching(self, wanted: Callable[[verdicts.Event], bool], *, count: int = 1) -> list[verdicts.Event]:
        poll = select.poll()
        poll.register(self.reader.fd, select.POLLIN)
        found: list[verdicts.Event] = []
        until = time.monotonic() + SECONDS
        while len(found) < count and time.monotonic() < until:
            poll.poll(100)
            found += filter(wanted, self.reader.read())
        return found

    def nothing_more(self) -> bool:
        time.sleep(0.05)
        return self.reader.read() == []


@pytest.fixture
def told(rig: conftest.Rig) -> Iterator[Told]:
    reader = nflog.NflogReader(prefix.GROUP, rig.datapath.moments, clock=clock.SystemClock())
    with contextlib.closing(reader):
        yield Told(rig, reader)
        assert not any(reader.counters().values()), reader.counters()


def said(event: verdicts.Event) -> tuple[Reason, net.Direction, int, int]:
    return Reason(event.reason), net.Direction(event.direction), event.endpoint, event.policy_set


def ends(event: verdicts.Event) -> tuple[net.Address, net.Address]:
    return event.source, event.destination


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_that_is_allowed_is_told_once_for_each_side(told: Told, version: int) -> None:
    first, second = told.rig.node.pods
    target = node_.addresses(second)[version == 6]
    told.rig.apply(states.pods(told.rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.connects(target, PORT)) == 0
        egress, ingress = told.of(PORT, count=2)
        assert said(egress) == (Reason.RULE_ALLOWED, EGRESS, states.endpoint_of(0), states.EGRESS_SET)
        assert said(ingress) == (Reason.NOT_ISOLATED, INGRESS, states.endpoint_of(1), 0)
        assert (egress.rule, egress.protocol, egress.layer) == (states.RULE, states.TCP, 2)
        assert ends(egress) == ends(ingress) == (node_.addresses(first)[version == 6], target)
        assert egress.source_port == ingress.source_port != 0
        assert (egress.source_identity, egress.destination_identity) == (256, 257)
        assert told.nothing_more()


@pytest.mark.parametrize("version", [4, 6])
def test_denials_are_told_for_the_side_that_denies(told: Told, version: int) -> None:
    first, second = told.rig.node.pods
    target = node_.addresses(second)[version == 6]
    told.rig.apply(states.pods(told.rig.node, egress=TO_POD1, ingress={}))
    first.run(traffic.connects(target, OTHER))
    egress = told.of(OTHER)[0]
    assert said(egress) == (Reason.POLICY_DENIED, EGRESS, states.endpoint_of(0), states.EGRESS_SET)
    first.run(traffic.connects(target, PORT))
    ingress = told.of(PORT)[0]
    assert said(ingress) == (Reason.POLICY_DENIED, INGRESS, states.endpoint_of(1), states.INGRESS_SET)
    told.rig.node.outside.run(traffic.asks(target, OTHER))
    outside = told.of(OTHER)[0]
    assert said(outside) == (Reason.POLICY_DENIED, INGRESS, states.endpoint_of(1), states.INGRESS_SET)
    assert (outside.source_identity, outside.protocol) == (2, states.UDP)


@pytest.mark.parametrize("gateway", [node_.GATEWAY4, node_.GATEWAY6])
def test_what_a_pod_may_not_say_to_its_node_is_told(told: Told, gateway: str) -> None:
    """Rule A37."""
    first, _ = told.rig.node.pods
    told.rig.apply(states.pods(told.rig.node, egress={}))
    target = ipaddress.ip_address(gateway)
    first.run(traffic.asks(target, OTHER))
    event = told.of(OTHER)[0]
    assert said(event) == (Reason.POLICY_DENIED, EGRESS, states.endpoint_of(0), states.EGRESS_SET)
    assert event.destination == target


def test_of_a_flow_that_is_revoked_the_replies_are_told_as_the_connection(told: Told) -> None:
    """Rules A38, A39."""
    first, second = told.rig.node.pods
    told.rig.apply(states.pods(told.rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.asks(second.address4, PORT)) == 0
        (sent, *_) = told.of(PORT, count=2)
    told.rig.apply(states.pods(told.rig.node, egress={}))
    reply = packets.udp(second.address4, first.address4, sent.source_port, sport=PORT)
    second.run(traffic.sends_raw(reply, to=second.mac))
    event = told.of(PORT)[0]
    assert said(event) == (Reason.POLICY_DENIED, EGRESS, states.endpoint_of(0), states.EGRESS_SET)
    assert (ends(event), event.source_port) == (ends(sent), sent.source_port)


@pytest.mark.parametrize("version", [4, 6])
def test_a_forged_source_is_told_as_the_senders(told: Told, version: int) -> None:
    first, second = told.rig.node.pods
    told.rig.apply(states.pods(told.rig.node))
    victim, target = node_.addresses(second)[version == 6], node_.addresses(told.rig.node.outside)[version == 6]
    forged = packets.udp(victim, target, OTHER)
    first.run(traffic.sends_raw(forged, ethertype=packets.ethertype(victim), to=first.mac))
    event = told.of(OTHER)[0]
    assert said(event) == (Reason.SOURCE_SPOOFED, EGRESS, states.endpoint_of(0), 0)
    assert ends(event) == (victim, target)


def test_an_error_about_somebody_elses_flow_is_told_as_its_senders(told: Told) -> None:
    first, second = told.rig.node.pods
    outside = told.rig.node.outside
    told.rig.apply(states.pods(told.rig.node))
    with outside.started(traffic.listens(PORT)) as ready:
        ready()
        assert second.run(traffic.asks(outside.address4, PORT)) == 0
        (sent, *_) = told.of(PORT)
    about = packets.udp(second.address4, outside.address4, PORT, sport=sent.source_port)
    error = packets.unreachable(first.address4, second.address4, about)
    first.run(traffic.sends_raw(error, to=first.mac))
    (event,) = told.matching(lambda event: event.reason == Reason.RELATED_FORGED.value)
    assert said(event) == (Reason.RELATED_FORGED, EGRESS, states.endpoint_of(0), 0)
    assert ends(event) == (first.address4, second.address4)


def test_what_somebody_else_lets_through_before_us_is_told_as_not_judged(told: Told) -> None:
    first, second = told.rig.node.pods
    told.rig.apply(states.pods(told.rig.node, egress=TO_POD1))
    told.rig.foreign("-I", "FORWARD", "-j", "ACCEPT")
    try:
        first.run(traffic.connects(second.address4, OTHER))
        first.run(traffic.connects(second.address4, PORT))
        denied, allowed = told.matching(lambda event: event.destination_port in {PORT, OTHER}, count=2)[:2]
    finally:
        told.rig.foreign("-D", "FORWARD", "-j", "ACCEPT")
    assert said(denied) == (Reason.POLICY_DENIED, EGRESS, states.endpoint_of(0), states.EGRESS_SET)
    assert said(allowed) == (Reason.UNJUDGED, EGRESS, states.endpoint_of(0), 0)
