"""Remembers what DNS told this node's pods, so that a policy by name finds it, and people do.

The rules: history belongs to the event loop, which takes the thread's batches; whoever works elsewhere is given values.
Before a policy goes live whose names nobody has learned for, everything that was answered until the kernel began to
learn for them is waited for, and what comes of it is learned by the kernel's own program (`replayed`): an answer is
either in there, or came when the kernel knew the name (requirement F26).

Every ten seconds what expired long ago is forgotten, unless a connection may need its name (F17); what is learned in
the kernel stays, see `datapath.bpf.learner`. A second after a change it is written down (`stored`), so that an agent
that is killed loses no more than that, and of the kernel's learning nothing (F25).
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Collection, Sequence

from agent import clock as clock_
from agent import errors, logs, patience
from agent.datapath import base
from agent.fqdn import classes as classes_
from agent.fqdn import history as history_
from agent.learning import feed as feed_
from agent.learning import stored
from agent.model import fqdn, net

SWEEP_S = 10.0
SAVE_S = 1.0
SAVE_REST = 20.0
"""Writing down rests at least so many times as long as it took."""
CATCH_UP_S = 2.0
"""Longest that a policy waits for answers that have been given already."""
ANSWERS_S = 0.05
"""Longest that verdicts wait for answers that have been given already."""
FILE = "answers.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What there is, and what was lost of it."""

    names: int = 0
    addresses: int = 0
    """Of names: one that two names have counts twice."""
    learned: int = 0
    """Addresses in the kernel that have not expired, as last swept."""
    expired: int = 0
    """Those that have, and whose place is not taken yet."""
    names_forgotten: int = 0
    """Before their time, for the bound of names an endpoint."""
    addresses_forgotten: int = 0
    read: int = 0
    """Answers."""
    replayed: int = 0
    """Addresses learned from history."""
    late: int = 0
    """Policies that did not wait for all answers: it took too long."""


