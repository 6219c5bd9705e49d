"""What CAP_NET_ADMIN adds: other addresses on the pod's own interface, and network namespaces behind it.

Everything is undone before the attempt returns.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.system.attacks import aim as aim_
from tests.system.attacks import link, sockets, wire

CLONE_NEWNET = 0x40000000
BROADCAST = b"\xff" * 6
INNER = {4: ("169.254.77.1", "169.254.77.2", 30), 6: ("fd77::1", "fd77::2", 64)}
"""The pod's end, the inner end, and their prefix length."""
ALL_NODES = "ff02::1"
ALL_NODES_MAC = bytes.fromhex("333300000001")
SENDS, PAUSE_S = 5, 0.04
"""A link that was just set up loses what is sent before its queue is, and its namespace dies with the sender."""
OVERRIDE = 0x20000000


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextlib.contextmanager
def _address_added(aim: aim_.Aim) -> Iterator[None]:
    whole = f"{aim.friend}/{32 if aim.family == 4 else 128}"
    flags = ("nodad",) if aim.family == 6 else ()
    _run("ip", "address", "add", whole, "dev", link.INTERFACE, *flags)
    try:
        yield
    finally:
        _run("ip", "address", "del", whole, "dev", link.INTERFACE)


def announce(aim: aim_.Aim) -> None:
    """Tell everybody on the link that the friend's address is here (RFC 5944 4.6, RFC 4861 7.2.6)."""
    mac = link.interface_mac()
    if aim.family == 4:
        for kind in (1, 2):
            message = wire.arp(kind, (mac, aim.friend), (BROADCAST, aim.friend)) + aim.payload
            link.send_frame(wire.ethernet(BROADCAST, mac, wire.ETH_ARP, message))
        return
    options = b"\2\1" + mac + b"\xfd\3" + aim.payload.ljust(22, b"\0")
    body = OVERRIDE.to_bytes(4, "big") + wire.packed(aim.friend) + options
    message = wire.icmp(aim.friend, ALL_NODES, (136, 0), body)
    packet = wire.ip6((aim.friend, ALL_NODES), wire.ICMPV6, message, ttl=255)
    link.send_frame(wire.ethernet(ALL_NODES_MAC, mac, wire.ETH_IPV6, packet))


def take_address_udp(aim: aim_.Aim) -> None:
    """Take the friend's address, announce it and send from it."""
    with _address_added(aim):
        announce(dataclasses.replace(aim, mark=aim_.new_mark()))
        with socket.socket(aim.domain, socket.SOCK_DGRAM) as sock:
            sock.bind((aim.friend, aim.source_port))
            sock.sendto(aim.payload, (aim.victim, aim.port))


def take_address_tcp(aim: aim_.Aim) -> None:
    """Take the friend's address, announce it and connect from it."""
    with _address_added(aim):
        announce(dataclasses.replace(aim, mark=aim_.new_mark()))
        with socket.socket(aim.domain, socket.SOCK_STREAM) as sock:
            sock.settimeout(sockets.PATIENCE_S)
            sock.bind((aim.friend, aim.source_port))
            sock.connect((aim.victim, aim.port))
            sock.sendall(aim.payload)


@contextlib.contextmanager
def _routing(aim: aim_.Aim) -> Iterator[None]:
    """Make the pod a router that hides what is behind it."""
    version = f"ipv{aim.family}"
    switch = pathlib.Path(f"/proc/sys/net/{version}") / ("ip_forward" if aim.family == 4 else "conf/all/forwarding")
    before = switch.read_text()
    switch.write_text("1")
    family = "ip" if aim.family == 4 else "ip6"
    rules = (
        f"table {family} hidden {{ chain out {{ type nat hook postrouting priority 100; oifname {link.INTERFACE} "
        "masquerade; }; }"
    )
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)
    try:
        yield
    finally:
        _run("nft", "delete", "table", family, "hidden")
        switch.write_text(before)


def _inner(aim: aim_.Aim, ready: int, go: int) -> None:
    """Live in a network namespace of its own, whose cookie nobody knows, and send from there."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    os.write(ready, b".")
    os.read(go, 1)
    outer, own, length = INNER[aim.family]
    flags = ("nodad",) if aim.family == 6 else ()
    _run("ip", "address", "add", f"{own}/{length}", "dev", "nwinner", *flags)
    _run("ip", "link", "set", "nwinner", "up")
    _run("ip", "route", "add", "default", "via", outer, "dev", "nwinner")
    with socket.socket(aim.domain, socket.SOCK_DGRAM) as sock:
        sock.bind((own, aim.source_port))
        sock.connect((aim.victim, aim.port))
        for _ in range(SENDS):
            sock.send(aim.payload)
            time.sleep(PAUSE_S)


def nested(aim: aim_.Aim) -> None:
    """Send from a network namespace inside the pod, hidden behind the pod's address."""
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(go[1])
        _become_inner(aim, ready[1], go[0])
    os.close(ready[1])
    status = 0
    try:
        os.read(ready[0], 1)
        outer, _, length = INNER[aim.family]
        flags = ("nodad",) if aim.family == 6 else ()
        _run("ip", "link", "add", "nwouter", "type", "veth", "peer", "name", "nwinner", "netns", str(child))
        _run("ip", "address", "add", f"{outer}/{length}", "dev", "nwouter", *flags)
        _run("ip", "link", "set", "nwouter", "up")
        with _routing(aim):
            os.write(go[1], b".")
            _, status = os.waitpid(child, 0)
            child = 0
    finally:
        for descriptor in (ready[0], go[0], go[1]):
            os.close(descriptor)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status:
        raise OSError(os.waitstatus_to_exitcode(status), "the nested sender failed")


def _become_inner(aim: aim_.Aim, ready: int, go: int) -> None:
    status = errno.EIO
    try:
        _inner(aim, ready, go)
        status = 0
    except OSError as error:
        status = error.errno or errno.EIO
    finally:
        os._exit(status)


ATTACKS = (
    aim_.Attack(name="announces the admitted pod's address", run=announce, neighbours=True),
    aim_.Attack(name="takes the admitted pod's address, UDP", run=take_address_udp),
    aim_.Attack(name="takes the admitted pod's address, TCP", run=take_address_tcp),
    aim_.Attack(name="nested network namespace", run=nested),
)
