"""Whether IPVS carries Service traffic past the packet layer here.

The problem: IPVS takes what is dialled at a Service where the node would receive it, and sends it on as the node's
own. So the packet layer sees the Service's address at LOCAL_IN where it should see the backend, and nothing at FORWARD
on the way to a backend of this node. The agent cannot change what kube-proxy uses; the rule is to say what does not
hold. Each network namespace has its own table, which is empty while nobody uses IPVS in it.
"""

from __future__ import annotations

import pathlib

TABLE = pathlib.Path("/proc/thread-self/net/ip_vs")
PROTOCOLS = ("TCP ", "UDP ", "SCTP ", "FWM ")
"""What a line about a virtual service begins with."""


def unfiltered() -> tuple[str, ...]:
    """Return what does not hold because of IPVS, one line; empty: it has no part in Service traffic."""
    try:
        text = TABLE.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:  # the module is not loaded
        return ()
    return told(text)


def told(table: str) -> tuple[str, ...]:
    """Return the same for the text of ip_vs."""
    services = sum(1 for line in table.splitlines() if line.startswith(PROTOCOLS))
    if not services:
        return ()
    lost = "pods isolated for egress do not reach them, and pods of this node behind them are open to pods of this node"
    return (f"{services} Services are IPVS's: {lost}; run kube-proxy with iptables or nftables",)
