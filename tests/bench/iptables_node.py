"""A forwarding node: a namespace with a client's and a server's veth, and 198 interfaces that stand for other pods.

Unlike `tests/bpf/node.py`, several stand side by side: rounds go over all of them, so that a busy moment of the machine
hits each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tests.bench import iptables_cluster
from tests.bpf import node

T = TypeVar("T")
TOOLS = pathlib.Path("build")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """One node, its two real pods, and its pods' interfaces by name."""

    namespace: int
    client: int
    server: int
    interfaces: Mapping[str, int]

    def inside(self, action: Callable[[], T]) -> T:
        """Do something in the node's namespace."""
        return node.within(self.namespace, action)

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command in the node's namespace; what it says is in the error if it fails."""
        done = self.inside(lambda: subprocess.run(command, input=text, capture_output=True, text=True, check=False))
        if done.returncode:
            sys.exit(f"bench: {' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def ask(self, *command: str) -> dict[str, Any]:
        """Run a tool as the client, before other processes; return the line of JSON it prints."""
        done = node.within(
            self.client,
            lambda: subprocess.run(["chrt", "-f", "1", *command], capture_output=True, text=True, check=True),
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@contextlib.contextmanager
def empty() -> Iterator[Rig]:
    """Make a node without pods, for what only writes rules."""
    namespace = node._namespace()
    try:
        yield Rig(namespace=namespace, client=namespace, server=namespace, interfaces={})
    finally:
        os.close(namespace)


@contextlib.contextmanager
def running(pods: int = iptables_cluster.LOCAL) -> Iterator[Rig]:
    """Make a node; its server answers TCP and takes UDP on OPEN."""
    with contextlib.ExitStack() as stack:
        namespace, client, server = (node._namespace() for _ in range(3))
        for each in (namespace, client, server):
            stack.callback(os.close, each)
        node.within(namespace, lambda: _build((client, server), pods))
        interfaces = node.within(namespace, lambda: {name: number for number, name in socket.if_nameindex()})
        for command in (("connect", "serve"), ("packets", "sink")):
            stack.enter_context(_started(server, [str(tool(command[0])), command[1], str(iptables_cluster.OPEN)]))
        yield Rig(namespace=namespace, client=client, server=server, interfaces=interfaces)


def tool(name: str) -> pathlib.Path:
    """Compile one of the tools; an interpreter would cost more than what is measured."""
    source, target = pathlib.Path(__file__).with_name(f"{name}.c"), TOOLS / f"bench-{name}"
    TOOLS.mkdir(exist_ok=True)
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["clang", "-O2", "-Wall", "-o", str(target), str(source)], check=True)
    return target.resolve()


def _build(ends: Sequence[int], pods: int) -> None:
    node._sysctl("net/ipv4/ip_forward", "1")
    node.ip("link set lo up")
    for number, namespace in enumerate(ends):
        node._pod(number, namespace, pathlib.Path(), bridge=False)
    rest = "".join(f"link add veth{number} type bridge\n" for number in range(len(ends), pods))
    subprocess.run(["ip", "-batch", "-"], input=rest, text=True, check=True)


@contextlib.contextmanager
def _started(namespace: int, command: list[str]) -> Iterator[None]:
    process = node.within(namespace, lambda: subprocess.Popen(command))
    try:
        yield
    finally:
        process.kill()
        process.wait()
