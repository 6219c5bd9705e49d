"""The questions about one thing each, and about the process itself.

Answers are worked out in a thread, on values that nothing changes: in a large cluster that takes long enough for the
event loop to be missed. What cannot be answered is a refusal (`refusals`), never an empty answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeAlias, TypeVar

from agent import errors, reconciler
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.model import verdict
from agent.observer import stream
from agent.rpc import (
    address_detail,
    audits,
    details,
    endpoint_detail,
    identity_detail,
    mirror,
    naming,
    policy_detail,
    refusals,
    service_detail,
    views,
)

Answer = TypeVar("Answer")
Answering: TypeAlias = Callable[[Any, Any, Any], Coroutine[Any, Any, Answer]]


class Node(Protocol):
    """What the service asks."""

    def status(self) -> views.Status:
        """Describe what runs."""

    @property
    def enforcement(self) -> reconciler.Enforcement | None:
        """What is enforced; None before the first policy is."""

    @property
    def audit(self) -> audits.Auditing:
        """What is in audit."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What of the running process can be asked, and set."""

    settings: Callable[[], Iterable[details.Setting]] = tuple
    metrics: Callable[[], Iterable[details.MetricSample]] = tuple
    set_log_level: Callable[[str], str] = str
    """Takes the new level, returns the old one; raises InvalidInput."""


NO_PROCESS = Process()


def refusing(answer: Answering[Answer]) -> Answering[Answer]:
    """Have a method end its call with what it refuses."""

    @functools.wraps(answer)
    async def answered(self: Any, request: Any, context: Any) -> Any:
        try:
            return await answer(self, request, context)
        except (errors.InvalidInput, errors.NotFound) as error:
            await refusals.refuse(context, error)

    return answered


class Getters(pb_grpc.AgentServicer):
    """Answers about endpoints, identities, policies, addresses, Services and the process."""

    def __init__(self, *, node: Node, stream: stream.Stream, process: Process = NO_PROCESS) -> None:
        """`node` answers for the agent, `stream` has the verdicts."""
        self._node = node
        self._stream = stream
        self._process = process

    @refusing
    async def GetEndpoint(self, request: pb.GetEndpointRequest, _context: Any) -> pb.EndpointDetail:  # noqa: N802 - agent.proto
        """Describe a pod of this node."""
        now = self._enforced("pod", request.name)

        def answer() -> pb.EndpointDetail:
            found = naming.endpoint(now, request.name)
            recent = self._stream.stored(wanted=verdict.Filter(namespace=found.namespace, pod=found.pod))
            return mirror.message(endpoint_detail.detail(now, found, recent), pb.EndpointDetail)

        return await asyncio.to_thread(answer)

    @refusing
    async def GetIdentity(self, request: pb.GetIdentityRequest, _context: Any) -> pb.IdentityDetail:  # noqa: N802 - agent.proto
        """Describe an identity."""
        now = self._enforced("identity", request.id)

        def answer() -> pb.IdentityDetail:
            return mirror.message(identity_detail.detail(now, request.id), pb.IdentityDetail)

        return await asyncio.to_thread(answer)

    @refusing
    async def GetPolicy(self, request: pb.GetPolicyRequest, _context: Any) -> pb.PolicyDetail:  # noqa: N802 - agent.proto
        """Describe a policy."""
        now = self._enforced("policy", request.name)

        def answer() -> pb.PolicyDetail:
            return mirror.message(policy_detail.detail(now, naming.policy(now, request.name)), pb.PolicyDetail)

        return await asyncio.to_thread(answer)

    @refusing
    async def GetAddress(self, request: pb.GetAddressRequest, _context: Any) -> pb.AddressDetail:  # noqa: N802 - agent.proto
        """Describe an address."""
        address = naming.address(request.address)
        now = self._enforced("address", request.address)

        def answer() -> pb.AddressDetail:
            return mirror.message(address_detail.detail(now, address), pb.AddressDetail)

        return await asyncio.to_thread(answer)

    async def ListServices(self, _request: pb.ListServicesRequest, _context: Any) -> pb.ListServicesResponse:  # noqa: N802 - agent.proto
        """List the Services of the cluster."""
        now = self._node.enforcement

        def answer() -> pb.ListServicesResponse:
            found = service_detail.services(now) if now is not None else ()
            return pb.ListServicesResponse(services=[mirror.message(one, pb.Service) for one in found])

        return await asyncio.to_thread(answer)

    async def GetConfig(self, _request: pb.GetConfigRequest, _context: Any) -> pb.GetConfigResponse:  # noqa: N802 - agent.proto
        """Say what the agent was told at its start."""
        return pb.GetConfigResponse(settings=[mirror.message(one, pb.Setting) for one in self._process.settings()])

    @refusing
    async def SetLogLevel(self, request: pb.SetLogLevelRequest, _context: Any) -> pb.SetLogLevelResponse:  # noqa: N802 - agent.proto
        """Change how much is logged."""
        return pb.SetLogLevelResponse(before=self._process.set_log_level(request.level))

    async def GetMetrics(self, _request: pb.GetMetricsRequest, _context: Any) -> pb.GetMetricsResponse:  # noqa: N802 - agent.proto
        """Take the samples of a scrape."""
        return pb.GetMetricsResponse(samples=[mirror.message(one, pb.MetricSample) for one in self._process.metrics()])

    def _enforced(self, field: str, value: object) -> reconciler.Enforcement:
        now = self._node.enforcement
        if now is None:
            remedy = "nothing is enforced yet; `agentctl status` says what is waited for"
            raise errors.NotFound(field=field, value=value, remedy=remedy)
        return now
