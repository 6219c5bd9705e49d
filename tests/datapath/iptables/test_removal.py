"""Taking off what was left, beside what others have: theirs stays, and nothing comes into being by looking."""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from agent.datapath.iptables import commands, removal, ruleset, sets
from agent.model import net
from tests.bpf import node

pytestmark = pytest.mark.root

OURS = """\
*raw
:NW-SOURCE - [0:0]
-I PREROUTING 1 -j NW-SOURCE
-A NW-SOURCE -m set --match-set {sets}x src -j DROP
COMMIT
*filter
:NW-FORWARD - [0:0]
:NW-PASS - [0:0]
-I FORWARD 1 -j NW-FORWARD
-A NW-FORWARD -j NW-PASS
COMMIT
*security
:NW-BACKSTOP - [0:0]
-I FORWARD 1 -j NW-BACKSTOP
-A NW-BACKSTOP -j DROP
COMMIT
"""
THEIRS = """\
*filter
:OTHERS - [0:0]
-A FORWARD -s 192.0.2.1/32 -j OTHERS
-A OTHERS -j ACCEPT
COMMIT
"""
CLINGS = """\
*filter
-A OTHERS -d 192.0.2.2/32 -j NW-PASS
COMMIT
"""


@pytest.fixture(autouse=True)
def namespace(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    with node.running(pods=0):
        yield


def _install(which: commands.Variant, *texts: str) -> None:
    for text in texts:
        commands.restore(net.Family.IPV4, which, text.format(sets=ruleset.SET_PREFIX))


def _rules(which: commands.Variant, table: ruleset.Table = ruleset.Table.FILTER) -> str:
    return commands.save(net.Family.IPV4, which, table)


def _tables() -> str:
    shown = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
    return shown + pathlib.Path("/proc/thread-self/net/ip_tables_names").read_text()


@pytest.fixture
def named() -> Iterator[sets.Sets]:
    with contextlib.closing(sets.Sets()) as kernel:
        kernel.create(f"{ruleset.SET_PREFIX}x", ruleset.SetKind.NETS, net.Family.IPV4, members=1)
        kernel.add(f"{ruleset.SET_PREFIX}x", {ruleset.Member(ipaddress.ip_network("192.0.2.0/24")): True})
        kernel.create("others", ruleset.SetKind.NETS, net.Family.IPV4, members=1)
        yield kernel


def test_where_nothing_was_nothing_is_made_by_looking() -> None:
    before = _tables()
    assert not removal.everything()
    assert _tables() == before


@pytest.mark.parametrize("which", commands.Variant)
def test_ours_goes_and_theirs_stays(which: commands.Variant, named: sets.Sets) -> None:
    _install(which, OURS, THEIRS)
    assert removal.everything()
    assert "NW-" not in "".join(_rules(which, table) for table in ruleset.Table)
    assert "-A OTHERS -j ACCEPT" in _rules(which)
    assert set(named.headers()) == {"others"}
    assert not removal.everything()


@pytest.mark.parametrize("which", commands.Variant)
def test_the_backstop_goes_alone(which: commands.Variant, named: sets.Sets) -> None:
    assert named
    _install(which, OURS)
    assert removal.backstop(which)
    assert "NW-" not in _rules(which, ruleset.Table.SECURITY)
    assert "-A FORWARD -j NW-FORWARD" in _rules(which)
    assert not removal.backstop(which)


def test_the_rules_of_one_variant_go_and_the_sets_that_the_other_names_stay(named: sets.Sets) -> None:
    _install(commands.Variant.LEGACY, OURS)
    _install(commands.Variant.NFT, OURS)
    assert removal.rules(commands.Variant.LEGACY)
    assert "NW-" not in _rules(commands.Variant.LEGACY)
    assert "-A FORWARD -j NW-FORWARD" in _rules(commands.Variant.NFT)
    assert named.headers()[f"{ruleset.SET_PREFIX}x"].references == 1


@pytest.mark.parametrize("which", commands.Variant)
def test_a_chain_that_somebody_goes_to_stays_but_says_nothing(which: commands.Variant, named: sets.Sets) -> None:
    assert named
    _install(which, OURS, THEIRS, CLINGS)
    removal.everything()
    left = _rules(which)
    assert ":NW-PASS " in left
    assert "-A NW-" not in left
    assert "NW-FORWARD" not in left
