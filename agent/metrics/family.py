"""What a metric is: its name, kind, labels and help, and how its samples follow from a picture."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator
from typing import TypeAlias

from agent.metrics import picture as picture_

PREFIX = "nodewall_"
Sample: TypeAlias = tuple[tuple[str, ...], float]
"""Values of the labels, and the number."""
Samples: TypeAlias = Iterator[Sample]


class Kind(enum.Enum):
    """What a metric is to Prometheus; the value is the word of the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """One metric; `samples` is None for a histogram, which `registry` keeps."""

    name: str
    """Without the prefix."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    samples: Callable[[picture_.Picture], Samples] | None = None

    @property
    def full_name(self) -> str:
        """As it is scraped."""
        return PREFIX + self.name


def one(value: Callable[[picture_.Picture], float | None]) -> Callable[[picture_.Picture], Samples]:
    """Make one sample of a value; none where there is no value."""

    def samples(now: picture_.Picture) -> Samples:
        found = value(now)
        if found is not None:
            yield (), found

    return samples


def once_enforced(value: Callable[[picture_.Picture], float]) -> Callable[[picture_.Picture], Samples]:
    """Leave out what is not known before the first policy is enforced: a zero would be an alert."""
    return one(lambda now: None if now.generation is None else value(now))
