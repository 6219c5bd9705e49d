"""The verdict stream's request and items, as messages and back: a choice, and a filter with what else is asked for.

Everything else on the wire is mirrored. Reading raises InvalidInput where the other side speaks of something this
version does not know.
"""

from __future__ import annotations

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import verdict
from agent.rpc import mirror


def item_message(item: verdict.Item) -> pb.WatchVerdictsResponse:
    """Return the message of the stream for a verdict, or for verdicts that were lost."""
    if isinstance(item, verdict.Lost):
        return pb.WatchVerdictsResponse(lost=mirror.message(item, pb.Lost))
    return pb.WatchVerdictsResponse(verdict=mirror.message(item, pb.Verdict))


def item(message: pb.WatchVerdictsResponse) -> verdict.Item:
    """Read a message of the stream."""
    match message.WhichOneof("event"):
        case "verdict":
            return mirror.value(message.verdict, verdict.VerdictEvent)
        case "lost":
            return mirror.value(message.lost, verdict.Lost)
        case other:
            raise errors.InvalidInput(field="event", value=other, remedy=mirror.VERSIONS_DIFFER)


def watch_message(wanted: verdict.Filter, *, follow: bool, last: int) -> pb.WatchVerdictsRequest:
    """Return the request for verdicts that are `wanted`."""
    return pb.WatchVerdictsRequest(
        follow=follow,
        last=last,
        verdict=wanted.verdict.name if wanted.verdict is not None else "",
        namespace=wanted.namespace,
        pod=wanted.pod,
        raw=wanted.raw,
    )


def wanted(message: pb.WatchVerdictsRequest) -> verdict.Filter:
    """Read which verdicts a request wants; raises InvalidInput."""
    for field, text in (("namespace", message.namespace), ("pod", message.pod)):
        if "/" in text:
            remedy = "write a name alone, without a slash; namespace and pod are fields of their own"
            raise errors.InvalidInput(field=field, value=text, remedy=remedy)
    return verdict.Filter(
        verdict=_verdict(message.verdict) if message.verdict else None,
        namespace=message.namespace,
        pod=message.pod,
        raw=message.raw,
    )


def _verdict(name: str) -> verdict.Verdict:
    try:
        return verdict.Verdict[name]
    except KeyError as error:
        remedy = f"write one of {', '.join(verdict.Verdict.__members__)}, or nothing for any"
        raise errors.InvalidInput(field="verdict", value=name, remedy=remedy) from error
