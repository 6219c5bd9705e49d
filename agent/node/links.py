"""Host interfaces of pods, in the agent's own network namespace; the one place here that names pyroute2.

Asked over netlink and not in /sys/class/net, which shows the namespace it was mounted in and not the caller's.

`import pyroute2` loads every protocol that package knows, a database and SQLite: 10 MiB in every agent, which asks for
interfaces and nothing else. What speaks rtnetlink is half of it, and is imported beneath a parent that stays empty.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

VETH = "veth"


def _rtnetlink() -> Any:
    """Import the module of IPRoute; `pyroute2` stays what it was, or is imported whole by whoever wants it."""
    spec = importlib.util.find_spec("pyroute2")
    if "pyroute2" in sys.modules or spec is None:
        return importlib.import_module("pyroute2.iproute.linux")
    parent = ModuleType("pyroute2")
    parent.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["pyroute2"] = parent
    try:
        return importlib.import_module("pyroute2.iproute.linux")
    finally:
        del sys.modules["pyroute2"]


_linux = _rtnetlink()


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
    with _linux.IPRoute() as netlink:
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
