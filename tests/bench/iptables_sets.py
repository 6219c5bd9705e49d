"""Filling a set with 100,000 addresses: our batches, `ipset restore`, and pyroute2 a call a member.

Members are values before the clock starts, and text is text: what is compared is the way into the kernel. pyroute2 adds
2,000 and is reckoned up; a set costs it the same for each, whatever is in there.
"""

from __future__ import annotations

import ipaddress
import time

import pyroute2

from agent.datapath.iptables import ruleset, sets
from agent.model import net
from tests.bench import figures, iptables_cluster, iptables_linear, iptables_node

MEMBERS, ONE_BY_ONE, ROUNDS = 100_000, 2_000, 7
OURS, RESTORE, LIBRARY = "nodewall", "ipset restore", "pyroute2 IPSet.add"


def run() -> list[figures.Figure]:
    """Fill in turn, round by round."""
    text = iptables_linear.one_set(MEMBERS)
    took: dict[str, list[float]] = {OURS: [], RESTORE: [], LIBRARY: []}
    for _ in range(ROUNDS):
        with iptables_node.empty() as rig:
            took[OURS].append(rig.inside(_fill) / MEMBERS)
        with iptables_node.empty() as rig:
            begin = time.perf_counter()
            rig.run("ipset", "restore", text=text)
            took[RESTORE].append((time.perf_counter() - begin) * 1e6 / MEMBERS)
        with iptables_node.empty() as rig:
            took[LIBRARY].append(rig.inside(_fill_by_library) / ONE_BY_ONE)
    baseline = figures.median(took[RESTORE])
    return [
        figures.Figure(
            name=f"a member of a set, {name}",
            value=figures.median(values),
            unit="us",
            baseline=None if name == RESTORE else baseline,
            note=f"best {min(values):.2f}" + (f", {ONE_BY_ONE:,} members" if name == LIBRARY else ""),
        )
        for name, values in took.items()
    ]


def _fill() -> float:
    """Return the microseconds that making and filling a set takes us."""
    members = {ruleset.Member(net.host_network(address)): True for address in _addresses(MEMBERS)}
    ours = sets.Sets()
    try:
        begin = time.perf_counter()
        ours.create("all", ruleset.SetKind.NETS, net.Family.IPV4, members=len(members))
        ours.add("all", members)
        took = (time.perf_counter() - begin) * 1e6
        assert ours.headers()["all"].elements == MEMBERS
        return took
    finally:
        ours.close()


def _fill_by_library() -> float:
    addresses = [str(address) for address in _addresses(ONE_BY_ONE)]
    with pyroute2.IPSet() as library:
        library.create("all", stype="hash:net", hashsize=MEMBERS, maxelem=2 * MEMBERS)
        begin = time.perf_counter()
        for address in addresses:
            library.add("all", address, etype="net")
        return (time.perf_counter() - begin) * 1e6


def _addresses(count: int) -> list[ipaddress.IPv4Address]:
    return [ipaddress.IPv4Address(iptables_cluster.REMOTE + number) for number in range(count)]
