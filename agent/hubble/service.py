"""The calls of observer.Observer: each asks one question and converts the answer.

GetFlows gives bytes to the transport as the ring keeps them. Between two flows it never works longer than for one
reading of the ring, so that a filter which admits nothing does not stop everybody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc

from agent import errors
from agent.api.observer import observer_pb2 as pb
from agent.api.relay import relay_pb2
from agent.hubble import agent_events, flows, masks, peers, records, requests
from agent.hubble import ring as ring_

NAME = "observer.Observer"
SAID_MOST = 1024
"""Characters of a complaint: it shows what the client sent, and travels where 8 KiB are all there is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look at the ring gave."""

    responses: Sequence[bytes]
    empty: bool
    """There was nothing to look at."""
    passed: bool
    """What follows is after the window."""


class ObserverService:
    """Answers for one node; `handlers` is what a server needs of it."""

    def __init__(self, *, ring: ring_.Ring, events: agent_events.AgentEvents, peer: peers.PeerService) -> None:
        """`peer` knows where this service answers."""
        self._ring = ring
        self._events = events
        self._peer = peer
        self._started_ns = ring.clock.monotonic_ns()

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """Return the calls by name; that of flows passes bytes on."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        serialize = pb.ServerStatusResponse.SerializeToString
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "GetFlows": stream(self.get_flows, pb.GetFlowsRequest.FromString, None),
                "GetAgentEvents": stream(self._events.get, pb.GetAgentEventsRequest.FromString, None),
                "GetNodes": unary(self.get_nodes, pb.GetNodesRequest.FromString, serialize),
                "GetNamespaces": unary(self.get_namespaces, pb.GetNamespacesRequest.FromString, serialize),
                "ServerStatus": unary(self.server_status, pb.ServerStatusRequest.FromString, serialize),
            },
        )

    async def get_flows(self, request: pb.GetFlowsRequest, context: Any) -> AsyncIterator[bytes]:
        """Stream stored flows, then, if asked to follow, those to come."""
        try:
            query = requests.query(request)
        except errors.InvalidInput as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:SAID_MOST])
            return
        end = self._ring.end
        start = await self._start(query, end)
        stop = None if query.window.follow else end
        with self._ring.reading(start) as reader:
            # Without a flow to send, the client would not learn that it is being listened to.
            await context.send_initial_metadata(())
            async with contextlib.aclosing(self._responses(query, reader, stop)) as responses:
                async for response in responses:
                    yield response

    async def server_status(self, _request: pb.ServerStatusRequest, _context: Any) -> pb.ServerStatusResponse:
        """Say how many flows there are and were."""
        answer = pb.ServerStatusResponse(
            num_flows=self._ring.stored,
            max_flows=ring_.CAPACITY,
            seen_flows=self._ring.end,
            uptime_ns=self._uptime_ns,
            version=self._ring.version,
            flows_rate=self._ring.rate,
        )
        answer.num_connected_nodes.value, answer.num_unavailable_nodes.value = 1, 0
        return answer

    async def get_nodes(self, _request: pb.GetNodesRequest, _context: Any) -> pb.GetNodesResponse:
        """Name this node: nobody here asks another."""
        own = self._peer.own()
        node = pb.Node(
            name=self._ring.node,
            version=self._ring.version,
            address=own.address,
            state=relay_pb2.NODE_CONNECTED,
            uptime_ns=self._uptime_ns,
            num_flows=self._ring.stored,
            max_flows=ring_.CAPACITY,
            seen_flows=self._ring.end,
        )
        if own.HasField("tls"):
            node.tls.enabled, node.tls.server_name = True, own.tls.server_name
        return pb.GetNodesResponse(nodes=[node])

    async def get_namespaces(self, _request: pb.GetNamespacesRequest, _context: Any) -> pb.GetNamespacesResponse:
        """Name the namespaces of the flows that are stored."""
        found: set[str] = set()
        stop = self._ring.end
        with self._ring.reading(self._ring.start) as reader:
            while places := reader.read(stop=stop):
                events = (batch.record(serial).event for batch, serial in places)
                found.update(end.namespace for event in events for end in (event.source, event.destination) if end.pod)
                await asyncio.sleep(0)
        named = [pb.Namespace(cluster=records.CLUSTER, namespace=namespace) for namespace in sorted(found)]
        return pb.GetNamespacesResponse(namespaces=named)

    @property
    def _uptime_ns(self) -> int:
        return self._ring.clock.monotonic_ns() - self._started_ns

    async def _responses(
        self, query: requests.Query, reader: ring_.Reader, stop: int | None
    ) -> AsyncGenerator[bytes, None]:
        left = query.window.number if query.window.first else None
        while left is None or left > 0:
            reading = self._read(reader, query, stop)
            if (gap := reader.due()) is not None:
                yield flows.lost(gap.lost, node=self._ring.node, first_ns=gap.first_ns, last_ns=gap.last_ns)
            for response in reading.responses[:left]:
                yield response
            if left is not None:
                left -= len(reading.responses)
            if reading.passed or (reading.empty and stop is not None):
                return
            await (reader.wait() if reading.empty else asyncio.sleep(0))

    def _read(self, reader: ring_.Reader, query: requests.Query, stop: int | None) -> Reading:
        """Take the next flows; what is returned holds on to bytes alone, however long the client takes over them."""
        places = reader.read(stop=stop)
        found = [batch.response(serial) for batch, serial in places if _admits(query, batch, serial)]
        bounded = query.window.follow and query.window.until_ns is not None
        return Reading(
            responses=[masks.without(one, query.dropped) for one in found] if query.dropped else found,
            empty=not places,
            passed=bounded and any(query.window.passed(batch.record(one).event.time_ns) for batch, one in places),
        )

    async def _start(self, query: requests.Query, end: int) -> int:
        """Return the number of the first flow to look at: of the last so many before `end`, or of all."""
        window, ring = query.window, self._ring
        if window.only_new:
            return end
        if window.number is None or window.first:
            return ring.start
        serial, left = end, window.number
        while left > 0 and serial > ring.start:
            batch = ring.holding(serial - 1)
            if batch is None or serial <= batch.first:
                break
            first = max(batch.first, serial - ring_.CHUNK)
            for one in range(serial - 1, first - 1, -1):
                serial = one
                left -= _admits(query, batch, one)
                if left == 0:
                    break
            await asyncio.sleep(0)
        return serial


def _admits(query: requests.Query, batch: ring_.Batch, serial: int) -> bool:
    """Tell whether a flow is asked for; it is not given names for that where its verdict says enough."""
    return (query.verdicts is None or serial in batch.of(query.verdicts)) and query.admits(batch.record(serial))
