"""Label selectors that select the pods of one workload and no other that is known.

A workload is its namespace and the stable labels of its pods. Labels of one may be part of another's; what the other
has more is then asked to be absent, else a rule for the one would be a rule for both.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from agent.model import labels as labels_

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """Pods that no selector should tell apart."""

    namespace: str
    labels: labels_.Labels

    @property
    def nameable(self) -> bool:
        """The API would take a selector of these labels: a recording may hold anything."""
        return _NAMESPACE.fullmatch(self.namespace) is not None and all(
            _key(key) and (not value or _NAME.fullmatch(value)) for key, value in self.labels.items()
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """The labels pods must have, and those they must not."""

    labels: Mapping[str, str]
    absent: tuple[str, ...] = ()


def selector(of: Workload, known: Iterable[Workload]) -> Selector:
    """Return what selects `of` and none of the other workloads `known` of its namespace."""
    absent: set[str] = set()
    for other in sorted(known, key=lambda one: (len(one.labels), tuple(one.labels.items()))):
        if other == of or other.namespace != of.namespace or not of.labels.items() <= other.labels.items():
            continue
        more = [key for key in other.labels if key not in of.labels and _key(key)]
        if more and absent.isdisjoint(more):
            absent.add(more[0])
    return Selector(labels=dict(of.labels), absent=tuple(sorted(absent)))


def _key(key: str) -> bool:
    domain, slash, name = key.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or _DOMAIN.fullmatch(domain) is not None)
