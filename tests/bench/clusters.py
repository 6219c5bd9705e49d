"""Small labs that benchmarks run in: one client, one server, on two nodes."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from agent.lab import lab

ALLOWED, DENIED = 7000, 7001
TOOL = pathlib.Path("build/bench-connect")


def build_tool() -> pathlib.Path:
    """Compile the connect timer; an interpreter would cost more than what is measured."""
    source = pathlib.Path(__file__).with_name("connect.c")
    TOOL.parent.mkdir(exist_ok=True)
    if not TOOL.exists() or TOOL.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["clang", "-O2", "-Wall", "-o", str(TOOL), str(source)], check=True)
    return TOOL.resolve()


def pod(name: str, node: str) -> dict[str, Any]:
    """Return a pod without servers of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "bench", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example/bench"}]},
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "server", "namespace": "bench"},
    "spec": {"clusterIP": "10.96.9.9", "selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": ALLOWED}]},
}
"""Brings kube-proxy's NAT rules, and with them conntrack, to the labs without agents too."""


def policies(peers: int) -> list[dict[str, Any]]:
    """Isolate both pods; the client may talk to the server, and to `peers` addresses besides."""
    blocks = [
        {"ipBlock": {"cidr": f"100.{64 + number // 65536}.{number // 256 % 256}.{number % 256}/32"}}
        for number in range(peers)
    ]
    server = {"podSelector": {"matchLabels": {"app": "server"}}}
    client = {"podSelector": {"matchLabels": {"app": "client"}}}
    ports = [{"port": ALLOWED}, {"port": ALLOWED, "protocol": "UDP"}]
    egress = {**client, "policyTypes": ["Egress"], "egress": [{"to": [server, *blocks], "ports": ports}]}
    ingress = {**server, "ingress": [{"from": [client, *blocks], "ports": ports[:1]}]}
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "bench"},
            "spec": spec,
        }
        for name, spec in (("client", egress), ("server", ingress))
    ]


@contextlib.contextmanager
def cluster(name: str, *, agents: bool, peers: int = 0) -> Iterator[lab.Lab]:
    """Run a lab with a server that accepts on ALLOWED."""
    with lab.Lab(name=name, agents=agents) as each:
        each.up([pod("client", "node-1"), pod("server", "node-2"), SERVICE, *(policies(peers) if agents else [])])
        command = each.exec_command("bench/server", [str(build_tool()), "serve", str(ALLOWED)])
        server = subprocess.Popen(command)
        time.sleep(0.2)
        try:
            yield each
        finally:
            server.kill()
            server.wait()
