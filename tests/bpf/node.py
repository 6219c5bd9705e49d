"""A node small enough to see through: a network namespace with veths to pods and to an outside host.

The calling thread lives in the node's namespace while the fixture lasts, as the agent does. Pods are
namespaces held by a descriptor; what they do runs in forked children inside the node's cgroup.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import ipaddress
import json
import os
import pathlib
import pickle
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import TypeVar

from agent.datapath import probe
from agent.model import net

CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71
GATEWAY4, GATEWAY6 = "10.244.1.1", "fd00:244:1::1"
OUTSIDE4, OUTSIDE6 = ipaddress.ip_address("203.0.113.2"), ipaddress.ip_address("2001:db8:113::2")
CHILD_SECONDS = 20

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A namespace behind a veth of the node."""

    name: str
    namespace: int
    cookie: int
    ifindex: int
    mac: bytes
    """Of the node's side: where the guest sends what shall be routed."""
    address4: ipaddress.IPv4Address
    address6: ipaddress.IPv6Address
    cgroup: pathlib.Path

    def run(self, action: Callable[[], T]) -> T:
        """Run `action` in the namespace, in a child of the node's cgroup; its exception is raised here."""
        with self.started(action) as result:
            return result()

    @contextlib.contextmanager
    def started(self, action: Callable[[], T]) -> Iterator[Callable[[], T]]:
        """Start `action` likewise; the value waits for its result. It is killed at the end of the block."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            self._child(action, writing)
        os.close(writing)
        try:
            yield lambda: _result(reading)
        finally:
            os.close(reading)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _child(self, action: Callable[[], T], writing: int) -> None:
        try:
            signal.alarm(CHILD_SECONDS)
            (self.cgroup / "cgroup.procs").write_text(str(os.getpid()))
            _setns(self.namespace)
            try:
                outcome: object = action()
            except OSError as error:
                outcome = error
            os.write(writing, pickle.dumps(outcome))
            signal.pause()
        finally:
            os._exit(1)


def _result(reading: int) -> T:  # type: ignore[type-var]  # what the child was asked for
    outcome: object = pickle.loads(os.read(reading, 1 << 16))  # noqa: S301 - from our own child
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome  # type: ignore[return-value]  # likewise


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The node and its guests."""

    cgroup: pathlib.Path
    pods: tuple[Guest, ...]
    outside: Guest


@contextlib.contextmanager
def running(*, pods: int = 2, bridge: bool = False) -> Iterator[Node]:
    """Make a node and live in it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    cgroup = probe.cgroup_root(None) / f"nodewall-test-{os.getpid()}"
    namespaces: list[int] = []
    cgroup.mkdir()
    try:
        _unshare()
        _sysctl("net/ipv4/ip_forward", "1")
        _sysctl("net/ipv6/conf/all/forwarding", "1")
        _sysctl("net/ipv6/conf/default/accept_dad", "0")
        ip("link set lo up")
        if bridge:
            _make_bridge()
        guests = []
        for index in range(pods):
            namespaces.append(_namespace())
            guests.append(_pod(index, namespaces[-1], cgroup, bridge=bridge))
        namespaces.append(_namespace())
        yield Node(cgroup=cgroup, pods=tuple(guests), outside=_outside(namespaces[-1], cgroup))
    finally:
        _setns(home)
        for descriptor in (home, *namespaces):
            os.close(descriptor)
        cgroup.rmdir()


def _make_bridge() -> None:
    ip("link add cni0 type bridge")
    ip("link set cni0 up")
    ip(f"addr add {GATEWAY4}/24 dev cni0")
    ip(f"addr add {GATEWAY6}/64 dev cni0 nodad")


def _pod(index: int, namespace: int, cgroup: pathlib.Path, *, bridge: bool) -> Guest:
    four, six = f"10.244.1.{10 + index}", f"fd00:244:1::{10 + index:x}"
    name, bits4, bits6 = f"veth{index}", 24 if bridge else 32, 64 if bridge else 128
    _veth(name, namespace)
    if bridge:
        ip(f"link set {name} master cni0")
    else:
        ip(f"addr add {GATEWAY4}/32 dev {name}", f"addr add {GATEWAY6}/128 dev {name} nodad")
        ip(f"route add {four} dev {name}", f"route add {six} dev {name}")

    def inside() -> None:
        ip(f"addr add {four}/{bits4} dev eth0", f"addr add {six}/{bits6} dev eth0 nodad")
        if not bridge:
            ip(f"route add {GATEWAY4} dev eth0", f"route add {GATEWAY6} dev eth0")
        ip(f"route add default via {GATEWAY4}", f"-6 route add default via {GATEWAY6}")

    within(namespace, inside)
    return _guest(f"pod{index}", name, namespace, (four, six, cgroup), router="cni0" if bridge else "")


def _outside(namespace: int, cgroup: pathlib.Path) -> Guest:
    _veth("uplink", namespace)
    ip("addr add 203.0.113.1/24 dev uplink", "addr add 2001:db8:113::1/64 dev uplink nodad")

    def inside() -> None:
        ip(f"addr add {OUTSIDE4}/24 dev eth0", f"addr add {OUTSIDE6}/64 dev eth0 nodad")
        ip("route add default via 203.0.113.1", "-6 route add default via 2001:db8:113::1")

    within(namespace, inside)
    return _guest("outside", "uplink", namespace, (str(OUTSIDE4), str(OUTSIDE6), cgroup))


def _veth(name: str, namespace: int) -> None:
    ip(f"link add {name} type veth peer name eth0 netns /proc/{os.getpid()}/fd/{namespace}")
    within(namespace, lambda: ip("link set lo up", "link set eth0 up"))
    ip(f"link set {name} up")


def _guest(name: str, veth: str, namespace: int, home: tuple[str, str, pathlib.Path], *, router: str = "") -> Guest:
    four, six, cgroup = home
    return Guest(
        name=name,
        namespace=namespace,
        cookie=within(namespace, netns_cookie),
        ifindex=socket.if_nametoindex(veth),
        mac=mac_of(router or veth),
        address4=ipaddress.IPv4Address(four),
        address6=ipaddress.IPv6Address(six),
        cgroup=cgroup,
    )


def mac_of(interface: str) -> bytes:
    """Return the hardware address of an interface of the caller's namespace."""
    shown = subprocess.run(["ip", "-j", "link", "show", interface], check=True, capture_output=True, text=True)
    return bytes.fromhex(json.loads(shown.stdout)[0]["address"].replace(":", ""))


def netns_cookie() -> int:
    """Return the cookie of the caller's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    cookie: int = struct.unpack("=Q", raw)[0]
    return cookie


def within(namespace: int, action: Callable[[], T]) -> T:
    """Run `action` in this thread, in another namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(namespace)
        return action()
    finally:
        _setns(home)
        os.close(home)


def ip(*commands: str) -> None:
    """Run the ip command once for each line."""
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def addresses(guest: Guest) -> tuple[net.Address, ...]:
    """Return both addresses."""
    return guest.address4, guest.address6


def _namespace() -> int:
    """Return a descriptor of a fresh network namespace."""

    def fresh() -> int:
        _unshare()
        _sysctl("net/ipv6/conf/default/accept_dad", "0")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fresh()
    finally:
        _setns(home)
        os.close(home)


def _unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _setns(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _sysctl(name: str, value: str) -> None:
    (pathlib.Path("/proc/sys") / name).write_text(value)
