"""The iptables engine against real traffic of two pods, their node and an outside host, both variants."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from collections.abc import Callable

import pytest

from agent.model import net
from tests.bpf import node, states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
TO_POD1 = {(257, states.TCP, PORT, 16): states.ALLOW}
FROM_POD0 = {(256, states.TCP, PORT, 16): states.ALLOW}
UDP_FROM_POD0 = {(256, states.UDP, PORT, 16): states.ALLOW}
ON_THE_WAY_SECONDS = 0.1
"""What was judged before the change may still arrive."""
UNEVEN_SECONDS = 0.5
PROHIBITED = {4: errno.EHOSTUNREACH, 6: errno.EACCES}
"""What admin-prohibited becomes at a socket."""


@pytest.mark.parametrize("version", [4, 6])
def test_egress_that_no_rule_allows_is_refused_at_once(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    target = _address(second, version)
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert first.run(traffic.connects(target, PORT)) == 0
        assert first.run(traffic.connects(target, OTHER)) == errno.ECONNREFUSED
        assert first.run(traffic.asks(target, PORT, connected=True)) == PROHIBITED[version]
        assert rig.node.outside.run(traffic.connects(target, OTHER)) == 0, "nobody isolates it"


@pytest.mark.parametrize("version", [4, 6])
def test_ingress_that_no_rule_allows_is_refused(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    target = _address(second, version)
    rig.apply(states.pods(rig.node, ingress=FROM_POD0))
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert first.run(traffic.connects(target, PORT)) == 0
        assert first.run(traffic.connects(target, OTHER)) == errno.ECONNREFUSED
        assert rig.node.outside.run(traffic.connects(target, PORT)) == errno.ECONNREFUSED


def test_in_drop_mode_a_denial_is_silence(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.apply(states.silent(states.pods(rig.node, egress={})))
    assert first.run(traffic.connects(second.address4, PORT)) == errno.ETIMEDOUT
    assert first.run(traffic.asks(second.address4, PORT, connected=True)) == errno.ETIMEDOUT


@pytest.mark.parametrize("version", [4, 6])
def test_a_udp_server_without_any_egress_answers_rule_a38(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, egress={}))
    with first.started(traffic.listens(PORT)) as ready:
        ready()
        assert second.run(traffic.asks(_address(first, version), PORT)) == 0
        assert rig.node.outside.run(traffic.asks(_address(first, version), PORT)) == 0
    assert first.run(traffic.asks(_address(second, version), PORT, connected=True)) == PROHIBITED[version]


def test_replies_pass_although_the_client_is_isolated_for_ingress_rule_a38(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, ingress={}))
    with first.started(traffic.listens(PORT)) as ready:
        ready()
        assert second.run(traffic.connects(first.address4, PORT)) == 0
        assert second.run(traffic.asks(first.address4, OTHER, connected=True)) == errno.ECONNREFUSED, "an ICMP error"


@pytest.mark.parametrize("version", [4, 6])
def test_the_node_reaches_its_pods_whatever_they_allow_rule_a37(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, ingress={}, egress={}, held=frozenset({1})))
    with second.started(traffic.listens(PORT)) as ready, first.started(traffic.listens(PORT)) as also:
        ready(), also()
        for pod in (first, second):
            assert traffic.connects(_address(pod, version), PORT)() == 0


@pytest.mark.parametrize("gateway", [node.GATEWAY4, node.GATEWAY6])
def test_a_pod_reaches_its_own_node_only_if_its_egress_allows_it_rule_a37(rig: conftest.Rig, gateway: str) -> None:
    first, second = rig.node.pods
    target = ipaddress.ip_address(gateway)
    rig.apply(states.pods(rig.node, egress={}))
    with socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True):
        assert first.run(traffic.connects(target, PORT)) == errno.ECONNREFUSED
        assert second.run(traffic.connects(target, PORT)) == 0


def test_a_held_pod_speaks_to_nobody_and_nobody_to_it_rule_a45(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, held=frozenset({1})))
    with second.started(traffic.listens(PORT)) as ready, first.started(traffic.listens(PORT)) as also:
        ready(), also()
        assert second.run(traffic.connects(first.address4, PORT)) == errno.ECONNREFUSED
        assert first.run(traffic.connects(second.address4, PORT)) == errno.ECONNREFUSED


@pytest.mark.parametrize("version", [4, 6])
def test_a_revoked_flow_falls_silent_and_goes_on_when_allowed_again_rule_a39(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    allowed = states.pods(rig.node, ingress=UDP_FROM_POD0)
    rig.apply(allowed)
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        with first.started(_asks_for(_address(second, version), PORT, seconds=5.0)) as answers:
            time.sleep(1.5)
            rig.apply(states.pods(rig.node, ingress={}))
            revoked = time.monotonic()
            time.sleep(0.8)
            allowed_again = time.monotonic()
            rig.apply(allowed)
            times = answers()
    assert times[0] < revoked
    assert [moment for moment in times if revoked + ON_THE_WAY_SECONDS < moment < allowed_again] == []
    assert times[-1] > allowed_again, "the same socket goes on"


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_server_goes_on_sending_is_cut_too_rule_a39(rig: conftest.Rig, version: int) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, ingress=UDP_FROM_POD0))
    with (
        second.started(_streams(PORT, seconds=4.0)) as _,
        first.started(_subscribes(_address(second, version), PORT, seconds=2.0)) as last_arrival,
    ):
        time.sleep(0.8)
        begun = time.monotonic()
        rig.apply(states.pods(rig.node, ingress={}))
        revoked = time.monotonic()
        # It goes on until then, as evenly as a busy machine lets it.
        assert begun - UNEVEN_SECONDS < last_arrival() < revoked + ON_THE_WAY_SECONDS


def _address(guest: node.Guest, version: int) -> net.Address:
    return guest.address4 if version == 4 else guest.address6


def _asks_for(address: net.Address, port: int, *, seconds: float) -> Callable[[], list[float]]:
    """Ask an echo server every 20 ms from one socket; answer when each echo came."""

    def action() -> list[float]:
        with socket.socket(traffic.family(address), socket.SOCK_DGRAM) as client:
            client.connect((str(address), port))
            client.settimeout(0.02)
            end, times = time.monotonic() + seconds, []
            while time.monotonic() < end:
                try:
                    client.send(b"?")
                    client.recv(16)
                except OSError:
                    continue
                times.append(time.monotonic())
                time.sleep(0.02)
            return times

    return action


def _streams(port: int, *, seconds: float) -> Callable[[], str]:
    """Send to whoever writes first, every 10 ms."""

    def action() -> str:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::", port))
            _, client = server.recvfrom(16)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                server.sendto(b"!", client)
                time.sleep(0.01)
        return "streamed"

    return action


def _subscribes(address: net.Address, port: int, *, seconds: float) -> Callable[[], float]:
    """Ask once and listen; answer when the last datagram came."""

    def action() -> float:
        with socket.socket(traffic.family(address), socket.SOCK_DGRAM) as client:
            client.connect((str(address), port))
            end, last = time.monotonic() + seconds, 0.0
            time.sleep(0.1)
            client.send(b"?")
            client.settimeout(0.1)
            while time.monotonic() < end:
                try:
                    client.recv(16)
                    last = time.monotonic()
                except OSError:
                    continue
            return last

    return action
