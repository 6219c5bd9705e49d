"""What everything is compared with: one rule a policy and peer in a row, written as simply as it can be done.

The same policies, peers and ports as `iptables_cluster`'s crowded setting. `rules` has one address a rule;
`rules_of_sets` has the addresses of each peer in a set of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from tests.bench import iptables_cluster

CHAIN = "LINEAR"
LAST = f"-A {CHAIN} -s {iptables_cluster.CLIENT}/32 -d {iptables_cluster.SERVER}/32 -p"
"""What lets the client reach the server: behind everything else."""


def tracking() -> str:
    """Return rules that make the kernel track connections, and do nothing else."""
    return "*filter\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n"


def rules(count: int) -> str:
    """Return a filter table: what is known to be established passes, then `count` rules; the last two allow."""
    return _table(f"-s {_peer(number)} {_rest(number)}" for number in range(count - 2))


def rules_of_sets(count: int) -> str:
    """Return the same with a set in place of each peer."""
    return _table(f"-m set --match-set peer{number} src {_rest(number)}" for number in range(count - 2))


def sets(count: int) -> str:
    """Return the text for `ipset restore` of every peer's set."""
    return "".join(
        f"create peer{number} hash:net family inet hashsize 64\n"
        + "".join(f"add peer{number} {address}\n" for address in _addresses(number))
        for number in range(count - 2)
    )


def one_set(count: int) -> str:
    """Return the text for `ipset restore` of `count` addresses in one set."""
    addresses = (ipaddress.IPv4Address(iptables_cluster.REMOTE + number) for number in range(count))
    return f"create all hash:net family inet hashsize {count} maxelem {2 * count}\n" + "".join(
        f"add all {address}\n" for address in addresses
    )


def rule_words(number: int) -> tuple[str, str, int]:
    """Return source, destination and port of a rule of `rules`."""
    subject = iptables_cluster.CLIENT + 2 + number % (iptables_cluster.LOCAL - 2)
    return _peer(number), str(subject), iptables_cluster.PORTS[number % len(iptables_cluster.PORTS)]


def _table(lines: Iterator[str]) -> str:
    body = "".join(f"-A {CHAIN} {line}\n" for line in lines)
    allow = "".join(f"{LAST} {protocol} --dport {iptables_cluster.OPEN} -j ACCEPT\n" for protocol in ("tcp", "udp"))
    jump = f"-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD -j {CHAIN}\n"
    return f"*filter\n:{CHAIN} - [0:0]\n{jump}{body}{allow}-A {CHAIN} -j DROP\nCOMMIT\n"


def _peer(number: int) -> str:
    return str(next(_addresses(number)))


def _addresses(number: int) -> Iterator[ipaddress.IPv4Address]:
    first = iptables_cluster.REMOTE + number * iptables_cluster.REPLICAS
    return (ipaddress.IPv4Address(first + replica) for replica in range(iptables_cluster.REPLICAS))


def _rest(number: int) -> str:
    _, subject, port = rule_words(number)
    return f"-d {subject}/32 -p tcp --dport {port} -j ACCEPT"
