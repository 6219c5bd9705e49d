"""The self-test where it may have no network namespace of its own: in the node's, beside everything that is there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import Any

import pytest

from agent import desired
from agent.datapath.iptables import commands, removal, ruleset, sets, trial, variant
from agent.datapath.iptables import datapath as datapath_
from agent.model import net
from tests.bpf import node as node_
from tests.support import capabilities

pytestmark = pytest.mark.root


@pytest.mark.parametrize("which", tuple(variant.Variant), ids=lambda which: which.value)
@pytest.mark.parametrize("adopts", [False, True], ids=["first", "adopts"])
def test_without_a_namespace_of_its_own_the_self_test_works_in_the_nodes_and_leaves_no_trace(
    which: variant.Variant, *, adopts: bool
) -> None:
    """With what daemonset/components/iptables gives, and beside the rules that an earlier agent has left."""
    with node_.running(pods=0):
        earlier = datapath_.IptablesDatapath(variant=which)
        if adopts:
            earlier.open()
            earlier.apply(desired.DesiredState())
        _tried(which)  # which brings tables into being
        before = _everything(which)
        found = _tried(which)
        assert (found["missing"], found["unproved"], found["reasons"]) == ("", "", [])
        assert _everything(which) == before
        if adopts:
            assert not earlier.repair()
        earlier.uninstall()


@pytest.mark.parametrize("which", tuple(variant.Variant), ids=lambda which: which.value)
def test_what_a_self_test_leaves_that_is_cut_short_goes_with_the_next_and_at_uninstall(
    which: variant.Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with node_.running(pods=0):
        clean = _everything(which)
        monkeypatch.setattr(
            trial, "_talk", lambda *_args, **_more: dict.fromkeys((*trial.ALLOWED, *trial.DENIED), True)
        )
        monkeypatch.setattr(trial, "_judge", lambda *_args, **_more: "")
        for take_off in (lambda: trial._clean(which), removal.everything):
            trial._probe(which, alone=False)
            assert "NW-PROBE-FILTER" in _everything(which)
            take_off()
            assert not _names()
            assert "PROBE" not in _everything(which).upper()
        assert set(clean.splitlines()) <= set(_everything(which).splitlines())


def _tried(which: variant.Variant) -> dict[str, Any]:
    command = [*capabilities.only(capabilities.IPTABLES), sys.executable, "-m", "agent.datapath.iptables.trial"]
    ended = subprocess.run([*command, which.value], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def _names() -> list[str]:
    with contextlib.closing(sets.Sets()) as kernel:
        return list(kernel.headers())


def _everything(which: variant.Variant) -> str:
    """Return the rules of our tables, the sets' names and the nftables tables, as text."""
    tables = [
        commands.save(family, which, table.value)
        for family in net.Family
        for table in ruleset.Table
        if table.value in variant.tables(family, which)
    ]
    lines = [line for text in tables for line in text.splitlines() if not line.startswith("#")]
    nft = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout.splitlines()
    plain = [line.partition(" [")[0] for line in (*lines, *nft, *_names())]
    return "\n".join(plain)
