"""What every request has to be before its call sees it: readable, known to its last field, short, fit to be printed.

The problem: what protobuf does not know it ignores, and a filter that is ignored lets everything through; of audit it
would be a namespace where one policy was meant. The rule: a field that agent.proto lacks is refused, never ignored, and
so is a text that is longer than any name or has characters that no name has. It holds for each call there is and each
to come, for the server asks here before it calls. What the words mean is the calls' business.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import message as message_
from google.protobuf import unknown_fields

from agent import errors
from agent.rpc import naming, refusals

TEXT_MOST = 512
"""Characters; KIND/NAMESPACE/NAME are 380 at most."""
NAMED = frozenset(
    {
        *("GetEndpointRequest.name", "GetPolicyRequest.name", "DumpMapRequest.endpoint"),
        *("TraceFlowRequest.source", "TraceFlowRequest.destination"),
        *("ListLearnedRequest.pod", "ExplainNameRequest.pod"),
    }
)
"""Fields that name one thing of the cluster. No API server admits a name with control characters, but manifests may
have one; who asks for it gets it, and where nothing is called so, whoever looks for it refuses what can be no name."""


class Checked(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # it takes none at runtime
    """Reads and checks a request, and then calls."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return what answers a call; None where there is no such call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None

        async def one(content: bytes, context: Any) -> Any:
            return await handler.unary_unary(await _accepted(handler, content, context), context)

        async def several(content: bytes, context: Any) -> AsyncIterator[Any]:
            request = await _accepted(handler, content, context)
            async with contextlib.aclosing(handler.unary_stream(request, context)) as answers:
                async for answer in answers:
                    yield answer

        serializer = handler.response_serializer
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(several, response_serializer=serializer)
        return grpc.unary_unary_rpc_method_handler(one, response_serializer=serializer)


async def _accepted(handler: Any, content: bytes, context: Any) -> Any:
    async with refusals.told(context):
        return read(content, handler.request_deserializer)


def read(content: bytes, deserialize: Callable[[bytes], Any]) -> Any:
    """Return the request; raises InvalidInput where it cannot be answered as it was meant."""
    try:
        request = deserialize(content)
    except message_.DecodeError as error:
        remedy = "send a message of agent.proto, with texts in UTF-8"
        raise errors.InvalidInput(field="request", value=content, remedy=remedy) from error
    check(request)
    return request


def check(request: message_.Message) -> None:
    """Raise InvalidInput for what agent.proto lacks, and for texts that can be nobody's name."""
    name = request.DESCRIPTOR.name
    unknown = unknown_fields.UnknownFieldSet(request)
    for one in (unknown[place] for place in range(len(unknown))):
        remedy = "this agent does not know that field and leaves no part of a question out; use one release"
        raise errors.InvalidInput(field=f"{name} field {one.field_number}", value=one.data, remedy=remedy)
    for described, value in request.ListFields():
        for one in value if described.is_repeated else (value,):
            if isinstance(one, message_.Message):
                check(one)
            elif isinstance(one, str):
                _check_text(described.name, one, may_be_odd=f"{name}.{described.name}" in NAMED)


def _check_text(field: str, text: str, *, may_be_odd: bool) -> None:
    if len(text) > TEXT_MOST:
        remedy = f"it has {len(text)} characters; write at most {TEXT_MOST}"
        raise errors.InvalidInput(field=field, value=text, remedy=remedy)
    if not may_be_odd and not text.isprintable():
        raise errors.InvalidInput(field=field, value=text, remedy=naming.PRINTABLE)
