"""Which endpoints may reach something by which classes of names, and what the sets of such a pair are called. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from agent import desired as desired_
from agent.datapath.iptables import names_book, ruleset
from agent.model import identity, net

FRESH, KEPT = "F", "K"
_NAME = re.compile(rf"{ruleset.SET_PREFIX}([46])-([0-9a-f]{{8}})-([0-9a-f]{{8}})-([{FRESH}{KEPT}])")


class Pair(NamedTuple):
    """Who has sets for what."""

    endpoint: int
    class_number: int
    family: net.Family

    @property
    def fresh(self) -> str:
        """The name of the set for new connections."""
        return self._name(FRESH)

    @property
    def kept(self) -> str:
        """The name of the set for connections that have begun."""
        return self._name(KEPT)

    @property
    def names(self) -> tuple[str, str]:
        """Both."""
        return self.fresh, self.kept

    def _name(self, letter: str) -> str:
        return f"{ruleset.SET_PREFIX}{self.family.value}-{self.endpoint:08x}-{self.class_number:08x}-{letter}"


def pair_of(name: str) -> tuple[Pair, str] | None:
    """Read a set's name; None: it is none of these."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return Pair(int(found[2], 16), int(found[3], 16), net.Family(int(found[1]))), found[4]


def pair_for(entry: names_book.Entry) -> Pair:
    """Return the pair whose sets an entry belongs to."""
    return Pair(entry.endpoint, entry.class_number, net.family_of(entry.address))


def pairs_of(state: desired_.DesiredState) -> frozenset[Pair]:
    """Return the pairs of endpoint and class that rules of `state` may name."""
    classes = {
        number: frozenset(key.identity for key in one.rows if key.identity >= identity.FIRST_NAME_CLASS)
        for number, one in state.sets.items()
        if one.direction is net.Direction.EGRESS
    }
    return frozenset(
        Pair(endpoint.id, class_number, family)
        for endpoint in state.endpoints.values()
        if not endpoint.held
        for class_number in classes.get(endpoint.egress_set, ())
        for family in {net.family_of(address) for address in endpoint.addresses}
    )
