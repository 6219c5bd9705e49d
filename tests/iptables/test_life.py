"""Coming, proving and going without a trace."""

from __future__ import annotations

import subprocess

import pytest

from agent import errors
from agent.datapath.iptables import commands, removal, selftest, sets, variant
from agent.datapath.iptables import datapath as datapath_
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import states, traffic

pytestmark = pytest.mark.root

RULES = {(257, states.TCP, 8080, 16): states.ALLOW}


@pytest.mark.parametrize("which", tuple(variant.Variant), ids=lambda which: which.value)
def test_uninstalling_leaves_nothing_of_ours_and_may_be_repeated(which: variant.Variant) -> None:
    with node_.running() as node:
        before = _everything()
        datapath = _datapath(which)
        assert datapath.open().variant == which.value
        datapath.attach_links(states.sandboxes(node))
        datapath.apply(states.pods(node, egress=RULES, ingress={}))
        assert "NW" in _everything()
        datapath.uninstall()
        assert _everything() == before
        datapath.uninstall()


def test_both_variants_are_removed_even_if_half_of_one_is_gone() -> None:
    with node_.running() as node:
        for which in variant.Variant:
            datapath = _datapath(which)
            datapath.open()
            datapath.apply(states.pods(node, egress=RULES))
            datapath.close()
        subprocess.run(["iptables-nft", "-F", "NW-FORWARD"], check=True)
        subprocess.run(["ip6tables-legacy", "-F", "FORWARD"], check=True)
        assert removal.everything()
        assert "NW" not in _everything()
        assert not removal.everything()


def test_two_nodes_on_one_machine_know_nothing_of_each_other() -> None:
    with node_.running() as first:
        one = _datapath(variant.Variant.NFT)
        one.open()
        one.apply(states.pods(first, egress={}))
        target = first.pods[1].address4
        with first.pods[1].started(traffic.listens(8080)) as ready:
            ready()
            with first.outside.started(lambda: _other_node()) as other:  # noqa: PLW0108 - typed by its call
                assert other() == 0
            assert first.pods[0].run(traffic.connects(target, 8080)) != 0, "still enforced"
        one.uninstall()


def test_the_variant_is_the_one_with_kubelets_chains_else_the_one_with_more_rules() -> None:
    with node_.running(pods=0):
        assert variant.choose().variant is variant.Variant.NFT
        assert "legacy" not in variant.choose().why
        commands.restore(net.Family.IPV4, variant.Variant.LEGACY, "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n")
        assert variant.choose().variant is variant.Variant.LEGACY
        commands.restore(net.Family.IPV4, variant.Variant.NFT, "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n")
        assert variant.choose().variant is variant.Variant.NFT
        assert "kubelet" in variant.choose().why


@pytest.mark.parametrize("which", tuple(variant.Variant), ids=lambda which: which.value)
def test_the_self_test_proves_this_machine(which: variant.Variant) -> None:
    found = selftest.run(which)
    assert found.reasons == found.unproved == ()
    assert found.links
    assert found.proved == (
        f"by function: rules and sets of iptables-{which.value} refused what they deny, and passed what they allow",
    )


def test_what_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(errors.NotSupported, match="package iptables"):
        selftest.run(variant.Variant.NFT)


def _other_node() -> int:
    """Be the agent of another node, in this child's network namespace, and enforce something else."""
    datapath = _datapath(variant.Variant.NFT)
    datapath.open()
    before = len(_names())
    datapath.uninstall()
    return before


def _names() -> list[str]:
    kernel = sets.Sets()
    try:
        return list(kernel.headers())
    finally:
        kernel.close()


def _datapath(which: variant.Variant) -> datapath_.IptablesDatapath:
    return datapath_.IptablesDatapath(variant=which)


def _everything() -> str:
    """Return what both variants, ipset and nft show of this namespace, without counters and comments."""
    shown = ""
    for family in net.Family:
        for which in variant.Variant:
            for table in variant.tables(family, which):
                shown += commands.save(family, which, table)
    shown += " ".join(_names()) + commands.nft_table("netdev", "nodewall")
    return "\n".join(line for line in shown.splitlines() if line.startswith(("-A", ":NW", "NW", "table")))
