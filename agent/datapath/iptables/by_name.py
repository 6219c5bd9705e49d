"""Where rules come from that allow by name: the seam between policy sets and whatever knows what DNS has said.

The problem: no rule can say what an endpoint has learned; something else has to be asked, and what there is to ask
differs between nodes. The rule: one object writes everything that names need. Its rules come first in the egress chain
of a set that has names, for a name that is allowed is allowed whatever else the set says (the object heeds ranks); what
none of them matches is judged as if the set had no names. Objects are values: equal ones write equal rules.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeAlias

from agent import desired
from agent.datapath.iptables import members, ruleset, ways
from agent.model import identity, net

Owners: TypeAlias = Mapping[net.Address, desired.Endpoint]
"""Endpoints by their addresses of one family."""
Nets: TypeAlias = Callable[[members.Peers], str]
"""Returns the name of the set of the addresses of some peers, which is made if need be; empty: they have none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a set's egress chain begins with, one way."""

    rules: tuple[ruleset.Rule, ...] = ()
    chains: ruleset.Chains = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    """Chains of the filter table that they go to."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What else of one family names need, besides the chains of sets."""

    chains: Mapping[ruleset.Table, ruleset.Chains] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    jumps: Mapping[ruleset.Table, tuple[ruleset.Jump, ...]] = dataclasses.field(
        default_factory=lambda: MappingProxyType({})
    )
    """To be put before the engine's own in their built-in chains."""
    sets: Mapping[str, ruleset.SetContent] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    tails: Mapping[ruleset.Table, ruleset.Chains] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    """Chain of the engine's -> rules to be put behind its own."""


class ByName(Protocol):
    """Writes the rules of what is allowed by name."""

    def head(self, policy_set: desired.PolicySet, way: ways.Way, owners: Owners, nets: Nets) -> Head:
        """Begin the chain of an egress set that has names; `owners` are the endpoints that have the set."""

    def frame(self, family: net.Family, owners: Owners) -> Frame:
        """Write the rest; `owners` are the endpoints whose egress set has names, none if no set has."""


@dataclasses.dataclass(frozen=True, slots=True)
class NotByName(ByName):
    """Allows nothing by name."""

    def head(self, *_: object) -> Head:
        """Return nothing."""
        return Head()

    def frame(self, *_: object) -> Frame:
        """Return nothing."""
        return Frame()


def has_names(policy_set: desired.PolicySet) -> bool:
    """Tell whether an egress set has rows of name classes, or of what allows to ask for some names only."""
    return policy_set.direction is net.Direction.EGRESS and any(
        key.identity >= identity.FIRST_NAME_CLASS or row.asks for key, row in policy_set.rows.items()
    )
