"""Bytes made in pieces say what the whole message says."""

from __future__ import annotations

import dataclasses

import pytest

from agent.api.observer import observer_pb2 as pb
from agent.hubble import flows, records, writer
from tests.hubble import variety


def test_every_flow_says_on_the_wire_what_the_message_says_the_second_time_too() -> None:
    write = writer.Writer(version="7")
    for record in variety.flows() * 2:
        answer = pb.GetFlowsResponse.FromString(write.response(record))
        assert answer.flow == flows.flow(record, version="7")
        assert (answer.node_name, answer.time) == (answer.flow.node_name, answer.flow.time)
        assert answer.time.seconds * 10**9 + answer.time.nanos == record.event.time_ns


def test_flows_that_differ_in_one_thing_are_told_apart() -> None:
    write = writer.Writer(version="7")
    first, *others = variety.flows()
    for record in others:
        for field in dataclasses.fields(record.event):
            event = dataclasses.replace(first.event, **{field.name: getattr(record.event, field.name)})
            mixed = records.Record(event, 1, variety.RUN)
            assert pb.GetFlowsResponse.FromString(write.response(mixed)).flow == flows.flow(mixed, version="7")


def test_no_more_pieces_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "KEPT", 5)
    write = writer.Writer(version="7")
    for record in variety.flows():
        assert pb.GetFlowsResponse.FromString(write.response(record)).flow == flows.flow(record, version="7")
        assert len(vars(write)["_pieces"]) <= 5


@pytest.mark.parametrize("size", [1, 127, 128, 300, 16_383, 16_384, 200_000])
def test_a_flow_of_any_size_can_be_read(size: int) -> None:
    end = variety.pod("x", "p", "10.0.0.9", 300, big="a" * size)
    record = variety.flows(1)[0]
    record = records.Record(dataclasses.replace(record.event, source=end), 0, variety.RUN)
    answer = pb.GetFlowsResponse.FromString(writer.Writer(version="7").response(record))
    assert answer.flow == flows.flow(record, version="7")
