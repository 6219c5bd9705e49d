"""From tiers of clauses to the fewest map rows that say the same.

The kernel looks up one row, and that row must be final: tiers, orders, Pass and ends of tiers are worked out
here, once for every stretch of ports on which all clauses agree. `prefixes` then spends as few rows as
possible on the stretches. Pure numbers; this module must not know selectors or identities.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from agent import desired
from agent.model import net
from agent.policy import prefixes, tiers

DEFAULT_DENY = prefixes.DEFAULT_DENY
DEFAULT_ALLOW = desired.Row(desired.Action.ALLOW, 0)
"""Every tier passed: what a subject without isolation has."""

EVERY_PORT = net.PortRange(0, net.PORT_MAX)

RowPort: TypeAlias = tuple[int, int, int]
"""Protocol, port and port bits, as in `desired.RowKey`."""
Stretch: TypeAlias = tuple[int, int, desired.Row]
"""First and last port, both inclusive, and what happens to them."""
_Decide: TypeAlias = Callable[[net.Protocol | None, int], desired.Row]


@dataclasses.dataclass(frozen=True, slots=True)
class Clause:
    """A rule whose peer is known to match; `ports` None is every port of every protocol (rule A5)."""

    action: tiers.Action
    rule: int
    ports: tuple[tuple[net.Protocol, net.PortRange], ...] | None
    rank: int = desired.NO_RANK
    """Its place in the order of the set's rules, where that matters (`desired.Row`)."""
    asks: tuple[int, ...] = ()
    """Of each of `ports`: the names that may be asked for, a bit each (`sets`); 0: any, and so where there are none."""

    def covers(self, protocol: net.Protocol | None, port: int) -> bool:
        """Tell whether the clause speaks of `port`; protocol None is one that no clause names."""
        return self.ports is None or any(named is protocol and port in span for named, span in self.ports)

    def asked(self, protocol: net.Protocol | None, port: int) -> int:
        """Return what may be asked for through a `port` that the clause covers."""
        if not self.asks:
            return desired.ASKS_ANYTHING
        spans = zip(self.ports or (), self.asks, strict=True)
        return _united(asks for (named, span), asks in spans if named is protocol and port in span)


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """What one tier says to a subject it selects."""

    end: tiers.EndOfTier
    ordered: bool
    clauses: tuple[Clause, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What happens to every protocol and port; `protocols` lists those that clauses name."""

    others: desired.Row
    protocols: Mapping[net.Protocol, tuple[Stretch, ...]]

    def stretches(self, protocol: net.Protocol) -> tuple[Stretch, ...]:
        """Return the whole port space of `protocol`, ascending."""
        return self.protocols.get(protocol, ((0, net.PORT_MAX, self.others),))


DENIED = Outcome(DEFAULT_DENY, {})


def flatten(stages: Sequence[Stage], ceiling: int = desired.NO_RANK) -> Outcome:
    """Work out what the tiers, one after the other, do to each protocol and port; denials rank at most `ceiling`."""
    clauses = [clause for stage in stages for clause in stage.clauses]
    return _outcome(clauses, lambda protocol, port: _decide(stages, protocol, port, ceiling))


def by_name(admin: Sequence[Clause], later: Sequence[Clause]) -> Outcome:
    """Work out which rule allows a name class first, in the Admin tier and after it; clauses come in their order."""

    def decide(protocol: net.Protocol | None, port: int) -> desired.Row:
        first, second = (
            next((clause for clause in clauses if clause.covers(protocol, port)), None) for clauses in (admin, later)
        )
        found = first or second
        if found is None:
            return DEFAULT_DENY
        ranks = [desired.NO_RANK if clause is None else clause.rank for clause in (first, second)]
        return desired.Row(desired.Action.ALLOW, found.rule, *ranks)

    return _outcome([*admin, *later], decide)


def _outcome(clauses: Sequence[Clause], decide: _Decide) -> Outcome:
    named = {protocol for clause in clauses for protocol, _ in clause.ports or ()}
    return Outcome(
        others=decide(None, 0), protocols={protocol: _stretches(clauses, protocol, decide) for protocol in named}
    )


def cover(outcome: Outcome, below: Outcome = DENIED) -> dict[RowPort, desired.Row]:
    """Write `outcome` as rows; where none matches, `below` decides.

    Where `below` allows what `outcome` allows, no row is spent to name another rule; `below` is shared by
    all peers, and a row to name one would be spent on each of them.
    """
    found: dict[RowPort, desired.Row] = {}
    serves: Callable[[desired.Row, desired.Row], bool] = _serves
    if not serves(outcome.others, below.others):
        found[desired.ANY_PROTOCOL, 0, 0] = outcome.others
        below, serves = Outcome(outcome.others, {}), operator.eq
    for protocol in sorted(outcome.protocols.keys() | below.protocols.keys(), key=lambda each: each.value):
        pieces = _pieces(outcome.stretches(protocol), below.stretches(protocol), serves)
        for (port, bits), row in prefixes.cover(pieces).items():
            found[protocol.value, port, bits] = row
    return found


def _serves(row: desired.Row, below: desired.Row) -> bool:
    """Whether `below` serves in place of `row`: the same, or both allow, and queries for the same names."""
    allowing = row.action is desired.Action.ALLOW and below.action is desired.Action.ALLOW
    return row == below or (allowing and row.asks == below.asks)


def _united(filters: Iterable[int]) -> int:
    """Unite what several let a pod ask for: sets of names as bits, of which none is any name (rule E17)."""
    united = 0
    for one in filters:
        if one == desired.ASKS_ANYTHING:
            return one
        united |= one
    return united


def _stretches(clauses: Sequence[Clause], protocol: net.Protocol, decide: _Decide) -> tuple[Stretch, ...]:
    """Cut the port space where any clause begins or ends, decide each part, and join equal neighbours."""
    cuts = {0}
    for clause in clauses:
        for named, span in clause.ports or ():
            if named is protocol:
                cuts.update((span.first, span.last + 1))
    cuts.discard(net.PORT_MAX + 1)
    starts = sorted(cuts)
    joined: list[Stretch] = []
    for first, following in zip(starts, [*starts[1:], net.PORT_MAX + 1], strict=True):
        row = decide(protocol, first)
        if joined and joined[-1][2] == row:
            joined[-1] = (joined[-1][0], following - 1, row)
        else:
            joined.append((first, following - 1, row))
    return tuple(joined)


def _decide(stages: Iterable[Stage], protocol: net.Protocol | None, port: int, ceiling: int) -> desired.Row:
    """Go through the tiers for one protocol and port."""
    passed = desired.NO_RANK
    for stage in stages:
        decisive = _decisive(stage, protocol, port)
        if decisive is None and stage.end is tiers.EndOfTier.DENY:
            return desired.Row(desired.Action.DENY, 0, ceiling, passed)
        if decisive is not None and decisive.action is tiers.Action.ALLOW:
            return desired.Row(desired.Action.ALLOW, decisive.rule, asks=_asks(stage, decisive, protocol, port))
        if decisive is not None and decisive.action is tiers.Action.DENY:
            return desired.Row(desired.Action.DENY, decisive.rule, min(decisive.rank, ceiling), passed)
        if decisive is not None:
            passed = min(passed, decisive.rank)
    return DEFAULT_ALLOW


def _decisive(stage: Stage, protocol: net.Protocol | None, port: int) -> Clause | None:
    """Find the clause that ends the tier: ordered, the first; unordered, a Deny before an Allow before a Pass."""
    hits = [
        clause for clause in stage.clauses if clause.action is not tiers.Action.LOG and clause.covers(protocol, port)
    ]
    if stage.ordered:
        return hits[0] if hits else None
    for action in (tiers.Action.DENY, tiers.Action.ALLOW, tiers.Action.PASS):
        for clause in hits:
            if clause.action is action:
                return clause
    return None


def _asks(stage: Stage, decisive: Clause, protocol: net.Protocol | None, port: int) -> int:
    """Return the names that may be asked for: in a tier that is not ordered by any rule that allows (rule E17)."""
    if not decisive.asks or stage.ordered:
        return decisive.asked(protocol, port)
    return _united(
        clause.asked(protocol, port)
        for clause in stage.clauses
        if clause.action is tiers.Action.ALLOW and clause.covers(protocol, port)
    )


def _pieces(
    upper: Sequence[Stretch], below: Sequence[Stretch], serves: Callable[[desired.Row, desired.Row], bool]
) -> list[prefixes.Piece]:
    """Cut both at each other's edges."""
    pieces: list[prefixes.Piece] = []
    remaining = list(reversed(below))
    for first, last, row in upper:
        start = first
        while start <= last:
            _, end, under = remaining[-1]
            stop = min(last, end)
            pieces.append(prefixes.Piece(start, stop, row, serves(row, under)))
            if stop == end:
                remaining.pop()
            start = stop + 1
    return pieces
