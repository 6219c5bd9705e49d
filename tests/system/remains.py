"""What an engine keeps in the kernel for one node, read by other tools than the agent's own."""

from __future__ import annotations

import collections
import json
import subprocess
from collections.abc import Iterator, Mapping

from agent.lab import lab
from tests.system import engines

CHAIN = ":NW-"
"""How `iptables-save` begins the line of a chain of ours."""
SAVES = {
    f"{variant} chains": [f"{program}-{variant}-save" for program in ("iptables", "ip6tables")]
    for variant in ("legacy", "nft")
}
LINK_TYPES = {10: "netfilter", 11: "tcx"}
"""enum bpf_link_type, as a bpftool older than the kernel prints it."""


def of(running: lab.Lab, node: str) -> Mapping[str, int]:
    """Count links by their type, chains by the variant of iptables, sets and nftables tables; zeros are left out."""
    return dict(
        collections.Counter([*_links(running, node), *_chains(running, node), *_sets_and_tables(running, node)])
    )


def expected(combination: engines.Combination) -> set[str]:
    """Return what an engine keeps, and so what nobody else may have left; every node has pods."""
    engine = combination.engine
    sockets = {"cgroup links", "tcx links"} if engine.sockets else set()
    if engine.iptables:
        return sockets | {f"{engine.variant} chains", "sets", "table netdev nodewall"}
    return sockets | {"netfilter links", "table inet nodewall"}


def in_node(running: lab.Lab, node: str, *command: str, text: str | None = None) -> str:
    """Run a command in a node's network namespace and return what it prints."""
    inside = ["nsenter", f"--net={running.paths.node_netns(node)}", *command]
    return subprocess.run(inside, check=True, stdout=subprocess.PIPE, text=True, input=text).stdout


def _links(running: lab.Lab, node: str) -> Iterator[str]:
    """Name the type of every link that the node's agent has pinned."""
    shown = subprocess.run(["bpftool", "-j", "-f", "link", "show"], capture_output=True, check=True).stdout
    directory = f"{running.paths.bpffs}/nodewall/{node}/"
    for link in json.loads(shown):
        kind = LINK_TYPES.get(link["type"], link["type"])
        yield from (f"{kind} links" for pin in link.get("pinned", ()) if pin.startswith(directory))


def _chains(running: lab.Lab, node: str) -> Iterator[str]:
    for name, commands in SAVES.items():
        for command in commands:
            yield from (name for line in in_node(running, node, command).splitlines() if line.startswith(CHAIN))


def _sets_and_tables(running: lab.Lab, node: str) -> Iterator[str]:
    yield from ("sets" for _ in in_node(running, node, "ipset", "list", "-n").split())
    listed = in_node(running, node, "nft", "list", "tables").splitlines()
    yield from (line for line in listed if "nodewall" in line)
