"""Sets as ipset shows them."""

from __future__ import annotations

import ipaddress
import subprocess
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath.iptables import ruleset, sets
from agent.model import net
from tests.bpf import node as node_

pytestmark = pytest.mark.root

NETS, PORTS, INTERFACES = ruleset.SetKind
NAME = "NW4-test"


def member(network: str, protocol: int = 0, port: int = 0, interface: str = "") -> ruleset.Member:
    """Return an element."""
    return ruleset.Member(ipaddress.ip_network(network), protocol, port, interface)


@pytest.fixture
def kernel() -> Iterator[sets.Sets]:
    """Return the sets of a network namespace without any."""
    with node_.running(pods=0):
        opened = sets.Sets()
        yield opened
        opened.close()


@pytest.mark.parametrize(
    ("kind", "family", "members", "shown"),
    [
        (
            NETS,
            net.Family.IPV4,
            {member("10.0.0.0/8"): True, member("10.1.0.0/16"): False, member("10.1.1.1/32"): True},
            ["10.0.0.0/8", "10.1.0.0/16 nomatch", "10.1.1.1"],
        ),
        (NETS, net.Family.IPV6, {member("fd00::/8"): True, member("fe::/16"): False}, ["fd00::/8", "fe::/16 nomatch"]),
        (NETS, net.Family.IPV4, {member("0.0.0.0/1"): True, member("128.0.0.0/1"): True}, ["0.0.0.0/1", "128.0.0.0/1"]),
        (
            PORTS,
            net.Family.IPV4,
            {member("10.0.0.1/32", 6, 80): True, member("10.0.0.0/24", 17, 53): True, member("10.0.0.1", 132, 9): True},
            ["10.0.0.0/24,udp:53", "10.0.0.1,sctp:9", "10.0.0.1,tcp:80"],
        ),
        (PORTS, net.Family.IPV6, {member("fd00::/64", 17, 53): False}, ["fd00::/64,udp:53 nomatch"]),
        (INTERFACES, net.Family.IPV4, {member("10.0.0.1/32", interface="veth0"): True}, ["10.0.0.1,veth0"]),
        (
            INTERFACES,
            net.Family.IPV6,
            {member("fd00::1/128", interface="abcdefghijklmno"): True},
            ["fd00::1,abcdefghijklmno"],
        ),
    ],
)  # fmt: skip
def test_ipset_shows_what_was_added(
    kernel: sets.Sets, kind: ruleset.SetKind, family: net.Family, members: ruleset.Members, shown: list[str]
) -> None:
    kernel.create(NAME, kind, family, members=len(members))
    kernel.add(NAME, members)
    kernel.add(NAME, members)
    assert _shown() == shown
    assert kernel.read(NAME) == ruleset.SetContent(kind=kind, members=members)
    assert kernel.headers()[NAME] == sets.Header(kind=kind.value, family=family, elements=len(members), references=0)
    kernel.remove(NAME, tuple(members))
    kernel.remove(NAME, tuple(members))
    assert _shown() == []


def test_many_members_go_in_and_out_in_batches(kernel: sets.Sets) -> None:
    many = {ruleset.Member(ipaddress.ip_network((0x0A000000 + 2 * index, 32))): True for index in range(5003)}
    kernel.create(NAME, NETS, net.Family.IPV4, members=len(many))
    kernel.add(NAME, many)
    assert kernel.headers()[NAME].elements == 5003
    kernel.remove(NAME, list(many)[:5000])
    assert _shown() == sorted(str(member.network.network_address) for member in list(many)[5000:])


def test_an_element_that_is_refused_is_named_with_its_set(kernel: sets.Sets) -> None:
    kernel.create(NAME, NETS, net.Family.IPV4, members=1)
    many = {ruleset.Member(ipaddress.ip_network((0x0A000000 + 2 * index, 32))): True for index in range(1200)}
    with pytest.raises(errors.ApplyFailed, match=f"adding fd00::/8 to the set {NAME}: "):
        kernel.add(NAME, {**many, member("fd00::/8"): True})


def test_a_full_set_says_so(kernel: sets.Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sets, "CAPACITY", 2)
    kernel.create(NAME, NETS, net.Family.IPV4, members=3)
    with pytest.raises(errors.ApplyFailed, match=r"adding 10\.0\.0\.3/32 .*is full"):
        kernel.add(NAME, {member(f"10.0.0.{index}/32"): True for index in (1, 2, 3)})


def test_what_is_there_is_not_made_again_and_what_is_gone_is_no_error(kernel: sets.Sets) -> None:
    kernel.create(NAME, NETS, net.Family.IPV4, members=1)
    with pytest.raises(errors.ApplyFailed, match=f"making the set {NAME}"):
        kernel.create(NAME, NETS, net.Family.IPV4, members=1)
    assert kernel.destroy(NAME)
    assert kernel.destroy(NAME)
    with pytest.raises(errors.ApplyFailed, match=f"emptying the set {NAME}"):
        kernel.flush(NAME)


def test_a_set_that_is_not_there_or_of_another_type_is_read_as_none(kernel: sets.Sets) -> None:
    assert kernel.read(NAME) is None
    subprocess.run(f"ipset create {NAME} hash:ip".split(), check=True)
    assert kernel.read(NAME) is None


def test_a_set_that_a_rule_names_is_not_destroyed_and_says_so(kernel: sets.Sets) -> None:
    kernel.create(NAME, NETS, net.Family.IPV4, members=1)
    subprocess.run(f"iptables-nft -A FORWARD -m set --match-set {NAME} src -j DROP".split(), check=True)
    assert kernel.headers("NW")[NAME].references == 1
    assert not kernel.destroy(NAME)
    subprocess.run(["iptables-nft", "-F", "FORWARD"], check=True)
    assert kernel.destroy(NAME)


def _shown() -> list[str]:
    """Return the elements of NAME as the ipset command does."""
    saved = subprocess.run(["ipset", "save", NAME], check=True, capture_output=True, text=True).stdout
    begin = f"add {NAME} "
    return sorted(line.removeprefix(begin).strip() for line in saved.splitlines() if line.startswith(begin))
