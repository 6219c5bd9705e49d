"""Proof that this machine's iptables denies and allows, before the agent says so.

The problem: a tool may be there and the kernel lack a match, or a table; or the tool writes where no packet comes by.
The rule: a process of its own (`trial`) makes sets and rules of the very shapes this engine uses and talks to itself
over the loopback interface, TCP and UDP, IPv4 and IPv6, without them and with them: what a set names must pass, what it
has a hole for must be refused. What is missing is named, and what could not be shown is told apart from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from agent import errors, patience
from agent.datapath.iptables import asked, commands, names_rules, ruleset, text
from agent.model import net

SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What holds on this machine."""

    tables: tuple[ruleset.Table, ...]
    """The tables the kernel has."""
    links: bool
    """nftables can check sources at veths."""
    ports: bool
    """Rules can match the port of a bridge that a frame came in by."""
    reasons: tuple[str, ...] = ()
    """What does not hold, one line each."""
    proved: tuple[str, ...] = ()
    """What was shown to hold and how, one line each."""
    unproved: tuple[str, ...] = ()
    """What could not be shown, one line each."""


def run(variant: commands.Variant) -> Finding:
    """Test one variant. Raises NotSupported naming what is missing, or what does not enforce."""
    for family in net.Family:
        for verb in ("restore", "save"):
            commands.require(family, variant, verb)
    command = (sys.executable, "-m", "agent.datapath.iptables.trial", variant.value)
    timeout_s = patience.seconds(SECONDS)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return _unproved(variant, f"the probe process did not end within {timeout_s:.0f} s")
    if ended.returncode != 0:
        return _unproved(variant, ended.stderr.strip().rpartition("\n")[2] or "the probe process said nothing")
    found = json.loads(ended.stdout)
    if found["missing"]:
        raise errors.NotSupported(feature=found["missing"], needs=found["needs"])
    proof = (
        f"by function: rules and sets of iptables-{variant.value} refused what they deny, and passed what they allow"
    )
    return Finding(
        tables=tuple(map(ruleset.Table, found["tables"])),
        links=found["links"],
        ports=found["ports"],
        reasons=tuple(found["reasons"]),
        proved=() if found["unproved"] else (proof,),
        unproved=(f"iptables is not proved: {found['unproved']}",) if found["unproved"] else (),
    )


def require_asking(variant: commands.Variant, programs: pathlib.Path) -> None:
    """Try out rules that ask pinned programs for names. Raises NotSupported where there can be none."""
    _require(
        variant, ruleset.Table.MANGLE, asked.trial(programs), "asking a BPF program from", "xt_bpf and the table mangle"
    )


def require_holding(variant: commands.Variant, queue: int) -> None:
    """Try out a rule that holds packets. Raises NotSupported where there can be none."""
    _require(
        variant,
        ruleset.Table.SECURITY,
        names_rules.trial(queue),
        "holding packets from",
        "NFQUEUE and its --queue-bypass",
    )


def _require(
    variant: commands.Variant, table: ruleset.Table, trial: Sequence[text.TableChange], feature: str, needs: str
) -> None:
    try:
        for family in net.Family:
            for change in trial:
                commands.restore(family, variant, text.transaction({table: change}))
    except errors.ApplyFailed as error:
        raise errors.NotSupported(
            feature=f"{feature} iptables-{variant.value}", needs=f"{needs} ({' '.join(str(error).split())})"
        ) from error


def _unproved(variant: commands.Variant, why: str) -> Finding:
    """Take tables for there that can be read; where nothing was tried, the first write tells."""
    tables = []
    for table in ruleset.Table:
        with contextlib.suppress(errors.NotSupported):
            for family in net.Family:
                commands.save(family, variant, table)
            tables.append(table)
    return Finding(tables=tuple(tables), links=True, ports=False, unproved=(f"iptables is not proved: {why}",))
