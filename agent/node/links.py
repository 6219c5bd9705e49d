"""Host interfaces of pods, in the agent's own network namespace.

Asked over netlink and not in /sys/class/net, which shows the namespace it was mounted in and not the caller's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from agent.datapath import rtnetlink

VETH = "veth"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An interface of this network namespace."""

    index: int
    kind: str
    """IFLA_INFO_KIND: `veth`, `bridge`; "" for hardware and loopback."""
    master: int
    """IFLA_MASTER, the bridge it hangs on; 0 where there is none."""


def dump() -> Mapping[str, Link]:
    """Return every interface of the caller's network namespace by its name."""
    with rtnetlink.connection() as netlink:
        found = {}
        for message in netlink.link("dump"):
            described = message.get_attr("IFLA_LINKINFO")
            kind = described.get_attr("IFLA_INFO_KIND") if described is not None else None
            master = message.get_attr("IFLA_MASTER")
            found[message.get_attr("IFLA_IFNAME")] = Link(index=message["index"], kind=kind or "", master=master or 0)
    return found


def pod_link(links: Mapping[str, Link], names: Iterable[str]) -> tuple[int, int]:
    """Return (veth, what PRE_ROUTING sees) for a pod whose CNI result names these host interfaces.

    The veth is the one of kind veth (the bridge CNI lists its bridge too). What PRE_ROUTING sees is the bridge it
    hangs on, else the veth itself. (0, 0) where no such interface exists: no source check then, and nobody's verdict
    depends on it.
    """
    for name in names:
        link = links.get(name)
        if link is not None and link.kind == VETH:
            return link.index, link.master or link.index
    return 0, 0
