"""The wires: a network namespace for each member, joined by a bridge in a namespace of its own."""

from __future__ import annotations

import json

from tests.cluster import commands, settings

CONTROL = "cp"
SWITCH = "fabric"


def make(shape: settings.Shape) -> None:
    """Join the control plane and every node."""
    switch = shape.netns(SWITCH)
    commands.every(
        ("ip", "netns", "add", switch),
        ("ip", "-n", switch, "link", "set", "lo", "up"),
        ("ip", "-n", switch, "link", "add", "br0", "type", "bridge"),
        ("ip", "-n", switch, "link", "set", "br0", "up"),
    )
    _join(shape, CONTROL, (settings.API_ADDRESS, settings.API_ADDRESS6))
    for member in shape.members():
        _join(shape, member.name, member.addresses)
        # Every real node has a default route; without one its own processes cannot even dial a ClusterIP.
        for family, way in (("-4", settings.API_ADDRESS), ("-6", settings.API_ADDRESS6)):
            commands.run("ip", family, "-n", shape.netns(member.name), "route", "add", "default", "via", way)
        for other in shape.members():
            if other is not member and other.number != member.number:
                for pods, way in zip(other.pod_ranges, other.addresses, strict=True):
                    commands.run("ip", "-n", shape.netns(member.name), "route", "add", pods, "via", way)


def remove(name: str) -> None:
    """Remove the namespaces of a cluster, and with them their links."""
    for known in json.loads(commands.run("ip", "-j", "netns", "list") or "[]"):
        if known["name"].startswith(f"{name}-"):
            commands.run("ip", "netns", "del", known["name"])


def _join(shape: settings.Shape, member: str, addresses: tuple[str, str]) -> None:
    own, switch = shape.netns(member), shape.netns(SWITCH)
    commands.every(
        ("ip", "netns", "add", own),
        ("ip", "-n", own, "link", "set", "lo", "up"),
        ("ip", "link", "add", own, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", own),
        ("ip", "-n", switch, "link", "set", own, "master", "br0", "up"),
        ("ip", "-n", own, "addr", "add", f"{addresses[0]}/24", "dev", "eth0"),
        ("ip", "-n", own, "addr", "add", f"{addresses[1]}/64", "dev", "eth0", "nodad"),
        ("ip", "-n", own, "link", "set", "eth0", "up"),
    )
