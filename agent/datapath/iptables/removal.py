"""Taking off what this engine has left, whichever variant of iptables it used, and whether it was whole or not.

The problem: the agent that made it may be long dead, its rules half written or pulled apart by others, and another
variant's rules of ours may name the same sets. The rule: look at the tables, take out what is ours by its name, one
table a transaction, so that what others wrote is never read back into place. The backstop goes before the judgement:
the other way round it would drop what nothing marks any more. Sets go last, and only all of them: those that a rule
still names are left to whoever removes that rule.

Everything may be repeated; what is gone is no error. Nothing here brings a legacy table into being.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent import errors
from agent.datapath.iptables import changes, commands, readback, ruleset, sets, text, variant
from agent.model import net

BACKSTOP = (ruleset.Table.SECURITY,)
EVERY_TABLE = (ruleset.Table.SECURITY, ruleset.Table.FILTER, ruleset.Table.MANGLE, ruleset.Table.RAW)
"""In the order of removal."""
NETDEV = ("netdev", "nodewall")
"""Family and name of the nftables table of the source checks on veths."""
NETDEV_TRIAL = ("netdev", "nodewall_probe")
"""That of a self-test, which a trial leaves that is cut short."""


def backstop(which: variant.Variant) -> bool:
    """Remove one variant's rules that drop what nothing has judged; tell whether there were any. Raises ApplyFailed."""
    return _remove_tables(which, BACKSTOP)


def rules(which: variant.Variant) -> bool:
    """Remove one variant's chains and jumps, and nothing that both share. Raises ApplyFailed, DatapathError."""
    return _remove_tables(which, EVERY_TABLE)


def everything() -> bool:
    """Remove both variants' rules, the sets, and the source checks on veths; tell whether there was anything.

    Raises ApplyFailed where the kernel does not let go, or another's rule still goes to a chain of ours.
    """
    found = [rules(which) for which in variant.Variant]
    found.append(_remove_netdev())
    found.append(_remove_sets())
    return any(found)


def _remove_tables(which: variant.Variant, tables: Sequence[ruleset.Table]) -> bool:
    found = False
    for table in tables:
        for family in net.Family:
            found |= _remove_table(which, family, table)
    return found


def _remove_table(which: variant.Variant, family: net.Family, table: ruleset.Table) -> bool:
    if table.value not in variant.tables(family, which) or commands.tool(family, which, "save") is None:
        return False
    try:
        saved = readback.parse(commands.save(family, which, table))
    except errors.ApplyFailed:
        raise
    except errors.DatapathError:  # no such table, or one that this tool cannot read and so cannot have written
        return False
    present = changes.Realized(tables={table: saved.state})
    nothing = ruleset.Ruleset(family=family, chains={}, jumps={}, sets={})
    way = changes.plan(present, nothing)
    if way.tables:
        commands.restore(family, which, text.transaction(way.tables))
    return bool(way.tables)


def _remove_netdev() -> bool:
    found = [table for table in (NETDEV, NETDEV_TRIAL) if commands.nft_table(*table)]
    for table in found:
        commands.nft(f"delete table {' '.join(table)}\n")
    return bool(found)


def _remove_sets() -> bool:
    try:
        kernel = sets.Sets()
    except errors.NotSupported:
        return False
    try:
        ours = tuple(kernel.headers(ruleset.SET_PREFIX))
        for name in ours:
            kernel.destroy(name)
    except errors.NotSupported:  # the kernel has no sets
        return False
    finally:
        kernel.close()
    return bool(ours)
