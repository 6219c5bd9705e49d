"""A new build of the programs takes over under traffic, and nothing slips through between."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.synchronize
import socket
import time
from collections.abc import Callable

import pytest

from agent.datapath.bpf import datapath as datapath_
from agent.model import net
from tests.bpf import conftest, packets, states, traffic

pytestmark = pytest.mark.root

PORT = 8080
TAKEOVERS = 3


def test_no_denied_call_or_packet_slips_through_while_programs_are_replaced(
    rig: conftest.Rig, successor: Callable[[], datapath_.BPFDatapath], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = rig.node.pods
    rig.datapath.apply(states.pods(rig.node, egress={}))
    stop = multiprocessing.Event()
    raw = packets.udp(first.address4, second.address4, PORT)
    with (
        second.started(traffic.receives(PORT, 8)) as arrived,
        first.started(traffic.floods(raw, first.mac, stop, pause_s=0.0002)) as flooded,
        first.started(_connects_until(second.address4, stop)) as connected,
    ):
        for takeover in range(TAKEOVERS):
            monkeypatch.setattr("agent.datapath.bpf.artifacts.Artifacts.fingerprint", lambda _, n=takeover: f"build{n}")
            following = successor()
            following.open()
            following.close()
        stop.set()
        assert flooded() > 1000
        results = connected()
        assert results.keys() == {errno.EACCES}
        assert results[errno.EACCES] > 1000
        assert arrived() == 0


def _connects_until(address: net.Address, stop: multiprocessing.synchronize.Event) -> Callable[[], dict[int, int]]:
    def action() -> dict[int, int]:
        results: dict[int, int] = {}
        while not stop.is_set():
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                code = client.connect_ex((str(address), PORT))
            results[code] = results.get(code, 0) + 1
            time.sleep(0.0002)
        return results

    return action
