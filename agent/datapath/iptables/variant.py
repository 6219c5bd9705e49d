"""Which iptables this node uses: the one its kube-proxy uses.

The problem: rules of the two variants sit beside each other at the same hooks, and a node whose tools disagree cannot
be understood by its operator. The rule, as the distributions' wrappers have it: kubelet leaves a chain that says so
(KUBE-IPTABLES-HINT, before it KUBE-KUBELET-CANARY); without it, the variant with more rules; without any, nft, as it
replaces chains, not tables. Looking must not bring tables into being: legacy tables are read only if there are some.
"""

from __future__ import annotations

import dataclasses
import pathlib

from agent import errors
from agent.datapath.iptables import commands
from agent.model import net

Variant = commands.Variant

HINTS = (":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY ")
HINT_TABLE = "mangle"
TABLES = ("raw", "mangle", "nat", "filter", "security")
LEGACY_TABLES = {
    net.Family.IPV4: pathlib.Path("/proc/thread-self/net/ip_tables_names"),
    net.Family.IPV6: pathlib.Path("/proc/thread-self/net/ip6_tables_names"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """A variant and why it was chosen."""

    variant: Variant
    why: str


def choose() -> Choice:
    """Return the variant this node uses, and why. Raises NotSupported without iptables."""
    installed = [variant for variant in Variant if is_installed(variant)]
    if not installed:
        raise errors.NotSupported(feature="iptables-restore", needs="the package iptables")
    if len(installed) == 1:
        return Choice(installed[0], f"iptables-{installed[0].value} is the only one installed")
    hinted = [variant for variant in Variant if _is_hinted(variant)]
    if len(hinted) == 1:
        return Choice(hinted[0], f"kubelet's chains are in iptables-{hinted[0].value}")
    rules = {variant: count_rules(variant) for variant in Variant}
    if rules[Variant.LEGACY] > rules[Variant.NFT]:
        return Choice(Variant.LEGACY, f"iptables-legacy has {rules[Variant.LEGACY]} rules, nft {rules[Variant.NFT]}")
    if rules[Variant.NFT]:
        return Choice(Variant.NFT, f"iptables-nft has {rules[Variant.NFT]} rules, legacy {rules[Variant.LEGACY]}")
    return Choice(Variant.NFT, "no iptables has rules")


def is_installed(variant: Variant) -> bool:
    """Tell whether this variant's tools are there for both families."""
    return all(commands.tool(family, variant, verb) for family in net.Family for verb in ("restore", "save"))


def tables(family: net.Family, variant: Variant) -> tuple[str, ...]:
    """Return the tables that can be read without bringing them into being."""
    if variant is Variant.NFT:
        return TABLES
    try:
        names = LEGACY_TABLES[family].read_text(encoding="ascii").split()
    except OSError:  # the module is not loaded
        return ()
    return tuple(name for name in TABLES if name in names)


def count_rules(variant: Variant) -> int:
    """Count the rules of every table and both families."""
    return sum(
        line.startswith("-A ")
        for family in net.Family
        for table in tables(family, variant)
        for line in _saved(family, variant, table).splitlines()
    )


def _is_hinted(variant: Variant) -> bool:
    return any(
        hint in _saved(family, variant, HINT_TABLE)
        for family in net.Family
        if HINT_TABLE in tables(family, variant)
        for hint in HINTS
    )


def _saved(family: net.Family, variant: Variant, table: str) -> str:
    try:
        return commands.save(family, variant, table)
    except errors.DatapathError:  # nothing to be read is nothing there
        return ""
