"""A pod with names on a test node, a resolver outside, and what the learner of the iptables engine needs of them."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import ipaddress
import socket
import termios
import time
from collections.abc import Callable

from agent import desired
from agent.fqdn import classes, patterns
from agent.model import identity, net
from tests.bpf import node as node_
from tests.bpf import states, traffic
from tests.bpf.dns import server, wire

ZONE = "cdn.example.net"
CLASSES = classes.build([[patterns.parse_cilium_pattern(f"*.{ZONE}")]])
(CLASS,) = CLASSES.contents
FIRST = ipaddress.IPv4Address("198.18.0.1")
PORT = 8080
PATIENCE_S = 5.0
GAP_S = 0.2
IDENTITY = identity.NumericIdentity(400)
ROWS = {
    desired.RowKey(CLASS, states.TCP, PORT, 16): desired.Row(states.ALLOW, states.RULE, 1),
    desired.RowKey(CLASS, states.UDP, PORT, 16): desired.Row(states.ALLOW, states.RULE, 1),
}
DNS = {
    desired.RowKey(0, protocol, wire.PORT, 16): desired.Row(states.ALLOW, states.RULE + 1, 2)
    for protocol in (states.TCP, states.UDP)
}


def state(node: node_.Node, rows: dict[desired.RowKey, desired.Row] | None = None) -> desired.DesiredState:
    """Have pod 0 ask anybody, and reach by name what is called something below ZONE."""
    found = states.pods(node, egress={})
    policy_set = dataclasses.replace(found.sets[states.EGRESS_SET], rows={**DNS, **(ROWS if rows is None else rows)})
    return dataclasses.replace(
        found,
        sets={states.EGRESS_SET: policy_set},
        names=CLASSES,
        resolvers=frozenset(node_.addresses(node.outside)),
    )


def resolves(
    resolver: net.Address, count: int, *, first: ipaddress.IPv4Address = FIRST, tcp: bool = False, port: int = PORT
) -> Callable[[], int]:
    """Resolve names of fresh addresses, and send a datagram to each at once; return how many had an answer."""

    def action() -> int:
        answered = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for index in range(count):
                address = first + index
                query = wire.query(server.name_of(address, ZONE), number=index)
                kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
                with socket.socket(traffic.family(resolver), kind) as client:
                    client.settimeout(PATIENCE_S)
                    client.connect((str(resolver), wire.PORT))
                    client.sendall(wire.prefixed(query) if tcp else query)
                    answered += address.packed in client.recv(4096)
                sender.sendto(b"hello", (str(address), port))
        return answered

    return action


def sends(address: net.Address, port: int, seconds: float) -> Callable[[], int]:
    """Send over one connection again and again; answer 0 if all of it was acknowledged, else the errno."""

    def action() -> int:
        end = time.monotonic() + seconds
        with socket.create_connection((str(address), port), timeout=traffic.PATIENCE_SECONDS) as client:
            while time.monotonic() < end:
                client.send(b"still there?")
                time.sleep(GAP_S)
                unacknowledged = fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4))
                if any(unacknowledged):
                    return errno.ETIMEDOUT
        return 0

    return action
