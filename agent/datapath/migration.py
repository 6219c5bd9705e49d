"""From one engine to another while traffic runs.

The problem: an agent starts with an engine, or a variant of iptables, other than the one that is in force on the node.
The order, in which every step leaves the last policy or the present one in force:

1. `open` makes the new engine's own things beside the old ones, which stay as they are and go on judging. The new
   ones are empty, or as an earlier agent left them, and close nothing that is open.
2. What would make both together deny more than either is taken from the old engine (`prepare`): of two variants of
   iptables each marks what it has judged and drops what lost its mark on the way, the other's work. The judgement
   stays; only a safety net is missing until step 4.
3. The first `apply` that succeeds brings the new engine to the present policy. From here both judge, so nothing leaks;
   only what both allow passes, and the old engine may still deny what has been allowed since.
4. Before that apply returns, and so before anything is told to be enforced, the old engine's things are removed. From
   here the new engine judges alone. What is shared by both, the socket layer and its maps, stays.

A crash before 4 leaves the old engine, or the old and the new; the next agent begins at 1 and finds its own things
there. A crash within 4 leaves a part of the old engine, which only denies less than before; the next agent's
first apply removes the rest, for every removal looks at what is there. That agent may even want the old engine back:
then the roles are changed, and the order is the same.

Where a removal fails, the apply fails, is told, and is repeated: the policy is in force, but the old engine may deny
what it allows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath import base, tracing
from agent.model import endpoint, fqdn


@dataclasses.dataclass(frozen=True, slots=True)
class Predecessor:
    """What another engine may have left."""

    name: str
    """For people: what it is."""
    remove: Callable[[], bool]
    """Removes it and tells whether there was anything; may be repeated. Raises DatapathError or OSError."""
    prepare: Callable[[], object] = lambda: None
    """Step 2; may be repeated. Raises likewise."""


class MigratingDatapath(base.Datapath):
    """Keeps `base.Datapath` with the one it is given, which the first apply makes the only one."""

    def __init__(
        self,
        successor: base.Datapath,
        predecessors: Callable[[base.EngineReport], Iterable[Predecessor]],
        *,
        tell: Callable[[str], object],
    ) -> None:
        """`predecessors` follow from what was opened; `tell` is given the name of each that had left something."""
        self._successor = successor
        self._find = predecessors
        self._predecessors: list[Predecessor] = []
        self._tell = tell

    def open(self) -> base.EngineReport:
        """Open the successor; nothing of the predecessors is touched."""
        report = self._successor.open()
        self._predecessors = list(self._find(report))
        return report

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Apply, and once that has succeeded remove the predecessors. Raises ApplyFailed where one does not go."""
        for predecessor in self._predecessors:
            predecessor.prepare()
        applied = self._successor.apply(desired)
        while self._predecessors:
            self._remove(self._predecessors[0])
            del self._predecessors[0]
        return applied

    def _remove(self, predecessor: Predecessor) -> None:
        try:
            found = predecessor.remove()
        except (errors.DatapathError, OSError) as error:
            raise errors.ApplyFailed(
                f"the policy is in force, but {predecessor.name} cannot be removed and may deny more: {error}"
            ) from error
        if found:
            self._tell(predecessor.name)

    def learn_names(self, desired: desired_.DesiredState) -> frozenset[int]:
        """Have the successor learn."""
        return self._successor.learn_names(desired)

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Have the successor learn these."""
        return self._successor.replay(learned)

    def known(self) -> fqdn.Known:
        """Read what the successor has learned."""
        return self._successor.known()

    def settle(self) -> None:
        """Settle the successor."""
        self._successor.settle()

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Attach the successor's links."""
        self._successor.attach_links(sandboxes)

    def repair(self) -> Sequence[str]:
        """Repair the successor."""
        return self._successor.repair()

    def counters(self) -> Mapping[str, int]:
        """Return the successor's counters."""
        return self._successor.counters()

    def usage(self) -> Mapping[str, base.Usage]:
        """Return what the successor uses."""
        return self._successor.usage()

    def missing(self) -> Sequence[str]:
        """Return what the successor lacks."""
        return self._successor.missing()

    def loaded(self) -> tracing.Loaded:
        """Read what the successor has."""
        return self._successor.loaded()

    def close(self) -> None:
        """Close the successor."""
        self._successor.close()

    def uninstall(self) -> None:
        """Remove the successor; predecessors are not its."""
        self._successor.uninstall()
