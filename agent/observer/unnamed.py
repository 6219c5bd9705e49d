"""Verdicts as the kernel tells them, which get their names when somebody takes them.

The problem: a busy node makes 100,000 verdicts a second, naming one takes ten times as long as reading it, and nearly
all of them fall out of the stream's store before anybody asks. The rule: a batch keeps the raw events together with
the past they were read in, so that naming them later gives the same names. As that past keeps whole states alive,
whoever makes batches calls `name` on those that grow old.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from agent.model import verdict
from agent.observer import enrich


class Unnamed(Sequence[verdict.VerdictEvent]):
    """Events of one reading; taking one names it. Read by any thread, named by one."""

    def __init__(self, raw: Sequence[enrich.Told], context: enrich.Context) -> None:
        """Keep `raw`, whose enums must be known ones, and what it is named from."""
        self._raw = raw
        self._named: tuple[verdict.VerdictEvent, ...] | None = None
        self._layers: tuple[tuple[verdict.VerdictEvent, ...], ...] = ()
        self._name_one: Callable[[enrich.Told], verdict.VerdictEvent] = lambda event: enrich.enrich(event, context)
        self._length = len(raw)
        self.version = context.past.version
        """Of the past that names come from."""

    def __len__(self) -> int:
        """Count them."""
        return self._length

    @overload
    def __getitem__(self, index: int) -> verdict.VerdictEvent: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[verdict.VerdictEvent, ...]: ...

    def __getitem__(self, index: int | slice) -> verdict.VerdictEvent | tuple[verdict.VerdictEvent, ...]:
        """Name one, or each of a slice."""
        # In this order: `name` writes the other way round, so one of the two is whole.
        raw, name_one, named = self._raw, self._name_one, self._named
        if isinstance(index, slice):
            return named[index] if named is not None else tuple(name_one(event) for event in raw[index])
        return named[index] if named is not None else name_one(raw[index])

    def layers(self, index: int) -> tuple[verdict.VerdictEvent, ...]:
        """Name what each layer said of one, the socket layer first; mostly but one of them said something."""
        raw, name_one, named = self._raw, self._name_one, self._named  # in this order, as above
        if named is not None:
            return self._layers[index]
        return tuple(name_one(event) for event in enrich.layers(raw[index]))

    def of(self, kind: verdict.Verdict) -> Sequence[int]:
        """Return the places of the events with this verdict, oldest first; names nothing."""
        raw, named = self._raw, self._named
        if named is not None:
            return [place for place, event in enumerate(named) if event.verdict is kind]
        return [place for place, event in enumerate(raw) if event.verdict == kind.value]

    def name(self) -> None:
        """Name all, and let go of the past."""
        if self._named is None:
            named = self[:]
            self._layers = tuple(self.layers(place) if one.joined else (one,) for place, one in enumerate(named))
            self._named = named
            self._raw, self._name_one = (), _named_already


def _named_already(_event: enrich.Told) -> verdict.VerdictEvent:
    message = "a batch whose events have names was asked to name one"
    raise AssertionError(message)
