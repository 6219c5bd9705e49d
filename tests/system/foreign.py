"""What other programs do to the tables of a node, as they do it: with the same tools, beside the agent.

Each act is done on every node. None of them means harm: firewalls are restarted, kube-proxy puts itself first, an
administrator lends a hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import re
import time
from collections.abc import Callable, Iterator

from agent.lab import lab
from tests.system import remains

TABLES = ("raw", "filter", "security")
BUILTIN = re.compile(r"-A (PREROUTING|INPUT|FORWARD) ")
SET = re.compile(r"(?<=--match-set )\S+")
CHANGING = re.compile(r" -m comment --comment \S+| --nflog-prefix +(\"[^\"]*\"|\S+)| prefix \"[^\"]*\"")
"""What differs between two states of ours that mean the same."""
KUBE_PROXY = """*filter
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-I FORWARD 1 -m conntrack --ctstate NEW -j KUBE-SERVICES
-I FORWARD 1 -j KUBE-FORWARD
COMMIT
"""
KUBE_PROXY_AGAIN = KUBE_PROXY.replace("-I FORWARD 1", "-D FORWARD").replace("COMMIT\n", "") + "".join(
    line for line in KUBE_PROXY.splitlines(keepends=True) if line.startswith(("-I ", "COMMIT"))
)
"""The second time it finds its jumps, and puts them first again."""
SYNCS = 5
SYNC_PERIOD_S = 0.4
LOCKED_S = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node's tables, seen by somebody else."""

    running: lab.Lab
    name: str
    variant: str

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command there."""
        lock = f"XTABLES_LOCKFILE={self.running.paths.xtables_lock(self.name)}"
        return remains.in_node(self.running, self.name, "env", lock, *command, text=text)

    def iptables(self, *words: str) -> None:
        """Run iptables of the variant that the agent uses."""
        self.run(f"iptables-{self.variant}", "-w", *words)

    def restore(self, text: str) -> None:
        """Run iptables-restore."""
        self.run(f"iptables-{self.variant}-restore", "--noflush", "-w", text=text)

    def chains(self, table: str) -> list[str]:
        """Return the agent's chains of a table."""
        saved = self.run(f"iptables-{self.variant}-save", "-t", table)
        return [line[1:].partition(" ")[0] for line in saved.splitlines() if line.startswith(remains.CHAIN)]

    def enforcing(self) -> dict[str, list[str]]:
        """Return what decides about packets: our chains, sets by their members, what is first in built-in chains."""
        found: dict[str, list[str]] = {}
        for table in TABLES:
            for line in self.run(f"iptables-{self.variant}-save", "-t", table).splitlines():
                chain = f"{table} {line.split()[1]}" if line.startswith("-A ") else ""
                if line.startswith("-A NW-") or (BUILTIN.match(line) and chain not in found):
                    found.setdefault(chain, []).append(SET.sub(self._content, CHANGING.sub("", line)))
        if "table netdev nodewall" in self.run("nft", "list", "tables"):
            listed = self.run("nft", "list", "table", "netdev", "nodewall").splitlines()
            found["netdev"] = [CHANGING.sub("", line) for line in listed]
        return found

    def _content(self, name: re.Match[str]) -> str:
        return "{" + "; ".join(self.members(name[0])) + "}"

    def sets(self) -> list[str]:
        """Return the names of all sets."""
        return self.run("ipset", "list", "-n").split()

    def members(self, name: str) -> list[str]:
        """Return what is in a set, as `ipset add` takes it."""
        saved = self.run("ipset", "save", name).splitlines()
        return sorted(line.split(maxsplit=2)[2] for line in saved if line.startswith("add "))


def flush_forward(node: Node) -> None:
    """Empty the chain, as a firewall that is restarted."""
    node.iptables("-F", "FORWARD")


def accept_first(node: Node) -> None:
    """Let everything pass, as an administrator who looks for a fault."""
    node.iptables("-I", "FORWARD", "1", "-j", "ACCEPT")


def flush_chain(node: Node) -> None:
    """Empty one of our chains."""
    node.iptables("-F", "NW-FORWARD")


def delete_chain(node: Node) -> None:
    """Delete one of our chains, with what leads to it."""
    node.iptables("-F", "FORWARD")
    node.iptables("-F", "NW-FORWARD")
    node.iptables("-X", "NW-FORWARD")


def delete_filter(node: Node) -> None:
    """Take the table for one's own, as a firewall that is restarted."""
    node.iptables("-F")
    node.iptables("-X")


def flush_security(node: Node) -> None:
    """Empty the table that hardly anybody knows."""
    node.iptables("-t", "security", "-F")


def flush_raw(node: Node) -> None:
    """Empty the table of the source check."""
    node.iptables("-t", "raw", "-F")


def kube_proxy(node: Node) -> None:
    """Write kube-proxy's chains and put it first, again and again."""
    for turn in range(SYNCS):
        node.restore(KUBE_PROXY_AGAIN if turn else KUBE_PROXY)
        time.sleep(SYNC_PERIOD_S)


def delete_members(node: Node) -> None:
    """Delete a member of each of our sets."""
    for name in node.sets():
        if members := node.members(name):
            node.run("ipset", "del", name, members[0].removesuffix(" nomatch"))


def flush_netdev(node: Node) -> None:
    """Empty the chains on the pods' interfaces."""
    node.run("nft", "flush", "table", "netdev", "nodewall")


def delete_netdev(node: Node) -> None:
    """Delete the chains on the pods' interfaces."""
    node.run("nft", "delete", "table", "netdev", "nodewall")


ACTS: tuple[Callable[[Node], None], ...] = (
    flush_forward,
    accept_first,
    flush_chain,
    delete_chain,
    delete_filter,
    flush_security,
    flush_raw,
    kube_proxy,
    delete_members,
    flush_netdev,
    delete_netdev,
)


def undo(node: Node) -> None:
    """Take away what the acts have put in."""
    lines = node.run(f"iptables-{node.variant}-save", "-t", "filter").splitlines()
    mine = [
        line for line in lines if line.startswith("-A FORWARD ") and ("KUBE-" in line or line.endswith("-j ACCEPT"))
    ]
    for line in mine:
        node.iptables(*line.replace("-A ", "-D ", 1).split())


@contextlib.contextmanager
def locked(running: lab.Lab, node: str) -> Iterator[None]:
    """Hold the lock that all iptables commands of a node take."""
    with running.paths.xtables_lock(node).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
