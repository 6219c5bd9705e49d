"""A recording answers each filter as the ring does that it was taken from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pytest

from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.flows import records as recorded
from agent.hubble import flows, records, replay, requests
from tests.flows import recording
from tests.hubble import naive, test_stock_cli, variety

FLOWS = variety.flows()
LINES = tuple(recorded.Reader(recording.line(one) for one in FLOWS))
MESSAGES = tuple(flows.flow(one, version="7") for one in FLOWS)


def seen(request: pb.GetFlowsRequest) -> list[int]:
    found = replay.answered(LINES, requests.query(request))
    return [int(line.document["flow"]["uuid"].rpartition("-")[2], 16) for line in found]


@pytest.mark.parametrize(("words", "allow", "deny"), test_stock_cli.FILTERS, ids=lambda value: str(value)[:40])
def test_each_filter_admits_what_a_naive_one_admits(
    words: Sequence[str], allow: Sequence[dict[str, Any]], deny: Sequence[dict[str, Any]]
) -> None:
    allowed, denied = ([flow_pb2.FlowFilter(**one) for one in some] for some in (allow, deny))
    expected = [
        number
        for number, flow in enumerate(MESSAGES)
        if not allowed or any(naive.admits(one, flow) for one in allowed)
        if not any(naive.admits(one, flow) for one in denied)
    ]
    assert seen(pb.GetFlowsRequest(whitelist=allowed, blacklist=denied)) == expected, words


def test_what_filters_see_of_a_verdict_is_the_same_in_a_recording() -> None:
    for line, original in zip(LINES, FLOWS, strict=True):
        assert isinstance(line.item, recorded.Record)
        found = replay.replayed(line.item)
        for name in ("uuid", "drop_reason", "event_type", "event_sub_type", "ip_version"):
            assert getattr(found, name) == getattr(original, name)
        for end, known in (
            (found.event.source, original.event.source),
            (found.event.destination, original.event.destination),
        ):
            assert records.selectable(end, found.event.node) == records.selectable(known, original.event.node)
            assert records.names(end) == records.names(known)
            assert records.cluster(end) == records.cluster(known)
        assert records.service(found.event.source) == records.service(original.event.source)
        asked = (records.dialled(event) for event in (found.event, original.event))
        assert records.service(next(asked)) == records.service(next(asked))


def test_first_last_and_the_window_are_the_rings() -> None:
    assert seen(pb.GetFlowsRequest()) == list(range(400))
    assert seen(pb.GetFlowsRequest(number=3)) == [397, 398, 399]
    assert seen(pb.GetFlowsRequest(number=3, first=True)) == [0, 1, 2]
    request = pb.GetFlowsRequest()
    request.since.FromNanoseconds(variety.BEGAN_NS + 10 * variety.STEP_NS)
    request.until.FromNanoseconds(variety.BEGAN_NS + 12 * variety.STEP_NS)
    assert seen(request) == [10, 11, 12]


def test_losses_are_told_and_are_no_flows() -> None:
    lost = recorded.Line(recorded.Lost(count=3, node="n1"), {"lost_events": {}})
    request = pb.GetFlowsRequest(whitelist=[flow_pb2.FlowFilter(source_pod=["nobody/"])])
    assert list(replay.answered([*LINES, lost], requests.query(request))) == [lost]
    assert lost not in list(replay.answered([*LINES, lost], requests.query(pb.GetFlowsRequest(number=2))))


def test_every_name_of_an_address_counts() -> None:
    (line,) = recorded.Reader([json.dumps(LINES[0].document).encode()])
    assert isinstance(line.item, recorded.Record)
    end = dataclasses.replace(line.item.destination, pod="", names=("a.example", "b.example"))
    record = dataclasses.replace(line.item, destination=end)
    for name in ("a.example", "b.*"):
        query = requests.query(pb.GetFlowsRequest(whitelist=[flow_pb2.FlowFilter(destination_fqdn=[name])]))
        assert query.admits(replay.replayed(record))
