"""Others who write to the same tables: nothing is widened meanwhile, and all is put back."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator

import pytest

from agent.datapath.iptables import commands, ruleset
from agent.model import net
from tests.bpf import states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
TO_POD1 = {(257, states.TCP, PORT, 16): states.ALLOW}
REFUSED_OR_SILENT = {errno.ECONNREFUSED, errno.ETIMEDOUT}


@pytest.mark.parametrize(
    "attack",
    [
        ("-F", "FORWARD"),
        ("-F", "NW-FORWARD"),
        ("-F",),
        ("-I", "FORWARD", "-j", "ACCEPT"),
        ("-D", "FORWARD", "-j", "NW-FORWARD"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("family", tuple(net.Family), ids=lambda family: family.name)
def test_nothing_is_wider_after_a_foreign_write_and_it_is_repaired(
    rig: conftest.Rig, attack: tuple[str, ...], family: net.Family
) -> None:
    first, second = rig.node.pods
    target = second.address4 if family is net.Family.IPV4 else second.address6
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    assert rig.datapath.repair() == ()
    before = _ours(rig, family)
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also, _undone(rig):
        ready(), also()
        rig.foreign(*attack, family=family)
        assert first.run(traffic.connects(target, OTHER)) in REFUSED_OR_SILENT
        lines = rig.datapath.repair()
        assert lines
        assert all(f"IPv{family.value} filter" in line for line in lines)
        assert _ours(rig, family) == before
        assert first.run(traffic.connects(target, PORT)) == 0
        assert first.run(traffic.connects(target, OTHER)) == errno.ECONNREFUSED
    assert rig.datapath.repair() == ()


def test_a_rule_of_the_same_size_before_our_jump_is_found_within_a_few_repairs(rig: conftest.Rig) -> None:
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    with _undone(rig):
        rig.foreign("-A", "FORWARD", "-j", "ACCEPT")
        rig.datapath.repair()
        # Deleting and inserting in one transaction leaves every number of the table as it was.
        moved = "*filter\n-D FORWARD -j ACCEPT\n-I FORWARD 1 -j ACCEPT\nCOMMIT\n"
        commands.restore(net.Family.IPV4, rig.variant, moved)
        lines = [line for _ in range(5) for line in rig.datapath.repair()]
        assert lines == ["IPv4 filter: put the jump in FORWARD back to where it belongs"]
        placed = [line for line in rig.saved().splitlines() if line.startswith("-A FORWARD")]
        assert placed[0] == "-A FORWARD -j NW-FORWARD"


def test_a_rule_of_ours_that_was_changed_is_found_by_its_comment(rig: conftest.Rig) -> None:
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    before = _ours(rig, net.Family.IPV4)
    rig.foreign("-R", "NW-DENY", "1", "-j", "ACCEPT")
    assert rig.datapath.repair() == ("IPv4 filter: rewrote NW-DENY",)
    assert _ours(rig, net.Family.IPV4) == before


def test_a_set_that_was_emptied_is_filled_anew(rig: conftest.Rig) -> None:
    first, second = rig.node.pods
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    names = subprocess.run(["ipset", "list", "-n"], check=True, capture_output=True, text=True).stdout.split()
    for name in names:
        subprocess.run(["ipset", "flush", name], check=True)
    lines = [line for _ in range(5) for line in rig.datapath.repair()]
    assert any("filled anew" in line for line in lines)
    with second.started(traffic.listens(PORT)) as ready:
        ready()
        assert first.run(traffic.connects(second.address4, PORT)) == 0


def test_the_netdev_table_is_put_back(rig: conftest.Rig) -> None:
    rig.apply(states.pods(rig.node))
    assert rig.datapath.repair() == ()
    before = commands.nft_table("netdev", "nodewall")
    assert "veth0" in before
    subprocess.run(["nft", "delete table netdev nodewall"], check=True)
    assert rig.datapath.repair() == ("source checks on veths: wrote them anew",)
    after = commands.nft_table("netdev", "nodewall")
    assert [line for line in after.splitlines() if "log prefix" not in line] == [
        line for line in before.splitlines() if "log prefix" not in line
    ], "but for the generation, it is the same"
    assert rig.datapath.repair() == ()


def test_what_is_somebody_elses_is_left_alone(rig: conftest.Rig) -> None:
    text = "*filter\n:OTHER - [0:0]\n-A OTHER -s 192.0.2.1/32 -j DROP\n-A FORWARD -j OTHER\nCOMMIT\n"
    commands.restore(net.Family.IPV4, rig.variant, text)
    subprocess.run(["ipset", "create", "other", "hash:net"], check=True)
    try:
        rig.apply(states.pods(rig.node, egress=TO_POD1))
        rig.datapath.repair()
        saved = rig.saved()
        assert "-A OTHER -s 192.0.2.1/32 -j DROP" in saved
        assert "-A FORWARD -j OTHER" in saved
        assert "other" in subprocess.run(["ipset", "list", "-n"], check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run(["ipset", "destroy", "other"], check=True)
        rig.foreign("-D", "FORWARD", "-j", "OTHER")
        rig.foreign("-F", "OTHER")
        rig.foreign("-X", "OTHER")


def test_a_quiet_repair_reads_no_table(rig: conftest.Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.apply(states.pods(rig.node, egress=TO_POD1))
    rig.datapath.repair()
    rig.apply(states.pods(rig.node, egress={}))
    monkeypatch.setattr(commands, "save", pytest.fail)
    assert rig.datapath.repair() == (), "our own writes are no reason to read"


@contextlib.contextmanager
def _undone(rig: conftest.Rig) -> Iterator[None]:
    """Take out the foreign rule afterwards."""
    try:
        yield
    finally:
        for family in net.Family:
            while "-A FORWARD -j ACCEPT" in commands.save(family, rig.variant, ruleset.Table.FILTER):
                rig.foreign("-D", "FORWARD", "-j", "ACCEPT", family=family)


def _ours(rig: conftest.Rig, family: net.Family) -> list[str]:
    """Return chains and rules of ours, as they stand."""
    return sorted(line for line in rig.saved(family).splitlines() if "NW-" in line and not line.startswith(":"))
