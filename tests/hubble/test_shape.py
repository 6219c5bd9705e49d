"""Our .proto files against those the stock command line was built with: same names, same numbers, same types."""

from __future__ import annotations

import pathlib

import pytest
from google.protobuf import descriptor_pb2

from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2
from agent.api.peer import peer_pb2
from agent.api.relay import relay_pb2
from tests.hubble import descriptors

OURS = (flow_pb2.DESCRIPTOR, observer_pb2.DESCRIPTOR, peer_pb2.DESCRIPTOR, relay_pb2.DESCRIPTOR)


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_every_name_number_and_type_of_ours_is_hubbles(
    hubble: pathlib.Path, file: descriptor_pb2.FileDescriptorProto
) -> None:
    ours = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)  # type: ignore[attr-defined]  # a FileDescriptor
    theirs = descriptors.embedded(hubble, ours.name)
    assert ours.package == theirs.package
    fields = {
        f"{message.name}.{field.name}": _shape(field) for message in theirs.message_type for field in message.field
    }
    for message in ours.message_type:
        for field in message.field:
            assert fields.get(f"{message.name}.{field.name}") == _shape(field), f"{message.name}.{field.name}"
    values = {f"{enum.name}.{value.name}": value.number for enum in theirs.enum_type for value in enum.value}
    for enum in ours.enum_type:
        for value in enum.value:
            assert values.get(f"{enum.name}.{value.name}") == value.number, f"{enum.name}.{value.name}"
    calls = {call.name: _call(call) for service in theirs.service for call in service.method}
    for service in ours.service:
        for call in service.method:
            assert calls[call.name] == _call(call)


def _shape(field: descriptor_pb2.FieldDescriptorProto) -> tuple[object, ...]:
    return field.number, field.type, field.label, field.type_name, field.HasField("oneof_index")


def _call(call: descriptor_pb2.MethodDescriptorProto) -> tuple[object, ...]:
    return call.input_type, call.output_type, call.client_streaming, call.server_streaming
