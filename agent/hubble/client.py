"""A small synchronous client of one agent's flows, for agentctl; it fails as the client of the agent's own API does."""

from __future__ import annotations

import pathlib
from collections.abc import Generator
from typing import Any

import grpc
from google.protobuf import json_format

from agent import errors
from agent.api.observer import observer_pb2 as pb
from agent.flows import records
from agent.hubble import flows, requests, service
from agent.hubble import records as told
from agent.model import verdict
from agent.rpc import client

SOCKET = "hubble.sock"
"""Beside the agent's own."""
EVERY_STORED = 2**32 - 1
STORED_S = 60.0
"""All that an agent stores comes in this time."""


class FlowClient(client.AgentClient):
    """The flows of one agent; a context manager."""

    def flows(self, request: pb.GetFlowsRequest) -> Generator[records.Line, None, None]:
        """Yield what the agent tells, as recordings have it; close it to end following.

        Raises InvalidInput where the agent refuses the request, and Unreachable.
        """
        self._require()
        ask = self._channel.unary_stream(
            f"/{service.NAME}/GetFlows",
            request_serializer=pb.GetFlowsRequest.SerializeToString,
            response_deserializer=pb.GetFlowsResponse.FromString,
        )
        call: Any = ask(request, timeout=None if request.follow else STORED_S)
        try:
            for response in call:
                document = document_of(response)
                if (item := records.item_of(document)) is not None:
                    yield records.Line(item, document)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise errors.InvalidInput(field="filter", value="refused", remedy=str(error.details())) from error
            raise self._unreachable(error) from error
        finally:
            call.cancel()

    def layers(self, request: pb.GetFlowsRequest) -> Generator[records.Line, None, None]:
        """Yield what each layer said for itself in place of one verdict a connection; raises as `flows` does.

        Hubble's API has no word for that, so the agent's own is asked; filters are for whoever reads this. To follow,
        the request's number is how many stored ones come first; with a moment to begin at, all do that the agent
        queues for a reader.
        """
        window = requests.window(request)
        wanted = verdict.Filter(raw=True)
        last = 0 if window.only_new or not window.follow else window.number or EVERY_STORED
        for number, item in enumerate(self.watch_verdicts(follow=window.follow, last=last, wanted=wanted)):
            if (line := line_of(item, number)) is not None:
                yield line


def line_of(item: verdict.Item, number: int = 0) -> records.Line | None:
    """Return an item of the agent's own stream as recordings have it; None where those have no word for it."""
    document = document_of(_response(item, number))
    read = records.item_of(document)
    return records.Line(read, document) if read is not None else None


def _response(item: verdict.Item, number: int) -> pb.GetFlowsResponse:
    if isinstance(item, verdict.Lost):
        return pb.GetFlowsResponse.FromString(flows.lost(item, node="", first_ns=0, last_ns=0))
    flow = flows.flow(told.Record(item, number, 0), version="")
    return pb.GetFlowsResponse(flow=flow, node_name=flow.node_name, time=flow.time)


def beside(agent_socket: pathlib.Path) -> pathlib.Path:
    """Return where the agent that has this socket tells of flows."""
    return agent_socket.with_name(SOCKET)


def document_of(response: pb.GetFlowsResponse) -> dict[str, Any]:
    """Return a response as Hubble's JSON has it."""
    document: dict[str, Any] = json_format.MessageToDict(response, preserving_proto_field_name=True)
    return document
