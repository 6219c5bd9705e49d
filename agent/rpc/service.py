"""The service of agent.proto: each call asks one question and converts the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

from agent import reconciler
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.observer import stream
from agent.rpc import convert, describe, views


class Node(Protocol):
    """What the service asks."""

    def status(self) -> views.Status:
        """Describe what runs."""

    @property
    def enforcement(self) -> reconciler.Enforcement | None:
        """What is enforced; None before the first policy is."""


class AgentService(pb_grpc.AgentServicer):
    """Before the first policy is enforced every list is empty."""

    def __init__(self, *, node: Node, stream: stream.Stream) -> None:
        """`node` answers for the agent, `stream` has the verdicts."""
        self._node = node
        self._stream = stream

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: Any) -> pb.Status:  # noqa: N802 - agent.proto
        """Say what runs, since when, and what is wrong."""
        return convert.status_message(self._node.status())

    async def ListEndpoints(  # noqa: N802 - agent.proto
        self, _request: pb.ListEndpointsRequest, _context: Any
    ) -> pb.ListEndpointsResponse:
        """List the pods of this node that policy is enforced on."""
        now = self._node.enforcement
        found = describe.endpoints(now) if now is not None else ()
        return pb.ListEndpointsResponse(endpoints=[convert.endpoint_message(one) for one in found])

    async def ListIdentities(  # noqa: N802 - agent.proto
        self, _request: pb.ListIdentitiesRequest, _context: Any
    ) -> pb.ListIdentitiesResponse:
        """List identities and the facts they stand for."""
        now = self._node.enforcement
        found = describe.identities(now) if now is not None else ()
        return pb.ListIdentitiesResponse(identities=[convert.identity_message(one) for one in found])

    async def ListPolicies(  # noqa: N802 - agent.proto
        self, _request: pb.ListPoliciesRequest, _context: Any
    ) -> pb.ListPoliciesResponse:
        """List policies, whom they select here, and their problems."""
        now = self._node.enforcement
        found = describe.policies(now) if now is not None else ()
        return pb.ListPoliciesResponse(policies=[convert.policy_message(one) for one in found])

    async def WatchVerdicts(  # noqa: N802 - agent.proto
        self, request: pb.WatchVerdictsRequest, _context: Any
    ) -> AsyncIterator[pb.WatchVerdictsResponse]:
        """Stream stored verdicts, then, if asked to follow, those to come."""
        wanted = convert.wanted(request)
        if not request.follow:
            for event in self._stream.stored(request.last or None, wanted=wanted):
                yield convert.item_message(event)
            return
        with self._stream.subscribe(last=request.last, wanted=wanted) as subscription:
            async for item in subscription.items():
                yield convert.item_message(item)
