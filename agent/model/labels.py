"""Labels and label selectors (rule A11).

A selector is a conjunction of requirements; `matchLabels` is decoded to `In` with one value.
Absent keys satisfy NotIn and DoesNotExist; a `matchLabels` value of "" needs the key present and empty.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import ItemsView, Iterator, Mapping


class Labels(Mapping[str, str]):
    """An immutable, hashable mapping of label keys to values."""

    __slots__ = ("_hash", "_map")

    def __init__(self, pairs: Mapping[str, str] | None = None) -> None:
        """Copy `pairs`; later changes to it do not show here."""
        self._map: dict[str, str] = dict(sorted((pairs or {}).items()))
        self._hash = hash(tuple(self._map.items()))

    def __getitem__(self, key: str) -> str:
        """Return the value of `key`; KeyError when absent."""
        return self._map[key]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys in sorted order."""
        return iter(self._map)

    def __len__(self) -> int:
        """Return the number of labels."""
        return len(self._map)

    def __contains__(self, key: object) -> bool:
        """Tell whether `key` is present."""
        return key in self._map

    def items(self) -> ItemsView[str, str]:
        """Return the labels sorted by key; the inherited view is five times slower."""
        return self._map.items()

    def __hash__(self) -> int:
        """Hash by content."""
        return self._hash

    def __eq__(self, other: object) -> bool:
        """Compare by content."""
        return isinstance(other, Labels) and self._map == other._map

    def __repr__(self) -> str:
        """Show as `Labels(app=web,tier=front)`."""
        return f"Labels({','.join(f'{k}={v}' for k, v in self._map.items())})"


NO_LABELS = Labels()


class Operator(enum.Enum):
    """How a requirement compares; the value is the API's spelling."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One condition on one label key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def admits(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` satisfy this condition (rule A11)."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return self.key not in labels or labels[self.key] not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclasses.dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold; no requirement selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Tell whether `labels` satisfy every requirement."""
        return all(requirement.admits(labels) for requirement in self.requirements)


EVERYTHING = LabelSelector()
