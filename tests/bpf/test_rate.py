"""The kernel's rate limit: what is told, what is kept back, and that the two add up."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest

from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import layout, maps, packet_proof, rows, syscalls
from tests.bpf import conftest, states, traffic

pytestmark = pytest.mark.root

RATE = 10
BURST = 100
"""Ten seconds' worth."""
FLOOD = 20_000
PORT = 5000


@pytest.fixture
def limited(rig: conftest.Rig, bpffs: pathlib.Path) -> Iterator[conftest.Rig]:
    """Return the rig after an agent that limits has started on its node."""
    own = datapath_.BPFDatapath(node=f"test-{os.getpid()}", bpffs=bpffs, cgroup_root=rig.node.cgroup, verdict_rate=RATE)
    own.open()
    for key, _ in list(rows.dump(own._maps.descriptor("verdict_rates"))):
        rows.delete(own._maps.descriptor("verdict_rates"), key)
    try:
        yield rig
    finally:
        own._maps.store_verdict_interval(0)
        own.close()


def flood(rig: conftest.Rig, packet: bytes, repeat: int = FLOOD) -> None:
    with syscalls.owned(syscalls.open_pin(rig.datapath._program_directory() / "nw_forward4")) as program:
        syscalls.program_test_run(program, packet, repeat=repeat)


def told(rig: conftest.Rig) -> list[layout.RawEvent]:
    batches = iter(rig.verdicts, [])
    return [event for batch in batches for event in batch]


def test_of_a_flood_the_burst_is_told_and_then_a_few_a_second_and_the_counts_add_up(limited: conftest.Rig) -> None:
    limited.datapath.apply(states.pods(limited.node, egress={}))
    first, second = limited.node.pods
    before = limited.datapath.counters()
    flood(limited, packet_proof.packet4(first.address4, second.address4))
    events = told(limited)
    after = limited.datapath.counters()
    assert BURST <= len(events) <= BURST + RATE, "test runs end long before the second is over"
    suppressed = after["events_suppressed"] - before["events_suppressed"]
    repeated = after["events_repeated"] - before["events_repeated"]
    assert len(events) + suppressed == FLOOD
    assert sum(event.repeats for event in events) == repeated
    assert limited.datapath._maps.untold() >= suppressed - repeated
    assert after["events_forgotten"] == before["events_forgotten"]
    assert after["packet_denied"] - before["packet_denied"] == FLOOD, "what is decided does not depend on it"


def test_the_next_that_gets_through_says_how_many_there_were(limited: conftest.Rig) -> None:
    limited.datapath.apply(states.pods(limited.node, egress={}))
    first, second = limited.node.pods
    before = limited.datapath.counters()
    with contextlib.closing(maps.Maps(limited.datapath.events_path.parent)) as opened:
        opened.open()
        flood(limited, packet_proof.packet4(first.address4, second.address4), 1000)
        told(limited)
        for key, value in rows.dump(opened.descriptor("verdict_rates")):  # ten seconds later
            rows.update(opened.descriptor("verdict_rates"), key, bytes(8) + value[8:])
    flood(limited, packet_proof.packet4(first.address4, second.address4), 1)
    (event,) = told(limited)
    after = limited.datapath.counters()
    assert event.repeats == after["events_suppressed"] - before["events_suppressed"] > 0
    assert event.repeats == after["events_repeated"] - before["events_repeated"]


def test_another_port_and_another_outcome_have_buckets_of_their_own(limited: conftest.Rig) -> None:
    limited.datapath.apply(states.pods(limited.node, egress={}))
    first, second = limited.node.pods
    flood(limited, packet_proof.packet4(first.address4, second.address4))
    told(limited)
    assert first.run(traffic.connects(second.address4, PORT)) != 0
    (event,) = told(limited)
    assert (event.destination_port, event.repeats) == (PORT, 0)


def test_a_kind_that_falls_out_of_the_map_leaves_its_number_in_a_counter(limited: conftest.Rig) -> None:
    limited.datapath.apply(states.pods(limited.node, egress={}))
    first, second = limited.node.pods
    before = limited.datapath.counters()
    flood(limited, packet_proof.packet4(first.address4, second.address4))
    with contextlib.closing(maps.Maps(limited.datapath.events_path.parent)) as opened:
        opened.open()
        untold = opened.untold()
        for key, _ in list(rows.dump(opened.descriptor("verdict_rates"))):
            rows.delete(opened.descriptor("verdict_rates"), key)
    after = limited.datapath.counters()
    assert untold > 0
    assert after["events_forgotten"] - before["events_forgotten"] == untold


def test_without_a_limit_every_event_is_told(rig: conftest.Rig) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    first, second = rig.node.pods
    before = rig.datapath.counters()
    flood(rig, packet_proof.packet4(first.address4, second.address4), 1000)
    assert len(told(rig)) == 1000
    assert rig.datapath.counters()["events_suppressed"] == before["events_suppressed"]
