"""The last things the agent did, and those to come, for observer.Observer/GetAgentEvents.

They are found by looking once a second at what is enforced: a policy is told of so much later, and the loop that
enforces has nobody more to call.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc

from agent import clock as clock_
from agent import errors, reconciler
from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.hubble import filters, happenings, requests

STORED = 1024
LOOK_S = 1.0


class Node(Protocol):
    """Whom to look at."""

    @property
    def enforcement(self) -> reconciler.Enforcement | None:
        """What is enforced; None before the first policy is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One event."""

    serial: int
    time_ns: int
    response: bytes


class AgentEvents:
    """Used in one event loop."""

    def __init__(self, node: Node, *, name: str, clock: clock_.Clock) -> None:
        """Begin with the start of the agent called `name`, which is now."""
        self._node = node
        self._name = name
        self._clock = clock
        self._entries: collections.deque[Entry] = collections.deque(maxlen=STORED)
        self._end = 0
        self._news = asyncio.Condition()
        self._seen: reconciler.Enforcement | None = None
        self._add(happenings.started(clock.unix_ns()), clock.unix_ns())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Note what happened since the last look."""
        now = self._node.enforcement
        if now is None or now is self._seen:
            return
        for event in happenings.between(self._seen, now):
            self._add(event, now.unix_ns)
        self._seen = now
        async with self._news:
            self._news.notify_all()

    async def get(self, request: pb.GetAgentEventsRequest, context: Any) -> AsyncIterator[bytes]:
        """Stream stored events, then, if asked to follow, those to come."""
        try:
            filters.refuse_unknown(request)
            window = requests.window(request)
        except errors.InvalidInput as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return
        stored = () if window.only_new else tuple(one for one in self._entries if window.admits(one.time_ns))
        end = self._end
        if window.number is not None:
            stored = stored[: window.number] if window.first else stored[-window.number :]
        for entry in stored:
            yield entry.response
        while window.follow:
            async with self._news:
                await self._news.wait_for(lambda: self._end > end)  # noqa: B023 - asked again with the present end
            new = tuple(itertools.dropwhile(lambda entry: entry.serial < end, self._entries))  # noqa: B023 - likewise
            end = self._end
            for entry in new:
                if window.passed(entry.time_ns):
                    return
                yield entry.response

    def _add(self, event: flow_pb2.AgentEvent, time_ns: int) -> None:
        message = pb.GetAgentEventsResponse(agent_event=event, node_name=self._name)
        message.time.FromNanoseconds(time_ns)
        self._entries.append(Entry(self._end, time_ns, message.SerializeToString()))
        self._end += 1
