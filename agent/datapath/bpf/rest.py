"""The rest of an apply: what is made once no program reads the generation before it any more."""

from __future__ import annotations

import dataclasses

from agent.datapath import plan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Steps that are left, and what holds once they are made."""

    steps: tuple[plan.Step, ...]
    grace: bool
    """Whether programs may read what the steps change."""
    result: plan.Tables
    endpoints: frozenset[int]
    """All there are then."""
    filters: bool
    """Whether any set has a filter of names then."""
