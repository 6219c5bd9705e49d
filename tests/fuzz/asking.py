"""Rounds that ask: real service objects, called in process as gRPC calls them, and a share over a real socket.

A call is stepped by hand until it ends, has given enough, or waits for news: a follower waits for ever, and a round
must not. What a call may do is answer, or end with a status that its documentation names; an exception of any other
kind is what this looks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor
from google.protobuf import message as message_

from agent.api.flow import flow_pb2
from agent.api.nodewall.agent.v1 import agent_pb2
from agent.api.observer import observer_pb2 as pb
from agent.api.peer import peer_pb2
from agent.hubble import agent_events, peers, ring, service
from agent.observer import stream
from agent.rpc import service as agent_service
from tests.fuzz import noise
from tests.hubble import serving, variety
from tests.support import agents, served

FLOW_FIELDS: tuple[Any, ...] = tuple(flow_pb2.FlowFilter.DESCRIPTOR.fields)
MASK_PATHS = (*(field.name for field in flow_pb2.Flow.DESCRIPTOR.fields), "ethernet", "source.labels", "")
FLOWS = 24
ANSWERS_MOST = 30
METADATA_MOST = 8192
"""gRPC refuses more; escaped bytes are longer than sent ones."""
FOLLOWED_S = 0.02
"""How long a stream that goes on is read."""
DOCUMENTED = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
)
NUMBERS: Mapping[int, Sequence[Any]] = {
    descriptor.FieldDescriptor.TYPE_BOOL: (False, True),
    descriptor.FieldDescriptor.TYPE_FLOAT: (0.0, -1.5, float("inf"), float("nan")),
    descriptor.FieldDescriptor.TYPE_DOUBLE: (0.0, -1.5, float("inf"), float("nan")),
    descriptor.FieldDescriptor.TYPE_UINT64: (0, 1, 2**63, 2**64 - 1),
    descriptor.FieldDescriptor.TYPE_FIXED64: (0, 1, 2**63, 2**64 - 1),
    descriptor.FieldDescriptor.TYPE_UINT32: (0, 1, 2, 443, 2**31, 2**32 - 1),
    descriptor.FieldDescriptor.TYPE_FIXED32: (0, 1, 2, 443, 2**31, 2**32 - 1),
}
OVER_THE_WIRE = DOCUMENTED | {
    grpc.StatusCode.OK,
    grpc.StatusCode.DEADLINE_EXCEEDED,  # a follower's
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Aborted(Exception):  # noqa: N818 - what gRPC does to a call
    """A call ended itself with a status."""


class Context:
    """What a call sees of gRPC."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()) -> None:
        """End the call; the words go to a client's terminal."""
        assert code in DOCUMENTED, f"{code}: {details}"
        assert len(repr(trailing_metadata)) <= METADATA_MOST
        assert not noise.unprintable(details), ascii(details)
        assert len(details.encode()) <= 8 * service.SAID_MOST
        raise Aborted

    async def send_initial_metadata(self, _metadata: object) -> None:
        """Take it."""


def step(call: Awaitable[Any]) -> tuple[bool, Any]:
    """Run a call until it returns (True and its value) or waits for something that does not come by itself."""
    running = call.__await__()
    try:
        while True:
            if next(running) is not None:
                # As gRPC does to the call of a client that has gone.
                running.throw(asyncio.CancelledError())
    except asyncio.CancelledError:
        return False, None
    except StopIteration as ended:
        return True, ended.value


def drain(answers: AsyncIterator[Any]) -> list[Any]:
    """Return the first answers of a stream."""
    found: list[Any] = []
    try:
        while len(found) < ANSWERS_MOST:
            done, value = step(answers.__anext__())
            if not done:
                return found
            found.append(value)
    except (StopAsyncIteration, Aborted):
        return found
    if hasattr(answers, "aclose"):
        step(answers.aclose())
    return found


