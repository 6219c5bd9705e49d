"""The control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler in a network namespace.

Nodes get their pod ranges from us when they are created, not from the controller manager as they come: who has which
addresses, and so every route, is known before anything runs.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping

from tests.cluster import cgroups, commands, fabric, programs, settings

READY_S = 90.0
ETCD = "http://127.0.0.1:2379"
PEER = "http://127.0.0.1:2380"
ALONE = {"leader-elect": "false", "bind-address": "127.0.0.1"}


def start(shape: settings.Shape, *, controllers: bool = True) -> None:
    """Start it, wait for the API server, and announce the nodes. Raises TimeoutError.

    Without controllers and scheduler, objects are only what somebody writes.
    """
    cgroups.make(f"{shape.name}/{fabric.CONTROL}")
    _spawn(shape, "etcd", _etcd(shape))
    _spawn(shape, "kube-apiserver", _api(shape))
    commands.wait("API server", lambda: _ready(shape), limit_s=READY_S)
    if controllers:
        _spawn(shape, "kube-controller-manager", _controllers(shape))
        _spawn(shape, "kube-scheduler", _credentials(shape, "scheduler") | ALONE)
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": member.name},
            "spec": {"podCIDR": member.pod_ranges[0], "podCIDRs": list(member.pod_ranges)},
        }
        for member in shape.members()
    ]
    kubectl(shape, "create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))


def kubectl(shape: settings.Shape, *arguments: str, text: str | None = None, limit_s: float = 300.0) -> str:
    """Run kubectl as administrator and return what it printed. Raises Failed."""
    return commands.run(*kubectl_command(shape), *arguments, text=text, limit_s=limit_s)


def kubectl_command(shape: settings.Shape) -> list[str]:
    """Return how kubectl is run: the API server answers in its own network namespace."""
    inside = ["ip", "netns", "exec", shape.netns(fabric.CONTROL)]
    return [*inside, str(programs.path("kubectl")), "--kubeconfig", str(shape.kubeconfig)]


def _ready(shape: settings.Shape) -> bool:
    return commands.run(*kubectl_command(shape), "get", "--raw", "/readyz", quiet=True) == "ok"


def _spawn(shape: settings.Shape, program: str, flags: Mapping[str, object]) -> None:
    command = ["ip", "netns", "exec", shape.netns(fabric.CONTROL), str(programs.path(program))]
    command += [f"--{name}={value}" for name, value in flags.items()]
    joined = cgroups.inside(f"{shape.name}/{fabric.CONTROL}", command)
    commands.detach(joined, log=shape.state / "log" / f"{program}.log")


def _etcd(shape: settings.Shape) -> dict[str, object]:
    return {
        "data-dir": shape.state / "etcd",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
        "listen-client-urls": ETCD,
        "advertise-client-urls": ETCD,
        "listen-peer-urls": PEER,
        "initial-advertise-peer-urls": PEER,
        "initial-cluster": f"default={PEER}",
        # As kubeadm sets it: bookmarks are no older than this.
        "watch-progress-notify-interval": "5s",
    }


def _api(shape: settings.Shape) -> dict[str, object]:
    keys = shape.state / "pki"
    return {
        "etcd-servers": ETCD,
        "secure-port": settings.API_PORT,
        "bind-address": "0.0.0.0",
        "advertise-address": settings.API_ADDRESS,
        "tls-cert-file": keys / "apiserver.crt",
        "tls-private-key-file": keys / "apiserver.key",
        "client-ca-file": keys / "ca.crt",
        "token-auth-file": keys / "tokens.csv",
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "service-cluster-ip-range": ",".join(settings.SERVICE_RANGES),
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": keys / "accounts.pub",
        "service-account-signing-key-file": keys / "accounts.key",
        "kubelet-client-certificate": keys / "kubelet-client.crt",
        "kubelet-client-key": keys / "kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP",
        "shutdown-delay-duration": "0s",
    }


def _controllers(shape: settings.Shape) -> dict[str, object]:
    return _credentials(shape, "controller-manager") | {
        **ALONE,
        "service-account-private-key-file": shape.state / "pki" / "accounts.key",
        "root-ca-file": shape.state / "pki" / "ca.crt",
        "use-service-account-credentials": "true",
        "allocate-node-cidrs": "false",
        "cluster-cidr": ",".join(settings.POD_RANGES),
        "service-cluster-ip-range": ",".join(settings.SERVICE_RANGES),
    }


def _credentials(shape: settings.Shape, user: str) -> dict[str, object]:
    file: pathlib.Path = shape.state / f"{user}.kubeconfig"
    return {"kubeconfig": file, "authentication-kubeconfig": file, "authorization-kubeconfig": file}
