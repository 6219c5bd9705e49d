"""How the runtime of a node connects pods: a list of CNI plugins, which it reads again when it changes."""

from __future__ import annotations

import ipaddress
import json

from tests.cluster import bed, commands, settings

NAME = "nodewall-cluster"
ADDRESSES = "/run/cni-addresses"
"""Where host-local keeps who has which address; of the node's own /run."""
POOL = 200
"""The first host number of a small pool: below it are those that pods got before."""


def write(shape: settings.Shape, member: settings.Member, *, pool: int = 0) -> None:
    """Write it; `pool` is how many addresses of a family there are, 0 for all of the node's."""
    plugin: dict[str, object] = {"type": shape.cni.value, "ipMasq": False}
    if shape.cni is settings.Cni.BRIDGE:
        plugin |= {"bridge": "cni0", "isGateway": True, "hairpinMode": True}
    ranges = [[_range(subnet, pool)] for subnet in member.pod_ranges]
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    plugin["ipam"] = {"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": ADDRESSES}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    content = {"cniVersion": "0.4.0", "name": NAME, "plugins": [plugin, ports]}
    path = shape.state / member.name / "cni" / "10-cluster.conflist"
    whole = path.with_suffix(".new")
    whole.write_text(json.dumps(content, indent=1))
    whole.rename(path)


def pool(member: settings.Member, size: int) -> frozenset[str]:
    """Return the IPv4 addresses of a small pool."""
    first = ipaddress.ip_network(member.pod_ranges[0])[POOL]
    return frozenset(str(first + number) for number in range(size))


def taken(cluster: bed.Bed, member: settings.Member) -> frozenset[str]:
    """Return the addresses of the node that pods have."""
    return frozenset(commands.run(*cluster.entering(member.name), "ls", f"{ADDRESSES}/{NAME}").split())


def _range(subnet: str, size: int) -> dict[str, str]:
    if not size:
        return {"subnet": subnet}
    first = ipaddress.ip_network(subnet)[POOL]
    return {"subnet": subnet, "rangeStart": str(first), "rangeEnd": str(first + size - 1)}
