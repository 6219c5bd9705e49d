"""What the agents of a lab have told since a moment, as everybody gets it: joined, and under the rate limit.

The problem: the tables of one lab follow each other within tenths of a second, and what iptables logs has no time but
that of its reading, so a verdict of the step before may seem to be of this one. The rule: a verdict counts if it is of
the generation that each agent enforced when the moment was taken, or of a later one, and not older than it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from typing import Protocol

from agent import patience
from agent.model import verdict
from agent.rpc import views
from tests.system import attribution

TOLD_S = 0.6
"""How late a verdict may be: what iptables logs is read some 50 ms later, on a busy machine more."""
LOOK_S = 0.02
TRIES = 3
"""A verdict may be lost or kept back (`--verdict-rate`), and that is counted; so who was told nothing asks again. It
hides nothing: what is never told is not told then either."""
SPARE = 8
"""Verdicts asked for beside those that are owed; twice as many as long as the oldest of them is still new."""
GENERATIONS = 1 << 32
"""They wrap."""


HELD = verdict.Reason.ENDPOINT_HELD
"""Told of a pod whose rows were not in yet when it was asked: no table is about that, and it is asked again."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """From when on verdicts count."""

    since_ns: int
    """Unix time."""
    generations: Mapping[str, int]
    """By node."""

    def admits(self, node: str, event: verdict.VerdictEvent) -> bool:
        """Tell whether a verdict counts."""
        later = (event.generation - self.generations[node]) % GENERATIONS < GENERATIONS // 2
        return later and event.time_ns >= self.since_ns


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What came of a comparison."""

    found: attribution.Comparison
    repeated: int
    """Connections that were made once more."""


class Agent(Protocol):
    """Of an agent's client, what is asked here."""

    def status(self) -> views.Status:
        """Say what is enforced."""

    def watch_verdicts(self, *, follow: bool, last: int, wanted: verdict.Filter) -> Generator[verdict.Item, None, None]:
        """Yield stored verdicts."""

    def close(self) -> None:
        """Close the connection."""


class Telling:
    """Asks the agents of a lab, by node, over connections that are kept open; whoever made it closes it."""

    def __init__(self, agents: Mapping[str, Agent]) -> None:
        """Ask nobody yet."""
        self._agents = agents

    def close(self) -> None:
        """Close all connections."""
        for agent in self._agents.values():
            agent.close()

    def moment(self) -> Moment:
        """Return the present moment; every agent has to enforce what is to be judged by."""
        generations = {node: agent.status().generation for node, agent in self._agents.items()}
        return Moment(since_ns=time.time_ns(), generations=generations)

    def compared(
        self,
        asked: Sequence[attribution.Asked],
        moment: Moment,
        kinds: Collection[verdict.Verdict],
        ask_again: Callable[[Sequence[attribution.Asked]], None],
    ) -> Settled:
        """Wait until something was told of everybody who asked, or it is too late; `ask_again` repeats connections."""
        repeated = 0
        for left in reversed(range(TRIES)):
            found = self._waited(asked, moment, kinds)
            if found.wrong or not found.silent or not left:
                break
            repeated += len(found.silent)
            ask_again(found.silent)
        return Settled(found=found, repeated=repeated)

    def _waited(
        self, asked: Sequence[attribution.Asked], moment: Moment, kinds: Collection[verdict.Verdict]
    ) -> attribution.Comparison:
        if not asked:
            return attribution.compare((), ())
        owed = sum(bool(one.choices) for one in asked)
        deadline = time.monotonic() + patience.seconds(TOLD_S)
        while True:
            late = time.monotonic() > deadline
            told = (self._told(node, moment, kind, owed + SPARE) for node in self._agents for kind in kinds)
            found = attribution.compare(asked, itertools.chain.from_iterable(told))
            if found.wrong or not found.silent or late:
                return found
            time.sleep(patience.seconds(LOOK_S))

    def _told(self, node: str, moment: Moment, kind: verdict.Verdict, count: int) -> Iterator[verdict.VerdictEvent]:
        while True:
            with contextlib.closing(
                self._agents[node].watch_verdicts(follow=False, last=count, wanted=verdict.Filter(verdict=kind))
            ) as items:
                events = [item for item in items if isinstance(item, verdict.VerdictEvent)]
            if len(events) < count or events[0].time_ns < moment.since_ns:
                return (event for event in events if moment.admits(node, event) and event.reason is not HELD)
            count *= 2
