"""Flows that no collector will see, by why, and from when to when: told as a record, and counted. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from agent.model import verdict


class Why(enum.Enum):
    """Why flows were lost; the value is the word in records and metrics."""

    RING = "ring"
    """The kernel's buffer was full."""
    QUEUE = "queue"
    """The agent fell behind the kernel."""
    BEHIND = "behind"
    """The exporter fell behind the agent; some of these nobody may have asked for."""
    FULL = "full"
    """As many were waiting for the collector as may."""
    REFUSED = "refused"
    """The collector refused them for good."""
    ENDED = "ended"
    """The agent ended, and the collector did not take them in time."""


OF_READER = {"ring": Why.RING, "queue": Why.QUEUE, "client": Why.BEHIND}
"""Why, by what a reader of the ring is told."""
DROPPED = (Why.BEHIND, Why.FULL, Why.REFUSED, Why.ENDED)
"""Lost on the way to the collector; the others never came so far, and count for every reader."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Flows lost for one reason between two moments (Unix time)."""

    why: Why
    count: int
    first_ns: int
    last_ns: int

    def plus(self, other: Loss) -> Loss:
        """Return both as one."""
        return dataclasses.replace(
            self,
            count=self.count + other.count,
            first_ns=min(self.first_ns, other.first_ns),
            last_ns=max(self.last_ns, other.last_ns),
        )


def of_reader(lost: verdict.Lost, *, first_ns: int, last_ns: int) -> Loss:
    """Return what a reader of the ring was told."""
    return Loss(why=OF_READER[lost.where], count=lost.count, first_ns=first_ns, last_ns=last_ns)


def added(before: Mapping[Why, Loss], *more: Loss) -> Mapping[Why, Loss]:
    """Return all, one a reason."""
    found = dict(before)
    for loss in more:
        if loss.count > 0:
            found[loss.why] = found[loss.why].plus(loss) if loss.why in found else loss
    return found
