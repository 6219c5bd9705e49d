"""Small manifests for the lab's tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]


def pod(name: str, *, node: str = "node-1", address: str = "", ports: tuple[str, ...] = (), **spec: Any) -> Document:
    """Return a pod in namespace x; a port is written 80/TCP."""
    containers = [{"name": "c", "ports": [_port(text) for text in ports]}]
    status = {"podIP": address, "podIPs": [{"ip": address}]} if address else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": containers, **spec},
        "status": status,
    }


def service(name: str, *, app: str, port: int, target: int, **spec: Any) -> Document:
    """Return a Service for the pods labelled app=`app`, TCP and UDP."""
    ports = [
        {"name": protocol.lower(), "port": port, "targetPort": target, "protocol": protocol}
        for protocol in ("TCP", "UDP")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"selector": {"app": app}, "ports": ports, **spec},
    }


def host(name: str, *addresses: str, ports: tuple[str, ...] = ()) -> Document:
    """Return a machine outside the cluster."""
    listed = [{"port": int(text.split("/")[0]), "protocol": text.split("/")[1]} for text in ports]
    return {
        "apiVersion": "lab.nodewall/v1",
        "kind": "Host",
        "metadata": {"name": name},
        "spec": {"addresses": list(addresses), "ports": listed},
    }


def node(name: str, *addresses: str, ranges: tuple[str, ...] = ()) -> Document:
    """Return a node with InternalIPs."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {"podCIDRs": list(ranges)} if ranges else {},
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }


def _port(text: str) -> Mapping[str, object]:
    number, _, protocol = text.partition("/")
    return {"containerPort": int(number), "protocol": protocol}
