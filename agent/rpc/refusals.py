"""Why a question was refused, on its way from the agent to whoever asked: field, value, remedy.

The status of the call says which of the two it is, its text is the whole sentence for clients of other making, and a
Refusal in the trailing metadata keeps the parts, so that our client raises what the agent did. What the kernel refused
is told as text.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf import message as message_

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb

KEY = "nodewall-refusal-bin"
KINDS: dict[type[errors.InvalidInput | errors.NotFound], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
}
VALUE_MOST = 1024
"""Characters of the value that are sent back; metadata has a bound."""


async def refuse(context: Any, error: errors.InvalidInput | errors.NotFound) -> None:
    """End a call with `error`; raises what grpc.aio ends calls with."""
    shown = str(error.value)[:VALUE_MOST]
    refusal = pb.Refusal(field=error.field, value=shown, remedy=error.remedy)
    text = str(type(error)(field=error.field, value=shown, remedy=error.remedy))
    trailing = ((KEY, refusal.SerializeToString()),)
    await context.abort(KINDS[type(error)], text, trailing_metadata=trailing)


@contextlib.asynccontextmanager
async def told(context: Any) -> AsyncIterator[None]:
    """End the call with the error of the block, if it is one of ours."""
    try:
        yield
    except (errors.InvalidInput, errors.NotFound) as error:
        await refuse(context, error)
    except (errors.NodewallError, OSError) as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))


def read(failed: Any) -> errors.NodewallError | None:
    """Return the error that a call was ended with; None: it was ended by something else."""
    if failed.code() is grpc.StatusCode.FAILED_PRECONDITION:
        return errors.DatapathError(str(failed.details()))
    for kind, code in KINDS.items():
        if failed.code() is code:
            for key, content in failed.trailing_metadata() or ():
                if key == KEY:
                    try:
                        refusal = pb.Refusal.FromString(content)
                    except message_.DecodeError:
                        return None
                    return kind(field=refusal.field, value=refusal.value, remedy=refusal.remedy)
    return None
