"""Trees find every key and nothing else, in few rules."""

from __future__ import annotations

import ipaddress
import random

import pytest

from agent.datapath.iptables import dispatch, ruleset
from agent.model import net

END = ruleset.Rule(("-g", "END"))
ROOT = "NW-INGRESS-R"


def plant(addresses: list[net.Address]) -> dict[str, tuple[ruleset.Rule, ...]]:
    leaves = {dispatch.address_key(address): ("-g", str(address)) for address in addresses}
    return dispatch.tree(ROOT, dispatch.ByAddress("-s", net.family_of(addresses[0])), leaves, (END,))


def walk(chains: dict[str, tuple[ruleset.Rule, ...]], address: net.Address) -> tuple[str, int, int]:
    """Return where a packet ends, how many rules saw it, and how many chains."""
    chain, visited, depth = ROOT, 0, 1
    while True:
        for rule in chains[chain]:
            visited += 1
            if rule.words[0] == "-g" or address in ipaddress.ip_network(rule.words[1]):
                chain = rule.words[-1]
                break
        if chain not in chains:
            return chain, visited, depth
        depth += 1


def four(count: int) -> list[net.Address]:
    return [ipaddress.IPv4Address(0x0A000000 + number) for number in range(count)]


def scattered(count: int) -> list[net.Address]:
    dice = random.Random(1)
    return [ipaddress.IPv6Address((0xFD << 120) + dice.getrandbits(64)) for _ in range(count)]


@pytest.mark.parametrize("addresses", [four(1), four(110), four(4000), scattered(110), scattered(4000)])
def test_every_address_finds_its_chain_in_few_rules_and_others_the_end(addresses: list[net.Address]) -> None:
    chains = plant(addresses)
    longest = 17 * (1 + len(f"{len(addresses):x}"))
    for address in addresses[::7]:
        where, visited, depth = walk(chains, address)
        assert where == str(address)
        assert visited <= longest
        assert depth <= dispatch.DEPTH
    for address in addresses[::7]:
        assert walk(chains, address + (1 << 25))[0] == "END"


def test_addresses_that_fork_at_every_digit_do_not_make_the_tree_deep() -> None:
    comb: list[net.Address] = [ipaddress.IPv6Address(1 << bit) for bit in range(128)]
    chains = plant(comb)
    for address in comb:
        where, visited, depth = walk(chains, address)
        assert where == str(address)
        assert depth <= dispatch.DEPTH
        assert visited <= len(comb) + dispatch.DEPTH


def test_one_more_address_changes_one_chain_and_adds_few() -> None:
    addresses = four(1000)
    before = plant([address for address in addresses if address != addresses[500]])
    after = plant(addresses)
    assert len([name for name, rules in before.items() if after.get(name) != rules]) == 1
    assert len(after.keys() - before.keys()) <= 1


def test_names_are_short_enough_and_order_does_not_matter() -> None:
    addresses = scattered(200)
    assert all(len(name) <= 28 for name in plant(addresses))
    assert plant(addresses) == plant(addresses[::-1])


def test_interfaces_are_found_by_name_even_if_one_name_begins_another() -> None:
    names = [f"veth{number:04x}" for number in range(0, 4000, 13)] + ["veth", "veth0", "cali1"]
    chains = dispatch.tree(ROOT, dispatch.ByInterface(), {name: ("-g", f"to-{name}") for name in names}, (END,))

    def end_of(name: str) -> str:
        chain = ROOT
        while chain in chains:
            chain = next(
                rule.words[-1]
                for rule in chains[chain]
                if rule.words[0] == "-g"
                or rule.words[1] == name
                or (rule.words[1].endswith("+") and name.startswith(rule.words[1][:-1]))
            )
        return chain

    assert all(end_of(name) == f"to-{name}" for name in names)
    assert {end_of(name) for name in ("eth0", "vet", "veth00", "veth00001", "cali")} == {"END"}
