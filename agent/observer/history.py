"""Which state a verdict was given under: the kernel tells a generation, and names belong to that generation.

The reconciler stages a state before it is applied, so that an event of a generation nobody has confirmed yet finds it.
The last KEPT generations are remembered; an older event is named by the oldest of them. Rules and policy sets carry
digests of their content as numbers, so one that the generation's state lacks is looked for in the others.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping

from agent import desired as desired_
from agent import snapshot as snapshot_
from agent.datapath import lookups
from agent.model import net, verdict
from agent.observer import dialled, names

KEPT = 8


class Moment:
    """One state and the snapshot it came from."""

    def __init__(self, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """Keep both; names are indexed when first asked for."""
        self.state = state
        self.snapshot = snapshot

    @functools.cached_property
    def names(self) -> Mapping[net.Address, names.Name]:
        """Names by address."""
        return names.index(self.state, self.snapshot)

    @functools.cached_property
    def services(self) -> dialled.Services:
        """Services by where they listen."""
        return dialled.Services(self.state, self.snapshot)

    @functools.cached_property
    def lookups(self) -> lookups.InState:
        """What a judgement looks up."""
        return lookups.InState(self.state)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The generations remembered at one moment; never changes, so that verdicts can be named later."""

    moments: dict[int, Moment]
    """By generation, oldest first."""
    staged: Moment | None
    empty: Moment
    version: int
    """Counts the states enforced; tells how old this is."""

    def at(self, generation: int) -> Moment:
        """Return the state of `generation`; for an unknown one the staged, the newest or the oldest, as it must be."""
        moments, staged = self.moments, self.staged
        if generation in moments:
            return moments[generation]
        if not moments:
            return staged or self.empty
        newest = next(reversed(moments))
        # Serial arithmetic: the kernel's generation is a u32 that may wrap.
        if (generation - newest) % 2**32 < 2**31:
            return staged or moments[newest]
        return next(iter(moments.values()))

    @property
    def newest(self) -> tuple[int, Moment]:
        """Return the state that counts now and its generation; 0: none does yet."""
        return next(reversed(self.moments.items()), (0, self.empty))

    def rule(self, number: int, moment: Moment) -> verdict.RuleRef | None:
        """Return the rule with this number in `moment`, else in any state remembered."""
        for one in self._from(moment):
            if number in one.state.rules:
                return one.state.rules[number]
        return None

    def policy_set(self, number: int, moment: Moment) -> desired_.PolicySet | None:
        """Return the policy set with this number in `moment`, else in any state remembered."""
        for one in self._from(moment):
            if number in one.state.sets:
                return one.state.sets[number]
        return None

    def _from(self, moment: Moment) -> Iterator[Moment]:
        yield moment
        if self.staged is not None:
            yield self.staged
        yield from reversed(self.moments.values())


class History:
    """Written by the reconciler's thread alone; any thread may take `past`, which is replaced and never changed."""

    def __init__(self) -> None:
        """Begin with nothing: events before the first state have addresses and no names."""
        empty = Moment(desired_.DesiredState(), snapshot_.Snapshot())
        self.past = Past(moments={}, staged=None, empty=empty, version=0)
        """What is remembered now."""

    def staged(self, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """Remember what is about to be applied."""
        self.past = dataclasses.replace(self.past, staged=Moment(state, snapshot))

    def enforced(self, generation: int, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """Give the staged state its generation; forget the oldest."""
        past = self.past
        moment = past.staged
        if moment is None or moment.state is not state:
            moment = Moment(state, snapshot)
        kept = {number: old for number, old in past.moments.items() if number != generation}
        while len(kept) >= KEPT:
            kept.pop(next(iter(kept)))
        self.past = dataclasses.replace(
            past, moments={**kept, generation: moment}, staged=None, version=past.version + 1
        )
