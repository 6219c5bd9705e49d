"""Runs rounds by number, each within a bounded time, and tells how far it is."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import pathlib
import random
import time
from collections.abc import Awaitable, Callable

from tests.fuzz import asking, printing
from tests.hubble import serving

ROUND_MOST_S = 1.0
"""CPU time that no round may take."""
WIRE_EVERY = 500
"""Of the rounds that ask, one in so many goes over a socket, too."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a campaign did."""

    rounds: collections.Counter[str]
    seconds: float
    cpu_s: float
    slowest_s: float
    """CPU time of the slowest round."""
    slowest: int
    """Its number."""


class FoundError(AssertionError):
    """A round found something; says which one."""

    def __init__(self, number: int, part: str) -> None:
        """Name the round."""
        super().__init__(f"round {number} ({part}); repeat it with: python -m tests.fuzz --first {number} --rounds 1")
        self.number = number


def run(
    socket: pathlib.Path, *, first: int, rounds: int, tell: Callable[[int, float], None] = lambda _done, _rate: None
) -> Outcome:
    """Run rounds `first` and up; raises FoundError, from what was found, at the first that finds something."""

    async def all_of_it() -> Outcome:
        async with serving.World(socket).open() as world:
            world.verdicts.publish([record.event for record in printing.Printed().records])
            return await _run(world, range(first, first + rounds), tell)

    return asyncio.run(all_of_it())


async def _run(world: serving.World, numbers: range, tell: Callable[[int, float], None]) -> Outcome:
    asked, printed = asking.Asked(), printing.Printed()
    parts: tuple[tuple[int, str, Callable[[random.Random], Awaitable[None] | None]], ...] = (
        (380, "GetFlows", asked.flows),
        (80, "other calls of Hubble", asked.others),
        (100, "agent.proto", asked.own),
        (140, "selectors, globs, masks", printed.text),
        (90, "verdicts printed", printed.line),
        (100, "cells and errors", printed.cell),
        (50, "problems", printed.problem),
        (40, "recordings", printed.recording),
        (8, "tables", printed.table),
        (8, "graph in lines", printed.picture),
        (4, "graph drawn", printed.drawing),
    )
    marks = list(itertools.accumulate(share for share, _, _ in parts))
    count: collections.Counter[str] = collections.Counter()
    choose = random.Random()
    slowest_s, slowest, began, began_cpu = 0.0, numbers.start, time.perf_counter(), time.process_time()
    for number in numbers:
        choose.seed(number)
        drawn = choose.randrange(marks[-1])
        _, name, part = parts[next(place for place, mark in enumerate(marks) if drawn < mark)]
        before = time.process_time()
        try:
            if (more := part(choose)) is not None:
                await more
            if number % WIRE_EVERY == 0:
                name = "GetFlows over a socket"
                await asking.over_the_wire(choose, world)
        except Exception as error:
            raise FoundError(number, name) from error
        took = time.process_time() - before
        if took > slowest_s:
            slowest_s, slowest = took, number
        assert took < ROUND_MOST_S, f"round {number} ({name}) took {took:.1f} s"
        count[name] += 1
        if number % 1000 == 0:
            tell(number + 1 - numbers.start, (number + 1 - numbers.start) / (time.perf_counter() - began))
            await asyncio.sleep(0)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    return Outcome(rounds=count, seconds=seconds, cpu_s=cpu_s, slowest_s=slowest_s, slowest=slowest)
