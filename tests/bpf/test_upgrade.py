"""Another build of the programs, or another version of the maps, takes over under traffic; nothing slips through."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import multiprocessing.synchronize
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import layout
from agent.model import net
from tests.bpf import conftest, node, packets, states, traffic

pytestmark = pytest.mark.root

PORT = 8080
TAKEOVERS = 3
CHILD_SECONDS = 240
"""Each takeover compiles, which takes seconds where nothing else runs, and many times that on a busy machine."""


def test_no_denied_call_or_packet_slips_through_while_programs_are_replaced(
    rig: conftest.Rig, successor: Callable[[], datapath_.BPFDatapath], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    with _nothing_passes(rig, monkeypatch):
        for takeover in range(TAKEOVERS):
            monkeypatch.setattr("agent.datapath.bpf.artifacts.Artifacts.fingerprint", lambda _, n=takeover: f"build{n}")
            following = successor()
            following.open()
            following.close()


def test_nor_while_an_agent_with_other_maps_takes_over_which_knows_no_policy_at_first_and_while_the_first_comes_back(
    rig: conftest.Rig, successor: Callable[[], datapath_.BPFDatapath], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule A48: the maps of another ABI are not read, so what they hold stays in force until the policy is written."""
    state = states.pods(rig.node, egress={})
    rig.datapath.apply(state)
    with _nothing_passes(rig, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(layout, "ABI", layout.ABI + 1)
            following = successor()
            following.open()
            assert following.tables().generation == 0
            following.apply(state)
            following.close()
        assert not rig.datapath.events_path.exists(), "what another version left goes as soon as its successor holds"
        back = successor()
        back.open()
        assert back.tables().generation == 0
        back.apply(state)
        assert back.missing() == ()
        assert not following.events_path.exists()
        back.close()
    rig.datapath.close()  # what it has open was removed
    rig.datapath.open()


@contextlib.contextmanager
def _nothing_passes(rig: conftest.Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the first pod try to reach the second by socket and past it all the while; egress is to be denied to it."""
    monkeypatch.setattr(node, "CHILD_SECONDS", CHILD_SECONDS)
    first, second = rig.node.pods
    stop = multiprocessing.Event()
    raw = packets.udp(first.address4, second.address4, PORT)
    with (
        second.started(traffic.receives_until(PORT, stop)) as arrived,
        first.started(traffic.floods(raw, first.mac, stop, pause_s=0.0002)) as flooded,
        first.started(_connects_until(second.address4, stop)) as connected,
    ):
        yield
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
