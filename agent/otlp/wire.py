"""Log records as OTLP's protobuf, and what a collector answers; no I/O, no clock.

A record is serialised once, when it is taken from the ring, and waits as bytes: their number bounds the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from google.protobuf import message as message_
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1 import resource_pb2

from agent import errors
from agent.api.nodewall.otlp.v1 import status_pb2
from agent.hubble import records, writer
from agent.model import verdict
from agent.otlp import flowlog

METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
SCOPE = "nodewall"
PIECES_MOST = 1024
"""Pieces kept; when there are more all are forgotten, as what traffic there is has changed."""
RETRY_INFO = "/google.rpc.RetryInfo"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a collector said of a request it took."""

    rejected: int
    """Records of it that are lost for good."""
    message: str
    """Why; or, where none is lost, a warning. A stranger's: escape it."""


def record(log: flowlog.Log, *, observed_ns: int) -> bytes:
    """Return a serialised LogRecord; `observed_ns` is when it was taken up (Unix time)."""
    return logs_pb2.LogRecord(
        time_unix_nano=log.time_ns,
        observed_time_unix_nano=observed_ns,
        severity_number=logs_pb2.SeverityNumber.ValueType(log.severity.value),
        severity_text=log.severity.name,
        event_name=log.event,
        body=common_pb2.AnyValue(string_value=log.body),
        attributes=_attributes(log.attributes),
    ).SerializeToString()


class Writer:
    """Writes flows as `record` writes what `flowlog.of_flow` says, but what flows have in common it writes once.

    Protobuf may be written in pieces, one after the other. Used in one thread.
    """

    def __init__(self) -> None:
        """Start with nothing written."""
        self._pieces: dict[tuple[object, ...], bytes] = {}

    def flow(self, record: records.Record, *, observed_ns: int) -> bytes:
        """Return a serialised LogRecord."""
        event = record.event
        return (
            self._piece(event)
            + logs_pb2.LogRecord(
                time_unix_nano=event.time_ns,
                observed_time_unix_nano=observed_ns,
                body=common_pb2.AnyValue(string_value=flowlog.body(event)),
                attributes=_attributes(flowlog.own(record)),
            ).SerializeToString()
        )

    def _piece(self, event: verdict.VerdictEvent) -> bytes:
        key = writer.kind(event)
        if (found := self._pieces.get(key)) is None:
            if len(self._pieces) >= PIECES_MOST:
                self._pieces.clear()
            severity = flowlog.SEVERITIES[event.verdict]
            found = self._pieces[key] = logs_pb2.LogRecord(
                severity_number=logs_pb2.SeverityNumber.ValueType(severity.value),
                severity_text=severity.name,
                event_name=flowlog.FLOW,
                attributes=_attributes(flowlog.shared(event)),
            ).SerializeToString()
        return found


class Requests:
    """Makes requests of records; all have one resource and one scope."""

    def __init__(self, resource: flowlog.Attributes, *, version: str) -> None:
        """`resource` says whose logs these are, `version` is the agent's."""
        self._resource = resource_pb2.Resource(attributes=_attributes(resource))
        self._scope = common_pb2.InstrumentationScope(name=SCOPE, version=version)

    def of(self, written: Iterable[bytes]) -> bytes:
        """Return a serialised ExportLogsServiceRequest."""
        request = logs_service_pb2.ExportLogsServiceRequest()
        of_resource = request.resource_logs.add(resource=self._resource)
        of_scope = of_resource.scope_logs.add(scope=self._scope)
        for one in written:
            of_scope.log_records.add().MergeFromString(one)
        return request.SerializeToString()


def answer(response: bytes) -> Answer:
    """Read an ExportLogsServiceResponse; raises InvalidAnswer."""
    try:
        found = logs_service_pb2.ExportLogsServiceResponse.FromString(response).partial_success
    except message_.DecodeError as error:
        raise errors.InvalidAnswer(what="a collector's answer", why=str(error)) from error
    return Answer(rejected=max(0, found.rejected_log_records), message=found.error_message)


def asked_s(details: bytes) -> float | None:
    """Return the seconds to wait that grpc-status-details-bin asks for; None where it asks for nothing."""
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            if detail.type_url.endswith(RETRY_INFO):
                delay = status_pb2.RetryInfo.FromString(detail.value).retry_delay
                return max(0.0, delay.seconds + delay.nanos / 1e9)
    except message_.DecodeError:
        pass  # what cannot be read asks for nothing
    return None


def _attributes(attributes: Mapping[str, flowlog.Value]) -> list[common_pb2.KeyValue]:
    return [common_pb2.KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: flowlog.Value) -> common_pb2.AnyValue:
    match value:
        case int():
            return common_pb2.AnyValue(int_value=value)
        case str():
            return common_pb2.AnyValue(string_value=value)
        case _:
            array = common_pb2.ArrayValue(values=[common_pb2.AnyValue(string_value=one) for one in value])
            return common_pb2.AnyValue(array_value=array)
