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
VALUE_MOST = 256
REMEDY_MOST = 1024
"""Bytes of each that are sent back: in the metadata, and once more in the text, escaped; 8 KiB are all there is."""
TROUBLE_MOST = 2048
"""Bytes of what the kernel said."""
CUT = "..."
TOO_LARGE = "message larger than max"
"""What gRPC says of a request before we see it."""


async def refuse(context: Any, error: errors.InvalidInput | errors.NotFound) -> None:
    """End a call with `error`; raises what grpc.aio ends calls with."""
    shown, remedy = bounded(str(error.value), VALUE_MOST), bounded(error.remedy, REMEDY_MOST)
    refusal = pb.Refusal(field=error.field, value=shown, remedy=remedy)
    text = printable(str(type(error)(field=error.field, value=shown, remedy=remedy)))
    trailing = ((KEY, refusal.SerializeToString()),)
    await context.abort(KINDS[type(error)], text, trailing_metadata=trailing)


def bounded(text: str, most: int) -> str:
    """Return `text`, or its beginning and a mark, in at most `most` bytes of UTF-8."""
    content = text.encode("utf-8", "backslashreplace")
    if len(content) <= most:
        return content.decode()
    return content[: most - len(CUT)].decode("utf-8", "ignore") + CUT


def printable(text: str) -> str:
    """Escape what would give a terminal orders: whoever made the client may print the text of a status as it is."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


@contextlib.asynccontextmanager
async def told(context: Any) -> AsyncIterator[None]:
    """End the call with the error of the block, if it is one of ours."""
    try:
        yield
    except (errors.InvalidInput, errors.NotFound) as error:
        await refuse(context, error)
    except (errors.NodewallError, OSError) as error:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, bounded(str(error), TROUBLE_MOST))


def read(failed: Any) -> errors.NodewallError | None:
    """Return the error that a call was ended with; None: it was ended by something else."""
    if failed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in (failed.details() or ""):
        remedy = "write less: what an agent is asked in one go has 4 MiB at most"
        return errors.InvalidInput(field="request", value=failed.details(), remedy=remedy)
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
