"""What a bundle has of the node: ours, and nothing else."""

from __future__ import annotations

import pathlib

import pytest

from agent.cli.bundle import node
from agent.datapath.iptables import commands
from agent.model import net

MOUNTINFO = """\
22 1 0:20 / /proc rw - proc proc rw
41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw
42 23 0:39 / /sys/fs/bpf rw,relatime shared:9 - bpf bpf rw
43 23 0:40 / /secret rw - tmpfs bpf rw
"""


def test_only_mounts_of_cgroup2_and_bpffs_are_told() -> None:
    assert [line.split()[4] for line in node._mounts(MOUNTINFO)] == ["/sys/fs/cgroup", "/sys/fs/bpf"]


def test_the_kernel_is_named_and_a_setting_it_lacks_is_none() -> None:
    found = node.kernel()
    assert str(found["version"]).startswith("Linux version")
    assert set(node.conntrack()) == {"nf_conntrack_count", "nf_conntrack_max"}


def test_a_pin_that_cannot_be_opened_says_why(tmp_path: pathlib.Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "x").touch()
    ((pin),) = node.pins(tmp_path)
    assert pin["pin"] == str(tmp_path / "maps" / "x")
    assert "error" in pin
    assert node.pins(tmp_path / "none") == []


def test_of_iptables_only_lines_with_a_chain_of_ours_are_kept_and_no_table_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = "*filter\n:INPUT ACCEPT [0:0]\n:NW-FORWARD - [0:0]\n-A FORWARD -j NW-FORWARD\n-A INPUT -s 1.2.3.4 -j DROP\n"
    asked = []

    def save(family: net.Family, variant: commands.Variant, table: str) -> str:
        asked.append((family, variant, table))
        return saved

    monkeypatch.setattr(commands, "tool", lambda _family, _variant, verb: f"iptables-{verb}")
    monkeypatch.setattr(commands, "save", save)
    monkeypatch.setattr(node, "LEGACY_TABLES", dict.fromkeys(net.Family, "none"))
    lines = node.chains().splitlines()
    assert {variant for _, variant, _ in asked} == {commands.Variant.NFT}
    assert {line for line in lines if not line.startswith("#")} == {":NW-FORWARD - [0:0]", "-A FORWARD -j NW-FORWARD"}
