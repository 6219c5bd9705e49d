"""Filling the idle slot must leave every answer of the live one as it is."""

from __future__ import annotations

import ipaddress
import random

import pytest

from agent.datapath import slots
from agent.model import net

POOL = [
    *ipaddress.ip_network("10.0.0.0/29").subnets(new_prefix=32),
    *ipaddress.ip_network("10.0.0.0/29").subnets(new_prefix=31),
    *map(ipaddress.ip_network, ("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.4/30")),
]
PROBES = [ipaddress.ip_address("10.0.0.0") + offset for offset in range(9)]


def test_a_key_of_one_side_only_is_empty_on_the_other() -> None:
    merged = slots.merge({"a": (1, 1), "b": (2, 2)}, {"b": (3, 3), "c": (4, 4)}, idle=1, empty=0)
    assert merged == {"a": (1, 0), "b": (2, 3), "c": (0, 4)}
    assert slots.merge({"a": (9, 1)}, {"a": (3, 3)}, idle=0, empty=0) == {"a": (3, 1)}


def test_a_prefix_that_a_generation_lacks_answers_as_the_next_shorter_one() -> None:
    outer, inner = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.0.0.0/29")
    assert slots.merge_prefixes({outer: (1, 1)}, {inner: (2, 2)}, idle=1, empty=0) == {outer: (1, 0), inner: (1, 2)}


def test_the_families_do_not_cover_each_other() -> None:
    """Rule A24."""
    covering = slots.Covering({ipaddress.ip_network("::/0"): (6, 6)})
    assert covering.of_address(ipaddress.ip_address("10.0.0.1")) is None
    assert covering.of_address(ipaddress.ip_address("fd00::1")) == (6, 6)


def answers(table: dict[net.Network, slots.Slots], slot: int) -> list[int]:
    """Do as an LPM map does: the longest prefix there is, whatever its slot says."""
    covering = slots.Covering(table)
    return [(covering.of_address(probe) or (0, 0))[slot] for probe in PROBES]


def draw(rng: random.Random) -> dict[net.Network, slots.Slots]:
    chosen: list[net.Network] = list(rng.sample(POOL, rng.randint(0, 8)))
    return {network: (number, number) for number, network in enumerate(chosen, start=rng.randint(1, 50))}


@pytest.mark.parametrize("seed", range(60))
def test_writing_prefixes_one_by_one_never_changes_the_live_answers(seed: int) -> None:
    rng = random.Random(seed)
    have, want, idle = draw(rng), draw(rng), rng.randint(0, 1)
    merged = slots.merge_prefixes(have, want, idle=idle, empty=0)
    expected = answers(have, 1 - idle)
    table = dict(have)
    for network, pair in rng.sample(list(merged.items()), len(merged)):
        table[network] = pair
        assert answers(table, 1 - idle) == expected
    assert answers(table, idle) == answers(want, idle)
    for network in rng.sample(list(merged.keys() - want.keys()), len(merged.keys() - want.keys())):
        del table[network]
        assert answers(table, idle) == answers(want, idle)
