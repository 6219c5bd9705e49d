"""The test node's first pod, which may reach others by name alone, and a resolver outside that it may ask."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable

from agent import desired
from agent.fqdn import classes, patterns
from agent.model import endpoint, identity, net
from tests.bpf import node as node_
from tests.bpf import states, traffic
from tests.bpf.dns import server, wire

PORT, RULE = 8080, 7002
ZONE = "cdn.example.net"
PATIENCE_S = 5.0


def build(*texts: str) -> classes.Classes:
    """Return the classes of these patterns, one policy's each."""
    return classes.build([patterns.parse_cilium_pattern(text)] for text in texts)


def sandboxes(node: node_.Node) -> tuple[endpoint.Sandbox, ...]:
    """Return the pods as the agent finds them on the node."""
    return tuple(
        endpoint.Sandbox(
            namespace="x",
            pod=pod.name,
            uid=f"uid-{index}",
            netns_cookie=pod.cookie,
            veth_ifindex=pod.ifindex,
            ingress_ifindex=pod.ifindex,
            addresses=node_.addresses(pod),
        )
        for index, pod in enumerate(node.pods)
    )


def state(node: node_.Node, names: classes.Classes) -> desired.DesiredState:
    """Isolate the first pod for egress but for DNS and, at PORT, these names; believe the outside host."""
    dns: states.Rows = {
        (identity.WORLD, protocol, wire.PORT, 16): states.ALLOW for protocol in (states.TCP, states.UDP)
    }
    found = states.pods(node, egress=dns)
    opened = {
        desired.RowKey(number, protocol, PORT, 16): desired.Row(states.ALLOW, RULE, 0)
        for number in names.contents
        for protocol in (states.TCP, states.UDP)
    }
    named = found.sets[states.EGRESS_SET]
    named = dataclasses.replace(named, rows={**named.rows, **opened})
    return dataclasses.replace(
        found, sets={named.id: named}, names=names, resolvers=frozenset(node_.addresses(node.outside))
    )


def resolves(resolver: net.Address, *names: str) -> Callable[[], bool]:
    """Ask for each name; answer whether all of them were answered."""

    def action() -> bool:
        with socket.socket(traffic.family(resolver), socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect((str(resolver), wire.PORT))
            for number, name in enumerate(names):
                client.send(wire.query(name, number=number))
                client.recv(4096)
        return True

    return action


def name_of(node: node_.Node, zone: str = ZONE) -> str:
    """Return the name whose address is the outside host's."""
    return server.name_of(node.outside.address4, zone)