class Asked:
    """The services of one agent with some flows, made inside a running loop."""

    def __init__(self) -> None:
        """Fill them."""
        clock, node = agents.ManualClock(), serving.Node()
        verdicts = stream.Stream(clock=clock)
        self.ring = ring.Ring(node=variety.NODE, version="7", clock=clock)
        events = [record.event for record in variety.flows(FLOWS)]
        verdicts.publish(events)
        self.ring.take(events)
        self.events = agent_events.AgentEvents(node, name=variety.NODE, clock=clock)
        self.peers = peers.PeerService(node, name=variety.NODE, local="unix:///run/x.sock", port=None)
        self.observer = service.ObserverService(ring=self.ring, events=self.events, peer=self.peers)
        idle = served.Node(None)
        self.agent = agent_service.AgentService(node=idle, stream=verdicts, kernel=agents.kernel(idle, verdicts))

    def flows(self, choose: random.Random) -> None:
        """GetFlows, well-formed or not."""
        content = request(choose).SerializeToString()
        if choose.random() < 0.5:
            content = noise.tampered(choose, content)
        elif choose.random() < 0.1:
            content = choose.randbytes(choose.randrange(64))
        asked = parsed(pb.GetFlowsRequest, content)
        if asked is None:
            return
        for answer in drain(self.observer.get_flows(asked, Context())):
            pb.GetFlowsResponse.FromString(answer)

    def others(self, choose: random.Random) -> None:
        """Every other call of Hubble's services."""
        calls: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            (pb.GetAgentEventsRequest, lambda asked: drain(self.events.get(asked, Context()))),
            (pb.GetNodesRequest, lambda asked: step(self.observer.get_nodes(asked, Context()))),
            (pb.GetNamespacesRequest, lambda asked: step(self.observer.get_namespaces(asked, Context()))),
            (pb.ServerStatusRequest, lambda asked: step(self.observer.server_status(asked, Context()))),
            (peer_pb2.NotifyRequest, lambda asked: drain(self.peers.notify(asked, Context()))),
        )
        kind, call = choose.choice(calls)
        made = filled(choose, kind()).SerializeToString()
        asked = parsed(kind, noise.tampered(choose, made) if choose.random() < 0.5 else made)
        if asked is not None:
            call(asked)

    async def own(self, choose: random.Random) -> None:
        """Every call of agent.proto, by its descriptor: those that come later as well. Some answer from a thread."""
        described = agent_pb2.DESCRIPTOR.services_by_name["Agent"].methods
        method = choose.choice(list(described))
        kind = getattr(agent_pb2, method.input_type.name)
        made = filled(choose, kind()).SerializeToString()
        asked = parsed(kind, noise.tampered(choose, made) if choose.random() < 0.4 else made)
        if asked is None or not hasattr(self.agent, method.name):
            return
        answer = getattr(self.agent, method.name)(asked, Context())
        with contextlib.suppress(Aborted):
            if not hasattr(answer, "__anext__"):
                await answer
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOWED_S), contextlib.aclosing(answer):
                    for _ in range(ANSWERS_MOST):
                        await anext(answer, None)


def request(choose: random.Random) -> pb.GetFlowsRequest:
    """Return a request for flows that is well-formed, and whose fields hold anything."""
    made = pb.GetFlowsRequest(
        number=choose.choice((0, 1, 20, 2**64 - 1)), follow=choose.random() < 0.3, first=choose.random() < 0.3
    )
    for filters in (made.whitelist, made.blacklist):
        for _ in range(choose.choice((0, 0, 1, 1, 2))):
            wanted = filters.add()
            for field in choose.sample(FLOW_FIELDS, choose.randrange(4)):
                _fill(choose, wanted, field)
    made.field_mask.paths.extend(
        choose.choice(MASK_PATHS)
        if choose.random() < 0.7
        else noise.text(choose)[:99].encode("utf-8", "replace").decode()
        for _ in range(choose.choice((0, 0, 1, 3)))
    )
    if choose.random() < 0.2:
        made.since.seconds = choose.choice((0, -(2**63), 2**63 - 1))
        made.until.nanos = choose.choice((0, -(2**31), 2**31 - 1))
    return made


def filled(choose: random.Random, made: Any) -> Any:
    """Fill some fields of a message with anything of their type."""
    for field in made.DESCRIPTOR.fields:
        if choose.random() < 0.4:
            _fill(choose, made, field)
    return made


def _fill(choose: random.Random, made: Any, field: Any) -> None:
    inner = getattr(made, field.name)
    if field.message_type is not None:
        if not field.is_repeated:
            filled(choose, inner)
        elif hasattr(inner, "add"):  # a map has not
            filled(choose, inner.add())
        return
    values = [_value(choose, field) for _ in range(choose.randrange(1, 3))]
    if field.is_repeated:
        inner.extend(values)
    else:
        setattr(made, field.name, values[0])


def _value(choose: random.Random, field: Any) -> Any:
    if field.type == field.TYPE_STRING:
        return noise.text(choose)
    if field.type == field.TYPE_BYTES:
        return choose.randbytes(choose.randrange(9))
    return choose.choice(NUMBERS.get(field.type, (0, 1, 2, 300, 2**31 - 1)))


def parsed(kind: Any, content: bytes) -> Any:
    """Return the message, or None for bytes that gRPC itself refuses."""
    try:
        return kind.FromString(content)
    except message_.DecodeError:
        return None


async def over_the_wire(choose: random.Random, world: serving.World) -> None:
    """Send bytes to a server on a socket; it must answer, refuse, or go on waiting, and be there afterwards."""
    content = request(choose).SerializeToString()
    if choose.random() < 0.5:
        content = noise.tampered(choose, content)
    call = world.channel.unary_stream("/observer.Observer/GetFlows")(content, timeout=0.05)
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        code, details = error.code(), error.details() or ""
    else:
        return
    # Bytes that are no message never reach the service: this is gRPC's own answer to them.
    undecoded = code is grpc.StatusCode.UNKNOWN and "DecodeError" in details
    assert code in OVER_THE_WIRE or undecoded, f"{code}: {details}"
    assert not noise.unprintable(details), ascii(details)
