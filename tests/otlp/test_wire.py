"""OTLP's bytes: what the project's own definitions say of Google's, and answers that make no sense."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from agent import errors
from agent.api.nodewall.otlp.v1 import status_pb2
from agent.hubble import records
from agent.otlp import flowlog, wire
from tests.hubble import variety
from tests.otlp import collector

# google.rpc.Status{code: 8, details: [Any{RetryInfo{retry_delay: 2.5 s}}]}, written by hand.
DELAY = b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01"
URL = b"type.googleapis.com/google.rpc.RetryInfo"


def status(delay: bytes, url: bytes = URL) -> bytes:
    detail = b"\x0a" + bytes([len(url)]) + url + b"\x12" + bytes([len(delay)]) + delay
    return b"\x08\x08\x1a" + bytes([len(detail)]) + detail


def test_the_wait_that_a_collector_asks_for_is_read() -> None:
    assert wire.asked_s(status(DELAY)) == 2.5
    assert wire.asked_s(status(b"")) == 0.0
    assert wire.asked_s(status(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")) == 0.0, "less than nothing"


@pytest.mark.parametrize("details", [b"", b"\xff", status(DELAY, b"x/google.rpc.DebugInfo"), status(b"\xff\xff")])
def test_what_asks_for_nothing_or_cannot_be_read_asks_for_nothing(details: bytes) -> None:
    assert wire.asked_s(details) is None


def test_the_definitions_have_the_published_numbers() -> None:
    file = descriptor_pb2.FileDescriptorProto.FromString(status_pb2.DESCRIPTOR.serialized_pb)
    fields = {message.name: {field.name: field.number for field in message.field} for message in file.message_type}
    assert fields == {"Status": {"code": 1, "message": 2, "details": 3}, "RetryInfo": {"retry_delay": 1}}


def test_an_answer_that_cannot_be_read_is_no_answer() -> None:
    assert wire.answer(b"") == wire.Answer(rejected=0, message="")
    with pytest.raises(errors.InvalidAnswer, match="a collector's answer cannot be read"):
        wire.answer(b"\xff")


def test_what_is_written_in_pieces_says_the_same_as_what_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PIECES_MOST", 50)
    writer = wire.Writer()
    for serial, one in enumerate(one for one in variety.flows(200) for _ in range(2)):
        record = records.Record(one.event, serial, 7)
        whole = logs_pb2.LogRecord.FromString(wire.record(flowlog.of_flow(record), observed_ns=9))
        pieced = logs_pb2.LogRecord.FromString(writer.flow(record, observed_ns=9))
        assert collector.attributes(pieced.attributes) == collector.attributes(whole.attributes)
        assert len(pieced.attributes) == len(whole.attributes), "none of them twice"
        del pieced.attributes[:], whole.attributes[:]
        assert pieced == whole
