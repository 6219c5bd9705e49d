"""Answers of a container runtime, written byte by byte as CRI has them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from agent.node.cri import wire

INSIDE = "/var/run/netns/cni-01234567-89ab-cdef-0123-456789abcdef"


def text(field: int, value: str) -> bytes:
    return wire.delimited(field, value.encode())


def sandbox(key: str, pod: str = "a", *, uid: str = "u-1", more: bytes = b"") -> bytes:
    """Write PodSandbox, or the part of PodSandboxStatus that is the same."""
    metadata = text(1, pod) + text(2, uid) + text(3, "x") + wire.number(4, 1)
    state = wire.number(3, 0) + wire.number(4, 1_700_000_000_000_000_000)
    return text(1, key) + wire.delimited(2, metadata) + state + text(7, "runc") + more


def listing(*sandboxes: bytes) -> bytes:
    return b"".join(wire.delimited(1, one) for one in sandboxes)


def status(
    key: str,
    *,
    pod: str = "a",
    addresses: Sequence[str] = ("10.0.0.2", "fd00::2"),
    host_network: bool = False,
    info: str | None = None,
) -> bytes:
    """Write a verbose PodSandboxStatusResponse."""
    network = b"".join(
        (*(text(1, one) for one in addresses[:1]), *(wire.delimited(2, text(1, one)) for one in addresses[1:]))
    )
    options = wire.number(1, 2) if host_network else b""
    linux = wire.delimited(6, wire.delimited(1, wire.delimited(2, options)))
    said = json.dumps(containerd(host_network=host_network)) if info is None else info
    entry = text(1, "info") + text(2, said)
    return wire.delimited(1, sandbox(key, pod, more=wire.delimited(5, network) + linux)) + wire.delimited(2, entry)


def containerd(*, host_network: bool = False) -> dict[str, object]:
    """Return the verbose JSON of containerd 1.6, as far as it matters."""
    kinds: list[dict[str, str]] = [{"type": "pid"}, {"type": "ipc"}]
    if host_network:
        return {"pid": 7, "runtimeSpec": {"linux": {"namespaces": kinds}}, "cniResult": None}
    interfaces = {
        "eth0": {"IPConfigs": [{"IP": "10.0.0.2"}], "Mac": "9e:9e:c8:2a:a2:75", "Sandbox": INSIDE},
        "lo": {"IPConfigs": [{"IP": "127.0.0.1"}], "Sandbox": INSIDE},
        "veth1a2b": {"IPConfigs": None, "Mac": "52:63:b4:13:00:be", "Sandbox": ""},
    }
    spec = {"linux": {"namespaces": [*kinds, {"type": "network", "path": INSIDE}]}}
    return {"pid": 7, "runtimeSpec": spec, "cniResult": {"Interfaces": interfaces}, "netNamespaceClosed": False}


def crio() -> dict[str, object]:
    """Return that of CRI-O, which tells no CNI result."""
    spec = {"linux": {"namespaces": [{"type": "network", "path": INSIDE}]}}
    return {"image": "pause", "pid": 7, "runtimeSpec": spec}
