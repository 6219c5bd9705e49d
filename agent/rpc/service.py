"""The service of agent.proto: each call asks one question and converts the answer.

Those about one thing, and about the process, are in `getters`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from google.protobuf import message as message_

from agent import errors, reconciler
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.observer import stream
from agent.rpc import audits, convert, describe, getters, kernel, mirror, names, refusals, snapshots

Message = TypeVar("Message", bound=message_.Message)
LEARNED_A_BATCH = 500


class AgentService(getters.Getters):
    """Before the first policy is enforced every list is empty."""

    def __init__(
        self,
        *,
        node: getters.Node,
        stream: stream.Stream,
        kernel: kernel.Kernel,
        process: getters.Process = getters.NO_PROCESS,
        names: names.Names = names.NO_NAMES,
    ) -> None:
        """Take who answers.

        `node` and `process` answer for the agent, `stream` has the verdicts, `kernel` reads what is loaded, `names`
        what DNS told.
        """
        super().__init__(node=node, stream=stream, process=process)
        self._kernel = kernel
        self._names = names

    async def GetStatus(self, _request: pb.GetStatusRequest, _context: Any) -> pb.Status:  # noqa: N802 - agent.proto
        """Say what runs, since when, and what is wrong."""
        return mirror.message(self._node.status(), pb.Status)

    async def ListEndpoints(  # noqa: N802 - agent.proto
        self, _request: pb.ListEndpointsRequest, _context: Any
    ) -> pb.ListEndpointsResponse:
        """List the pods of this node that policy is enforced on."""
        found = await asyncio.to_thread(self._described, describe.endpoints, pb.Endpoint)
        return pb.ListEndpointsResponse(endpoints=found)

    async def ListIdentities(  # noqa: N802 - agent.proto
        self, _request: pb.ListIdentitiesRequest, _context: Any
    ) -> pb.ListIdentitiesResponse:
        """List identities and the facts they stand for."""
        found = await asyncio.to_thread(self._described, describe.identities, pb.Identity)
        return pb.ListIdentitiesResponse(identities=found)

    async def ListPolicies(  # noqa: N802 - agent.proto
        self, _request: pb.ListPoliciesRequest, _context: Any
    ) -> pb.ListPoliciesResponse:
        """List policies, whom they select here, and their problems."""
        found = await asyncio.to_thread(self._described, describe.policies, pb.Policy)
        return pb.ListPoliciesResponse(policies=found)

    def _described(
        self,
        describing: Callable[[reconciler.Enforcement], Iterable[object]],
        kind: type[Message],
    ) -> list[Message]:
        """Work out a list, which in a large cluster takes long: in a thread of its own."""
        now = self._node.enforcement
        return [mirror.message(one, kind) for one in describing(now)] if now is not None else []

    async def WatchVerdicts(  # noqa: N802 - agent.proto
        self, request: pb.WatchVerdictsRequest, context: Any
    ) -> AsyncIterator[pb.WatchVerdictsResponse]:
        """Stream stored verdicts, then, if asked to follow, those to come."""
        try:
            wanted = convert.wanted(request)
        except errors.InvalidInput as error:
            await refusals.refuse(context, error)
        if not request.follow:
            stored = await asyncio.to_thread(self._stream.stored, request.last or None, wanted=wanted)
            for event in stored:
                yield convert.item_message(event)
            return
        with self._stream.subscribe(last=request.last, wanted=wanted) as subscription:
            async for item in subscription.items():
                yield convert.item_message(item)

    @getters.refusing
    async def SetAudit(self, request: pb.SetAuditRequest, _context: Any) -> pb.SetAuditResponse:  # noqa: N802 - agent.proto
        """Put a policy or a namespace into audit, or take it out."""
        change = await self._node.audit.change(audits.target_of(request), enable=request.enable)
        return mirror.message(change, pb.SetAuditResponse)

    async def ListAudit(self, _request: pb.ListAuditRequest, _context: Any) -> pb.ListAuditResponse:  # noqa: N802 - likewise
        """List what is in audit."""
        auditing = self._node.audit
        entries = [mirror.message(one, pb.AuditEntry) for one in auditing.entries()]
        return pb.ListAuditResponse(entries=entries, trouble=auditing.ledger.trouble)

    # What DNS told this node's pods.

    async def ListLearned(  # noqa: N802 - agent.proto
        self, request: pb.ListLearnedRequest, context: Any
    ) -> AsyncIterator[pb.ListLearnedResponse]:
        """Stream what pods were told."""
        async with refusals.told(context):
            now, told = self._enforced("pod", request.pod), await self._names.told()
            found = await asyncio.to_thread(names.addresses, now, told, request.pod)
            for begin in range(0, len(found), LEARNED_A_BATCH):
                batch = found[begin : begin + LEARNED_A_BATCH]
                yield pb.ListLearnedResponse(addresses=[mirror.message(one, pb.LearnedAddress) for one in batch])

    async def ListNames(  # noqa: N802 - agent.proto
        self, _request: pb.ListNamesRequest, context: Any
    ) -> pb.ListNamesResponse:
        """List the names of this node's policies."""
        async with refusals.told(context):
            now, told = self._node.enforcement, await self._names.told()
            found = await asyncio.to_thread(names.known_names, now, told) if now is not None else names.KnownNames()
            return mirror.message(found, pb.ListNamesResponse)

    async def ExplainName(  # noqa: N802 - agent.proto
        self, request: pb.ExplainNameRequest, context: Any
    ) -> pb.ExplainNameResponse:
        """Say what a name or an address means for a pod."""
        async with refusals.told(context):
            now, told = self._enforced("pod", request.pod), await self._names.told()
            found = await asyncio.to_thread(names.explain, now, told, request.pod, request.name)
            return mirror.message(found, pb.ExplainNameResponse)

    async def GetSnapshot(  # noqa: N802 - agent.proto
        self, _request: pb.GetSnapshotRequest, _context: Any
    ) -> pb.GetSnapshotResponse:
        """Show the cluster as it is enforced; writing down a large one takes a thread's time, not everybody's."""
        now = self._node.enforcement
        text = await asyncio.to_thread(snapshots.dump, now.snapshot) if now is not None else b""
        return pb.GetSnapshotResponse(json=text)

    # What the kernel holds, beside what was compiled.

    async def TraceFlow(  # noqa: N802 - agent.proto
        self, request: pb.TraceFlowRequest, context: Any
    ) -> pb.TraceFlowResponse:
        """Trace one flow by the policies, the compiled state and the kernel."""
        async with refusals.told(context):
            found = await self._kernel.trace(request.source, request.destination, request.port, request.asks)
            return mirror.message(found, pb.TraceFlowResponse)

    async def ListMaps(  # noqa: N802 - agent.proto
        self, _request: pb.ListMapsRequest, context: Any
    ) -> pb.ListMapsResponse:
        """List programs, maps, chains and sets."""
        async with refusals.told(context):
            return mirror.message(await self._kernel.tables(), pb.ListMapsResponse)

    async def DumpMap(  # noqa: N802 - agent.proto
        self, request: pb.DumpMapRequest, context: Any
    ) -> AsyncIterator[pb.DumpMapResponse]:
        """Stream the rows of one table."""
        async with refusals.told(context):
            batches = self._kernel.rows(
                request.table, endpoint=request.endpoint, policy_set=request.policy_set, limit=request.limit
            )
            async for batch, more in batches:
                yield pb.DumpMapResponse(rows=[mirror.message(one, pb.KernelRow) for one in batch], more=more)
