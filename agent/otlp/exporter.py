"""Two tasks: one takes flows from the ring to the outbox, one from the outbox to the collector.

The first never waits for the second: a slow or dead collector fills the outbox, and from then on flows are counted and
no longer made into records. The second has one request under way, repeats it with growing waits as long as the
collector may yet take it, and drops it where it may not. Each flow that was wanted is in the end exported, dropped, or
waiting; what was dropped is told to the collector as a record, with the next request that it takes.
"""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from typing import Protocol

from agent import clock as clock_
from agent import logs
from agent.hubble import ring as ring_
from agent.metrics import picture
from agent.model import collector as collector_
from agent.otlp import flowlog, losses, outbox, retrying, transport, wire
from agent.sources.kubernetes import backoff

FLUSH_S = 2.0
"""What is still waiting when the agent ends gets so long; enforcement needs none of it."""
TELL_NS = 60_000_000_000
"""A refusal is logged once in so long."""
OUTCOMES = ("ok", "again", "refused")


class Sender(Protocol):
    """`transport.Transport`."""

    async def export(self, request: bytes, *, timeout_s: float) -> wire.Answer | transport.Failed:
        """Send, and return the answer."""

    async def close(self) -> None:
        """Close the connection."""


class Exporter:
    """One agent's; made, and run, in one event loop."""

    def __init__(
        self,
        collector: collector_.Collector,
        *,
        node: str,
        version: str,
        sender: Sender,
        clock: clock_.Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`chance`, in 0..1, spreads the waits of many agents."""
        self._collector = collector
        self._sender = sender
        self._clock = clock
        self._chance = chance
        own = {"k8s.node.name": node, "service.version": version}
        self._requests = wire.Requests({**collector.resource, **own}, version=version)
        self._writer = wire.Writer()
        self._outbox = outbox.Outbox()
        self._sending: outbox.Batch | None = None
        self._log = logs.logger("otlp")
        self._failures = 0
        """Requests in a row that were not taken."""
        self._failing = ""
        """Why the last request was not taken; "" where it was."""
        self._said = ""
        """What the log has last said about that."""
        self._warned = False
        """Whether it has yet to say that all is well again."""
        self._told_ns = -TELL_NS
        self._exported = 0
        self._dropped: collections.Counter[losses.Why] = collections.Counter()
        self._outcomes: collections.Counter[str] = collections.Counter()

    def counted(self) -> picture.Exports:
        """Return what happened so far, and what waits."""
        under_way = len(self._sending.records) if self._sending is not None else 0
        return picture.Exports(
            exported=self._exported,
            dropped={why.value: self._dropped[why] for why in losses.DROPPED},
            waiting=len(self._outbox) + under_way,
            requests={outcome: self._outcomes[outcome] for outcome in OUTCOMES},
        )

    async def read(self, ring: ring_.Ring) -> None:
        """Take flows until cancelled; then those that are there already."""
        with ring.reading(ring.start) as reader:
            try:
                while True:
                    await (asyncio.sleep(0) if self._gather(reader) else reader.wait())
            finally:
                end = ring.end
                while self._gather(reader, stop=end):
                    pass

    async def send(self) -> None:
        """Send until cancelled; then, for FLUSH_S at most, what waits. Never raises for what the collector does."""
        try:
            while True:
                await self._outbox.worth_sending()
                self._sending = self._outbox.take()
                while self._sending is not None:
                    wait_s = await self._attempt(self._sending)
                    await asyncio.sleep(wait_s)
        finally:
            await self._flush()
            await self._sender.close()

    def _gather(self, reader: ring_.Reader, *, stop: int | None = None) -> bool:
        """Take what one reading gives; tell whether that was anything."""
        places = reader.read(stop=stop)
        if (gap := reader.due()) is not None:
            self._lose(losses.of_reader(gap.lost, first_ns=gap.first_ns, last_ns=gap.last_ns))
        unmade = 0
        for batch, serial in self._wanted(places):
            if self._outbox.full:
                unmade += 1
                continue
            self._outbox.put(self._writer.flow(batch.record(serial), observed_ns=self._clock.unix_ns()))
        self._lose_now(losses.Why.FULL, unmade)
        return bool(places)

    def _wanted(self, places: Sequence[ring_.Place]) -> Sequence[ring_.Place]:
        """Return what is to be sent; gives none of it names."""
        if self._collector.flows is collector_.Flows.ALL:
            return places
        return [(batch, serial) for batch, serial in places if serial in batch.of(flowlog.DENIED)]

    async def _attempt(self, batch: outbox.Batch) -> float:
        """Send it; return the seconds to wait before anything is sent again.

        One who refuses everything is not asked as fast as flows come, though nothing is repeated then.
        """
        answer = await self._sender.export(self._request(batch), timeout_s=self._collector.timeout_ms / 1000)
        if isinstance(answer, wire.Answer):
            self._taken(batch, answer)
            return 0.0
        self._failures += 1
        self._note(answer)
        if retrying.again(answer.code, answer.asked_s):
            self._outcomes["again"] += 1
        else:
            self._refused(batch)
        return backoff.delay_s(self._failures, chance=self._chance(), asked_s=answer.asked_s or 0.0)

    def _request(self, batch: outbox.Batch) -> bytes:
        now = self._clock.unix_ns()
        lost = (wire.record(flowlog.of_loss(loss), observed_ns=now) for loss in batch.lost.values())
        return self._requests.of((*lost, *batch.records))

    def _refused(self, batch: outbox.Batch) -> None:
        self._sending = None
        self._outcomes["refused"] += 1
        self._outbox.lose(*batch.lost.values())
        self._lose_now(losses.Why.REFUSED, len(batch.records))

    def _taken(self, batch: outbox.Batch, answer: wire.Answer) -> None:
        """Count; what was rejected of a request is not sent again, as the specification says."""
        self._sending = None
        rejected = min(answer.rejected, len(batch.records))
        self._outcomes["ok"] += 1
        self._exported += len(batch.records) - rejected
        self._lose_now(losses.Why.REFUSED, rejected)
        if answer.rejected or answer.message:
            self._warn("the collector took a request in part", rejected=answer.rejected, reason=answer.message)
        if self._warned:
            self._log.info("the collector takes flow logs again", dropped=sum(self.counted().dropped.values()))
        self._failures, self._failing, self._warned = 0, "", False

    def _note(self, failed: transport.Failed) -> None:
        """Log that the collector does not take what is sent, once until it does, or until it is for another reason."""
        changed, self._failing = failed.code != self._failing, failed.code
        if failed.code != self._said:
            self._told_ns = -TELL_NS
        reason = f"{failed.code}: {failed.message}"
        if changed and self._warn("the collector does not take flow logs", reason=reason):
            self._said, self._warned = failed.code, True

    def _warn(self, event: str, **fields: object) -> bool:
        """Log it, unless something like it was logged in the last minute; tell whether it was."""
        now = self._clock.monotonic_ns()
        if now - self._told_ns < TELL_NS:
            return False
        self._told_ns = now
        self._log.warning(event, collector=self._collector.url, **fields)
        return True

    def _lose_now(self, why: losses.Why, count: int) -> None:
        if count:
            now = self._clock.unix_ns()
            self._lose(losses.Loss(why=why, count=count, first_ns=now, last_ns=now))

    def _lose(self, loss: losses.Loss) -> None:
        self._dropped[loss.why] += loss.count
        self._outbox.lose(loss)

    async def _flush(self) -> None:
        """Send what waits until the collector does not take it, for FLUSH_S at most; count the rest.

        By gRPC's deadlines: before Python 3.11.4 asyncio.timeout does not work in a task that is being cancelled.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + FLUSH_S
        while (left_s := until_s - loop.time()) > 0 and (batch := self._sending or self._outbox.take()) is not None:
            self._sending = batch
            timeout_s = min(left_s, self._collector.timeout_ms / 1000)
            answer = await self._sender.export(self._request(batch), timeout_s=timeout_s)
            if not isinstance(answer, wire.Answer):
                self._note(answer)
                break
            self._taken(batch, answer)
        if left := self.counted().waiting:
            self._dropped[losses.Why.ENDED] += left
            self._sending = None
            self._outbox.clear()
            self._log.warning("flow logs that the collector did not take in time", count=left)
