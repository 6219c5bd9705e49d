"""Which state a logged packet was judged under: its prefix tells a generation of this engine.

The problem: the log is read up to a tenth of a second later, when the next states may be in force already, and the
generations of this engine are not those the reconciler reports where it is one layer of two. The rule: the engine says
which state it is about to write as which generation, which one is in force, and who reports it says as what. Looked up
modulo `prefix.GENERATIONS`, for a prefix carries no more.
"""

from __future__ import annotations

import dataclasses

from agent import desired as desired_
from agent.datapath import lookups
from agent.datapath.iptables import prefix as prefix_

KEPT = 8
"""Generations remembered; a restore takes so long that the last 8 cover what waits in the socket."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is remembered at one moment; replaced, never changed."""

    states: dict[int, lookups.InState]
    """By generation modulo `prefix.GENERATIONS`, oldest first."""
    whole: dict[int, int]
    """Generations as they were staged, by what prefixes carry of them."""
    reported: dict[int, int]
    """As the reconciler knows them, likewise by generation."""
    in_force: int | None = None
    """The last generation that is known to be; modulo `prefix.GENERATIONS`."""
    newest_reported: int | None = None

    def at(self, generation: int) -> lookups.InState | None:
        """Return the state of a generation; None: not remembered."""
        return self.states.get(generation % prefix_.GENERATIONS)

    def near(self, generation: int) -> lookups.InState | None:
        """Return the newest state for a generation after it, else the oldest; None: none is remembered."""
        if not self.states:
            return None
        newest = next(reversed(self.states))
        after = (generation - newest) % prefix_.GENERATIONS < prefix_.GENERATIONS // 2
        return self.states[newest] if after else next(iter(self.states.values()))

    @property
    def latest(self) -> int | None:
        """The generation in force, else the newest; modulo `prefix.GENERATIONS`, None: none is remembered."""
        return self.in_force if self.in_force in self.states else next(reversed(self.states), None)

    def number(self, generation: int) -> int:
        """Return what to report; a generation that is not enforced yet comes after all that were reported."""
        found = self.reported.get(generation % prefix_.GENERATIONS)
        if found is not None:
            return found
        if self.newest_reported is not None:
            return self.newest_reported + 1
        return self.whole.get(generation % prefix_.GENERATIONS, generation)


class Moments:
    """The last KEPT generations of this engine; the applying thread writes, any thread reads `known`."""

    def __init__(
        self, learned: lookups.Ask = lookups.nothing_learned, reads: lookups.Reads = lookups.every_veth
    ) -> None:
        """Begin with none; `learned` and `reads` are asked for what no state says."""
        self._learned, self._reads = learned, reads
        self.known = Known(states={}, whole={}, reported={})

    def staged(self, generation: int, state: desired_.DesiredState) -> None:
        """Say that prefixes with `generation` (modulo `prefix.GENERATIONS`) are of `state`, before the kernel has it.

        One number must never stand for two states that were in force, not even for one family: after a restore that
        succeeded for one family alone, the next try takes a new number. Cheap: nothing is computed before it is asked.
        """
        number = generation % prefix_.GENERATIONS
        known = self.known
        states = {old: found for old, found in known.states.items() if old != number}
        # The last one that is known to be in force stays, however many tries to replace it fail.
        while len(states) >= KEPT:
            states.pop(next(old for old in states if old != known.in_force))
        states[number] = lookups.InState(state, self._learned, self._reads)
        self.known = dataclasses.replace(
            known,
            states=states,
            whole={old: found for old, found in known.whole.items() if old in states} | {number: generation},
            reported={old: found for old, found in known.reported.items() if old in states},
        )

    def enforced(self, generation: int) -> None:
        """Say that the state of `generation` is in force, whatever number it will be known by."""
        self.known = dataclasses.replace(self.known, in_force=generation % prefix_.GENERATIONS)

    def tell(self, generation: int, reported: int) -> None:
        """Say that the reconciler knows `generation` as `reported`, which is in force then.

        An engine that stands alone need not: verdicts carry its own number until it is told another.
        """
        number = generation % prefix_.GENERATIONS
        self.known = dataclasses.replace(
            self.known,
            reported={**self.known.reported, number: reported},
            in_force=number,
            newest_reported=reported,
        )
