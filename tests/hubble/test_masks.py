"""A field mask is a lower bound."""

from __future__ import annotations

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2
from agent.hubble import flows, masks, writer
from tests.hubble import variety

RECORD = variety.flows(3)[2]
RESPONSE = writer.Writer(version="7").response(RECORD)


def sent(*paths: str) -> pb.Flow:
    return observer_pb2.GetFlowsResponse.FromString(masks.without(RESPONSE, masks.dropped(paths))).flow


def test_without_a_mask_everything_is_sent() -> None:
    assert masks.dropped(()) == ()
    assert sent() == flows.flow(RECORD, version="7")


def test_what_is_asked_for_is_sent_whole_and_the_rest_is_not() -> None:
    flow = sent("source.pod_name", "uuid")
    whole = flows.flow(RECORD, version="7")
    assert (flow.source, flow.uuid) == (whole.source, whole.uuid)
    assert not flow.HasField("destination")
    assert not flow.HasField("emitter")


def test_the_policies_that_decided_are_sent_whatever_the_mask_says() -> None:
    flow, whole = sent("time"), flows.flow(RECORD, version="7")
    for name in masks.ALWAYS:
        assert getattr(flow, name) == getattr(whole, name)


def test_paths_that_no_field_has_are_passed_over() -> None:
    assert sent("ethernet", "ip_trace_id.trace_id", "", ".", "source..x") == sent("time", "source")
    assert not sent("ethernet").HasField("source")


def test_every_field_that_is_always_sent_exists() -> None:
    assert {field.name for field in pb.Flow.DESCRIPTOR.fields} >= masks.ALWAYS
