"""Tells the authors of policies what of them is not honoured, where the cluster has a place for that: Events.

`notices` decides what this node tells and when, a sender sends it. A server that does not answer costs a thread that
waits, and nothing else: enforcement knows nothing of this.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import Mapping

from agent import clock as clock_
from agent import logs, reconciler
from agent.sources.kubernetes import connection, events, notices

LOOK_MOST_S = 60.0


class Teller:
    """Follows what is enforced and sends what is due, one at a time."""

    def __init__(self, *, node: str, loop: reconciler.Reconciler, sender: events.Sender, clock: clock_.Clock) -> None:
        """`sender` is used by one thread at a time."""
        self._loop = loop
        self._sender = sender
        self._clock = clock
        self._notices = notices.Notices(node=node, now_s=self._now_s())
        self._log = logs.logger("events")
        self._error = ""
        self.outcomes: collections.Counter[str] = collections.Counter()
        """Events by what became of them: created, repeated, failed."""

    @property
    def waiting(self) -> int:
        """How many problems this node has to tell of and has not."""
        return self._notices.waiting

    async def run(self) -> None:
        """Tell until cancelled; never raises for what the server does."""
        revision, wait_s = 0, None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._loop.reached(revision)
            enforcement = self._loop.enforcement
            if enforcement is None:
                continue
            if enforcement.inputs.revision >= revision:
                revision = enforcement.inputs.revision + 1
                self._see(enforcement)
            wait_s = await self._tell()

    def _see(self, enforcement: reconciler.Enforcement) -> None:
        snapshot = enforcement.snapshot
        uids = {ref: policy.uid for ref, policy in snapshot.policies.items()} if enforcement.problems else {}
        self._notices.see(enforcement.problems, nodes=tuple(snapshot.nodes), uids=uids)

    async def _tell(self) -> float:
        """Send one Event if one is due; return in how many seconds to look again."""
        notice, wait_s = self._notices.due(self._now_s())
        if notice is None:
            return min(wait_s, LOOK_MOST_S)
        try:
            count = await _in_thread(self._sender, notice)
        except connection.Failed as error:
            self.outcomes["failed"] += 1
            self._notices.failed(notice, self._now_s())
            if str(error) != self._error:
                self._log.warning("event not sent", object=str(notice.policy), error=str(error))
            self._error = str(error)
        else:
            self.outcomes["repeated" if count > 1 else "created"] += 1
            self._notices.sent(notice, self._now_s(), count=count)
            self._error = ""
        return 0.0

    def counted(self) -> Mapping[str, int]:
        """Return the outcomes, also those that did not happen yet."""
        return {name: self.outcomes[name] for name in ("created", "repeated", "failed")}

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


async def _in_thread(sender: events.Sender, notice: notices.Notice) -> int:
    """Send in a daemon thread: asyncio's own would be waited for when the agent ends."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[int] = loop.create_future()

    def settle(count: int | None, error: Exception | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(count or 0)

    def send() -> None:
        count, failure = None, None
        try:
            count = sender.send(notice)
        except Exception as error:  # noqa: BLE001 - it belongs to who waits
            failure = error if isinstance(error, connection.Failed) else connection.Failed(repr(error))
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and nobody waits
            loop.call_soon_threadsafe(settle, count, failure)

    threading.Thread(target=send, name="events", daemon=True).start()
    return await result
