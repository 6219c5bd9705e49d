"""What names allow that addresses are denied, against the law of ranks (`desired.Row`) at every port that matters."""

from __future__ import annotations

import random

import pytest

from agent import desired
from agent.datapath.iptables import names_regions, regions
from agent.model import identity, net

WORLD, OTHER, THIRD, UNKNOWN = identity.WORLD, 300, 301, 999
CLASSES = (identity.FIRST_NAME_CLASS, identity.FIRST_NAME_CLASS + 5)
TCP, UDP, ICMP = net.Protocol.TCP.value, net.Protocol.UDP.value, net.Protocol.ICMP.value
ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY
RANKS = (1, 2, 3, 4, desired.NO_RANK)
PROBES = [(protocol, port) for protocol in (TCP, UDP, ICMP, 99) for port in (0, 1, 3, 4, 7, 8, 80, 65_535)]


def policy_set(rows: dict[desired.RowKey, desired.Row]) -> desired.PolicySet:
    return desired.PolicySet(id=7, digest=b"", direction=net.Direction.EGRESS, rows=rows, isolating=())


def key(who: int, protocol: int = 0, port: int = 0, bits: int = 0) -> desired.RowKey:
    return desired.RowKey(who, protocol, port, bits)


def found_row(rows: dict[desired.RowKey, desired.Row], who: int, protocol: int, port: int) -> desired.Row | None:
    matching = [
        (bool(each.protocol), each.port_bits, row)
        for each, row in rows.items()
        if each.identity == who
        and each.protocol in {0, protocol}
        and each.port >> (16 - each.port_bits) == port >> (16 - each.port_bits)
    ]
    return max(matching, key=lambda each: each[:2])[2] if matching else None


def allows(rows: dict[desired.RowKey, desired.Row], who: int, class_: int, protocol: int, port: int) -> bool | None:
    """Say what the law says; None: the address is allowed anyway."""
    static = found_row(rows, who, protocol, port) or found_row(rows, identity.ANY, protocol, port)
    static = static or desired.Row(DENY, 0)
    if static.action is ALLOW:
        return None
    row = found_row(rows, class_, protocol, port)
    return row is not None and (row.rank < min(static.rank, static.passed) or row.passed < static.rank)


def random_rows(chance: random.Random) -> dict[desired.RowKey, desired.Row]:
    rows: dict[desired.RowKey, desired.Row] = {}
    for who in (identity.ANY, WORLD, OTHER, THIRD, *CLASSES):
        for _ in range(chance.randrange(5)):
            protocol = chance.choice((0, TCP, TCP, UDP, ICMP))
            bits = chance.choice((0, 13, 14, 16)) if protocol in {TCP, UDP} else 0
            port = chance.choice((0, 4, 80)) >> (16 - bits) << (16 - bits)
            action = ALLOW if who >= identity.FIRST_NAME_CLASS else chance.choice((ALLOW, DENY))
            rows[key(who, protocol, port, bits)] = desired.Row(action, 1, chance.choice(RANKS), chance.choice(RANKS))
    return rows


def of(found: names_regions.NameRegions, who: int) -> names_regions.ByClass:
    return next((by_class for peers, by_class in found.others if who != WORLD and peers.has(who)), found.default)


@pytest.mark.parametrize("seed", range(300))
def test_regions_say_what_ranks_say(seed: int) -> None:
    rows = random_rows(random.Random(seed))
    found = names_regions.of_set(policy_set(rows), WORLD)
    for who in (WORLD, OTHER, THIRD, UNKNOWN):
        for class_ in CLASSES:
            region = of(found, who).get(class_, regions.NOTHING)
            for protocol, port in PROBES:
                if protocol not in regions.PORTED and port:
                    continue
                said = allows(rows, who, class_, protocol, port)
                assert said is None or region.allows(protocol, port) is said, (who, class_, protocol, port)


def test_addresses_that_names_see_no_difference_in_need_no_sets() -> None:
    """A pod that may be reached by another rule is allowed there anyway."""
    rows = {
        key(OTHER, TCP, 8080, 16): desired.Row(ALLOW, 1, 3),
        key(OTHER): desired.Row(ALLOW, 2, 4),
        key(CLASSES[0], TCP, 443, 16): desired.Row(ALLOW, 3, 2),
    }
    found = names_regions.of_set(policy_set(rows), WORLD)
    assert found.others == ()
    assert found.default == {CLASSES[0]: regions.Region(base=False, protocols=((TCP, ((443, 443),)),))}


def test_what_a_name_must_not_mean_is_told_apart() -> None:
    """E15: an Allow by name that is asked after what denies pods."""
    rows = {key(OTHER): desired.Row(DENY, 1, 0), key(CLASSES[0]): desired.Row(ALLOW, 3, 2)}
    found = names_regions.of_set(policy_set(rows), WORLD)
    assert [(peers.identities, by_class) for peers, by_class in found.others] == [(frozenset({OTHER}), {})]
    assert found.default == {CLASSES[0]: regions.EVERYTHING}