class Memory:
    """History of one node's pods; on the event loop alone, but for what verdicts ask in other threads."""

    def __init__(
        self,
        *,
        feed: feed_.Feed,
        known: Callable[[], fqdn.Known],
        lifetimes: history_.Lifetimes,
        file: pathlib.Path,
        clock: clock_.Clock,
        refused: Callable[[Sequence[base.Answer]], None] = lambda _: None,
    ) -> None:
        """Begin with what `file` has; `known` reads what the kernel has learned, in any thread.

        `refused` is given what filters of names did not admit, on the event loop.
        """
        self._refused = refused
        self._feed = feed
        self._known = known
        self._file = file
        self._clock = clock
        self._log = logs.logger("names")
        self._boot = stored.boot()
        self._history = history_.History(lifetimes)
        self._until = feed.consumed
        self._progressed = asyncio.Event()
        self._told = threading.Condition()
        """Guards what `_until` is for threads that wait."""
        self._changed = False
        self._learned = self._expired = self._replayed = self._late = 0
        try:
            self._history.restore(stored.read(file, boot=self._boot))
        except errors.InvalidAnswer as error:
            self._log.warning("not remembered over the restart; names have to be resolved again", reason=str(error))

    def take(self, batch: feed_.Batch) -> None:
        """Remember what a batch tells."""
        for answered in batch.answered:
            self._history.learn(answered)
        self._changed = self._changed or bool(batch.answered)
        if batch.refused:
            self._refused(batch.refused)
        with self._told:
            self._until = batch.until
            self._told.notify_all()
        self._progressed.set()

    def keep_only(self, endpoints: Collection[int]) -> None:
        """Forget pods that are gone."""
        self._history.keep_only(endpoints)

    def names(self, endpoint: int, address: net.Address, monotonic_ns: int) -> tuple[str, ...]:
        """Return by which names a pod had been given an address at a moment, the last first, expired or not.

        Any thread may ask; what a verdict is named after it shall not change with what is answered later.
        """
        if not self._history.has(endpoint):
            return ()
        suspended_ns = self._clock.boot_ns() - self._clock.monotonic_ns()
        return self._history.names(endpoint, address, until_ns=monotonic_ns + suspended_ns)

    def wait_for_answers(self) -> None:
        """Return once what is in the ring now is remembered, ANSWERS_S from now at most; not on the event loop."""
        target = self._feed.written
        if self._until < target:
            self._feed.wake()
            with self._told:
                self._told.wait_for(lambda: self._until >= target, ANSWERS_S)

    def remembered(self) -> tuple[fqdn.Remembered, ...]:
        """Return everything."""
        return tuple(self._history.remembered())

    def counted(self) -> Counted:
        """Count."""
        names, addresses = self._history.size()
        return Counted(
            names=names,
            addresses=addresses,
            learned=self._learned,
            expired=self._expired,
            names_forgotten=self._history.names_evicted,
            addresses_forgotten=self._history.addresses_evicted,
            read=self._feed.read,
            replayed=self._replayed,
            late=self._late,
        )

    async def replayed(self, classes: classes_.Classes, new: frozenset[int]) -> fqdn.LearnedAddresses:
        """Return what pods were told of the names of the classes `new`, and what connections still need of them.

        The kernel learns for them already.
        """
        if not await self.caught_up():
            self._late += 1
            self._log.warning("a policy did not wait for all DNS answers; a name may have to be resolved again")
        remembered, now_ns = self.remembered(), self._clock.boot_ns()
        if not remembered:
            return {}

        def work() -> fqdn.LearnedAddresses:
            return history_.replay(remembered, classes, now_ns=now_ns, new=new, used=self._used())

        found = await asyncio.to_thread(work)
        self._replayed += len(found)
        return found

    def _used(self) -> frozenset[fqdn.Place]:
        """Return what connections need; that it cannot be read keeps no policy from counting."""
        try:
            return self._known().used
        except errors.DatapathError as error:
            self._log.warning("connections by names that another class has now may end", reason=str(error))
            return frozenset()

    async def run(self) -> None:
        """Take batches, sweep and write down until cancelled; what is left then is written down, too."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed.run(self.take), name="reading answers")
                group.create_task(self._sweep(), name="sweeping names")
                group.create_task(self._save(), name="writing down names")
        finally:
            self._feed.close()
            if self._changed:
                self._write(self.remembered())

    async def caught_up(self) -> bool:
        """Return when all that is in the ring now is remembered; False: it took too long."""
        target = self._feed.written
        self._feed.wake()
        try:
            async with asyncio.timeout(patience.seconds(CATCH_UP_S)):
                while self._until < target:
                    self._progressed.clear()
                    await self._progressed.wait()
        except TimeoutError:
            return False
        return True

    async def _sweep(self) -> None:
        while True:
            try:
                known = await asyncio.to_thread(self._known)
            except errors.DatapathError as error:
                self._log.warning("not swept", reason=str(error))
            else:
                now_ns = self._clock.boot_ns()
                live = sum(any(one.expires_ns > now_ns for one in several) for several in known.addresses.values())
                self._learned, self._expired = live, len(known.addresses) - live
                self._history.sweep(now_ns, known.used)
            await asyncio.sleep(SWEEP_S)

    async def _save(self) -> None:
        took_s = 0.0
        while True:
            await asyncio.sleep(max(SAVE_S, SAVE_REST * took_s))
            if self._changed:
                self._changed = False
                begun_ns = self._clock.monotonic_ns()
                await asyncio.to_thread(self._write, self.remembered())
                took_s = (self._clock.monotonic_ns() - begun_ns) / 1e9

    def _write(self, remembered: tuple[fqdn.Remembered, ...]) -> None:
        try:
            stored.write(self._file, remembered, boot=self._boot)
        except OSError as error:
            self._log.warning("not written down for the next start", reason=str(error))
