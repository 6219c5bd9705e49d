"""The ring buffer as the agent reads it."""

from __future__ import annotations

import pathlib
import select

import pytest

from agent import errors
from agent.datapath.bpf import events, layout, packet_proof, ring, syscalls
from tests.bpf import conftest, states

pytestmark = pytest.mark.root

FLOOD = 60_000
"""More than the ring holds."""


def test_a_flood_is_read_in_batches_and_what_did_not_fit_is_counted(rig: conftest.Rig) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    first, second = rig.node.pods
    before = rig.datapath.counters()
    packet = packet_proof.packet4(first.address4, second.address4)
    with syscalls.owned(syscalls.open_pin(rig.datapath._program_directory() / "nw_forward4")) as program:
        assert syscalls.program_test_run(program, packet, repeat=FLOOD).verdict == packet_proof.NF_DROP
    batches = []
    while batch := rig.reader.read():
        batches.append(batch)
    after = rig.datapath.counters()
    read = sum(map(len, batches))
    lost = after["events_lost"] - before["events_lost"]
    assert read + lost == FLOOD
    assert lost > 0
    assert max(map(len, batches)) == events.BATCH_EVENTS
    assert {event.source for batch in batches for event in batch} == {first.address4}
    assert after["packet_denied"] - before["packet_denied"] == FLOOD


def test_the_descriptor_becomes_readable_with_the_first_event(rig: conftest.Rig) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    poll = select.poll()
    poll.register(rig.reader.fd, select.POLLIN)
    assert poll.poll(0) == []
    packet = packet_proof.packet4(rig.node.pods[0].address4, rig.node.pods[1].address4)
    with syscalls.owned(syscalls.open_pin(rig.datapath._program_directory() / "nw_forward4")) as program:
        syscalls.program_test_run(program, packet)
    assert poll.poll(1000)
    (event,) = rig.reader.read()
    assert event.destination_port == packet_proof.PORT
    assert poll.poll(0) == []


def test_what_happened_without_a_reader_is_read_by_the_next(rig: conftest.Rig) -> None:
    rig.datapath.apply(states.pods(rig.node, egress={}))
    packet = packet_proof.packet4(rig.node.pods[0].address4, rig.node.pods[1].address4)
    with syscalls.owned(syscalls.open_pin(rig.datapath._program_directory() / "nw_forward4")) as program:
        syscalls.program_test_run(program, packet, repeat=3)
    following = events.EventReader(rig.datapath.events_path)
    assert len(following.read()) == 3
    following.close()
    assert rig.reader.read() == []


def test_a_pin_that_is_no_ring_is_refused_by_name(rig: conftest.Rig) -> None:
    descriptors = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    with pytest.raises(errors.DatapathError, match="missing"):
        events.EventReader(rig.datapath.events_path.with_name("missing"))
    with pytest.raises(errors.DatapathError, match="policy"):
        events.EventReader(rig.datapath.events_path.with_name("policy"))
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == descriptors


def test_records_still_being_written_end_a_batch_and_discarded_ones_are_skipped() -> None:
    content = bytes(layout.EVENT.size)
    records = [
        events.RECORD.pack(layout.EVENT.size | flag, 0, content) for flag in (0, ring.DISCARDED, 0, ring.BUSY, 0)
    ]
    read, used = events._unpack(b"".join(records))
    assert (len(read), used) == (2, 3 * events.RECORD_BYTES)
