"""Our jumps in x_tables, read and placed through python-iptables."""

from __future__ import annotations

import fcntl
import pathlib
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath.iptables import changes, commands, jumps, ruleset, stamp, variant
from agent.model import net
from tests.bpf import node as node_

pytestmark = pytest.mark.root

FILTER = ruleset.Table.FILTER
FOREIGN = """\
*filter
:NW-A - [0:0]
:NW-B - [0:0]
-A NW-A -j NFLOG --nflog-prefix "ours"
-A FORWARD -j NFLOG --nflog-prefix "a target whose object crashes python-iptables"
-A FORWARD -m comment --comment "of another" -j ACCEPT
-A FORWARD -j NW-A
-A FORWARD -j NW-A
-A INPUT -j NW-B
COMMIT
"""
WANTED = (ruleset.Jump("FORWARD", "NW-A"), ruleset.Jump("INPUT", "NW-B"))


@pytest.fixture(params=tuple(net.Family), ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Iterator[net.Family]:
    """Return a family in whose filter table others have written."""
    with node_.running(pods=0):
        commands.restore(request.param, variant.Variant.LEGACY, FOREIGN)
        yield request.param


def test_jumps_are_read_with_their_places(family: net.Family) -> None:
    found = jumps.Jumps().placed(family, FILTER, ["FORWARD", "INPUT"])
    assert found == (
        changes.Placed(WANTED[0], 2),
        changes.Placed(WANTED[0], 3),
        changes.Placed(WANTED[1], 0),
    )


def test_without_python_iptables_text_says_the_same(family: net.Family, monkeypatch: pytest.MonkeyPatch) -> None:
    found = jumps.Jumps().placed(family, FILTER, ["FORWARD", "INPUT"])
    monkeypatch.setitem(__import__("sys").modules, "iptc", None)
    without = jumps.Jumps()
    assert set(without.placed(family, FILTER, ["FORWARD", "INPUT"])) == set(found)
    assert not without.put_first(family, FILTER, WANTED)


def test_jumps_are_put_first_and_alone_and_the_rest_stays(family: net.Family) -> None:
    placer = jumps.Jumps()
    assert placer.put_first(family, FILTER, WANTED)
    assert placer.placed(family, FILTER, ["FORWARD", "INPUT"]) == tuple(changes.Placed(jump, 0) for jump in WANTED)
    saved = commands.save(family, variant.Variant.LEGACY, FILTER)
    assert [line for line in saved.splitlines() if line.startswith("-A FORWARD")] == [
        "-A FORWARD -j NW-A",
        '-A FORWARD -j NFLOG --nflog-prefix "a target whose object crashes python-iptables"',
        '-A FORWARD -m comment --comment "of another" -j ACCEPT',
    ]


def test_no_other_table_comes_into_being(family: net.Family) -> None:
    placer = jumps.Jumps()
    placer.put_first(family, FILTER, WANTED)
    assert variant.tables(family, variant.Variant.LEGACY) == ("filter",)


def test_the_lock_is_waited_for_only_so_long_and_its_holder_is_named(
    family: net.Family, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    monkeypatch.setattr(commands, "LOCK_SECONDS", 0)
    with commands.lock_file().open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.ApplyFailed, match=r"lock .*lock, which '.*' \(process \d+\) holds"):
            jumps.Jumps().put_first(family, FILTER, WANTED)


def test_a_table_that_somebody_changes_has_another_stamp(family: net.Family) -> None:
    tables = (FILTER,)
    before = stamp.take(variant.Variant.LEGACY, tables)
    assert stamp.take(variant.Variant.LEGACY, tables) == before
    commands.restore(family, variant.Variant.LEGACY, "*filter\n-A NW-A -j DROP\nCOMMIT\n")
    after = stamp.take(variant.Variant.LEGACY, tables)
    assert after != before
    assert stamp.is_next(before, after, commits=1, entries={(family, FILTER): 1})
    assert not stamp.is_next(before, after, commits=1, entries={(family, FILTER): 2})


def test_every_nftables_commit_counts_one() -> None:
    with node_.running(pods=0):
        before = stamp.take(variant.Variant.NFT, ())
        commands.restore(net.Family.IPV4, variant.Variant.NFT, FOREIGN)
        after = stamp.take(variant.Variant.NFT, ())
        assert stamp.is_next(before, after, commits=1, entries={})
        assert not stamp.is_next(before, after, commits=2, entries={})
