"""What answers of a real server open: F5 to F7, F21, F28, F29, by UDP and TCP, over IPv4 and IPv6."""

from __future__ import annotations

import ipaddress
import pathlib
import subprocess
from typing import Any

import pytest

from agent.lab import orders
from agent.model import net
from agent.services import resolvers
from tests.system.names import dns, resolver, zones
from tests.system.names import stage as stage_

pytestmark = pytest.mark.root

OPEN, CLOSED = {"ok"}, {stage_.REFUSED}
MANY = 120
DATAGRAM, LARGE = 1232, 4096


@pytest.fixture
def names(stage: stage_.Stage) -> stage_.Stage:
    """Allow what is directly below one domain."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    return stage


def test_only_the_name_that_was_asked_decides(names: stage_.Stage) -> None:
    """F5: an alias of somebody else's for a name with a rule opens nothing."""
    answer = names.ask("other-alias.test")
    assert answer["records"] == 2
    assert {names.reach(address) for address in answer["addresses"]} == CLOSED


@pytest.mark.parametrize("type_", [dns.A, dns.AAAA], ids=["A", "AAAA"])
def test_a_chain_through_several_zones_opens_what_it_ends_at(names: stage_.Stage, type_: int) -> None:
    """F5, F6."""
    answer = names.ask("www.one.test", type=type_)
    assert answer["records"] == 3
    assert {names.reach(address) for address in answer["addresses"]} == OPEN


@pytest.mark.parametrize("family", list(net.Family), ids=lambda family: family.name)
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_both_kinds_of_addresses_are_learned_over_both_families(
    names: stage_.Stage, family: net.Family, *, tcp: bool
) -> None:
    """F6, F28."""
    how: dict[str, Any] = {"resolver": names.service(family), "tcp": tcp}
    assert names.visit("api.one.test", type=dns.A, **how) == OPEN
    assert names.visit("api.one.test", type=dns.AAAA, **how) == OPEN


def test_a_hint_of_an_https_record_is_not_learned(names: stage_.Stage) -> None:
    """F6."""
    assert names.ask("hinted.one.test", type=dns.HTTPS)["records"] == 1
    assert names.reach(zones.ipv4(zones.HINT)) == stage_.REFUSED
    assert names.visit("hinted.one.test") == OPEN


def test_what_is_no_answer_neither_opens_nor_closes(names: stage_.Stage) -> None:
    """F7: no such name, no such record, and a refusal of the server's."""
    (address,) = names.ask("gone.one.test")["addresses"]
    for name, type_ in (("missing.one.test", dns.A), ("gone.one.test", dns.AAAA), ("one.invalid", dns.A)):
        assert names.ask(name, type=type_)["addresses"] == []
        assert names.reach(address) == "ok"


def test_what_fits_in_one_datagram_is_learned_whole(names: stage_.Stage) -> None:
    """F21: as long as resolvers send today (1,232 bytes)."""
    answer = names.ask("big.one.test", size=DATAGRAM)
    assert len(answer["addresses"]) > MANY / 2
    assert {names.reach(address) for address in answer["addresses"]} == OPEN


def test_an_answer_in_fragments_is_counted_and_teaches_nothing(names: stage_.Stage) -> None:
    """F14: nothing is missing but a second look-up, by TCP; where packets wait, they are whole again by then."""
    before = names.counted("nodewall_dns_answers_unread_total", reason="fragmented")
    answer = names.ask("fragments.one.test", size=LARGE)
    assert (len(answer["addresses"]), answer["truncated"]) == (MANY, False)
    assert {names.reach(address) for address in answer["addresses"]} == (CLOSED if names.in_kernel else OPEN)
    assert (names.counted("nodewall_dns_answers_unread_total", reason="fragmented") > before) is names.in_kernel


def test_a_truncated_answer_teaches_what_it_has_and_tcp_the_rest(names: stage_.Stage) -> None:
    """F28, F21: more than a hundred addresses for one name."""
    answer = names.ask("big.one.test")
    assert answer["truncated"]
    assert {names.reach(address) for address in answer["addresses"]} <= OPEN
    whole = names.ask("big.one.test", tcp=True)
    assert len(whole["addresses"]) == MANY
    assert {names.reach(address) for address in whole["addresses"]} == OPEN


@pytest.mark.parametrize("connected", [True, False], ids=["connect", "sendto"])
def test_it_does_not_matter_how_a_resolver_library_asks(names: stage_.Stage, *, connected: bool) -> None:
    """F15: glibc connects its socket, musl does not, and the Service's address is translated either way."""
    assert names.visit("shared.one.test", connected=connected) == OPEN


def test_the_cache_on_the_node_is_believed(stage: stage_.Stage, tmp_path: pathlib.Path) -> None:
    """F29: NodeLocal DNSCache, a link-local address that is the node's."""
    local = str(resolvers.NODE_LOCAL)
    party = f"node/{stage_.NODE}"
    netns = orders.party_netns(party, stage.lab.plan, stage.lab.paths)
    address = ["nsenter", f"--net={netns}", "ip", "address"]
    stage.apply(stage_.cilium(stage_.by_name("*.one.test"), stage_.by_network(f"{local}/32", dns.PORT)))
    subprocess.run([*address, "add", f"{local}/32", "dev", "lo"], check=True)
    try:
        with resolver.serving(stage.lab, party, tmp_path / "cache", listen=[ipaddress.ip_address(local)], fresh=False):
            for tcp in (False, True):
                assert stage.visit("local.one.test", resolver=local, tcp=tcp) == OPEN
            assert stage.visit("other.test", resolver=local) == CLOSED
    finally:
        subprocess.run([*address, "del", f"{local}/32", "dev", "lo"], check=True)
