"""How a pod can answer its own question in the resolver's name (requirements F12 and F12b). Runs in the pod.

It asks for a name that nobody answers for, which is a true question, and then puts a complete answer in front of its
own socket: over the loopback interface with a raw socket (CAP_NET_RAW), over a pair of interfaces it makes itself
(CAP_NET_ADMIN), or out of its own interface, to itself.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Mapping

from tests.bpf import packets
from tests.bpf.dns import wire
from tests.system.names import dns

WAIT_S = 1.0
SETTLE_S = 0.1
OWN, PEER = "own0", "own1"
HARDWARE = "02:00:00:00:00:01"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """A question, and the address that a forged answer to it has."""

    resolver: str
    own: str
    """The pod's own address."""
    name: str
    address: str
    port: int
    number: int = 0x1234

    def packet(self) -> bytes:
        """Return the answer."""
        message = wire.answer(self.name, wire.address(ipaddress.ip_address(self.address)), number=self.number)
        source, own = ipaddress.ip_address(self.resolver), ipaddress.ip_address(self.own)
        return packets.udp(source, own, self.port, payload=message, sport=dns.PORT)


def _over_loopback(one: Forgery) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(one.packet(), (one.own, 0))


def _over_own_pair(one: Forgery) -> None:
    for words in (f"add {OWN} type veth peer name {PEER}", f"set {PEER} address {HARDWARE} up", f"set {OWN} up"):
        subprocess.run(["ip", "link", *words.split()], check=True)
    try:
        _believe_everybody()
        time.sleep(SETTLE_S)
        _send_frame(one, OWN, bytes.fromhex(HARDWARE.replace(":", "")))
        time.sleep(SETTLE_S)
    finally:
        subprocess.run(["ip", "link", "del", OWN], check=True)


def _out_of_eth0(one: Forgery) -> None:
    """Send it to the own hardware address, and to everybody: somebody on the way may turn it round."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        own: bytes = raw.getsockname()[4]
    for hardware in (own, bytes([255] * 6)):
        _send_frame(one, "eth0", hardware)


def routed(one: Forgery) -> bool:
    """Send it to another pod, as a packet like any other; nobody here waits for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(one.packet(), (one.own, 0))
    return False


def _send_frame(one: Forgery, interface: str, hardware: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
        raw.sendto(one.packet(), (interface, 0x0800, 0, 0, hardware))


def _believe_everybody() -> None:
    """Have this namespace take packets from anywhere."""
    for path in pathlib.Path("/proc/sys/net/ipv4/conf").glob("*"):
        for switch, value in (("rp_filter", "0"), ("accept_local", "1")):
            (path / switch).write_text(value)


def _tried(send: Callable[[Forgery], None]) -> Callable[[Forgery], bool]:
    def action(one: Forgery) -> bool:
        _believe_everybody()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("", one.port))
            client.settimeout(WAIT_S)
            client.sendto(dns.query(one.name, dns.A, number=one.number), (one.resolver, dns.PORT))
            time.sleep(SETTLE_S)
            send(one)
            try:
                return one.address in dns.read(client.recv(dns.LONGEST)).addresses
            except TimeoutError:
                return False

    return action


WAYS: Mapping[str, Callable[[Forgery], bool]] = {
    "loopback": _tried(_over_loopback),
    "own pair": _tried(_over_own_pair),
    "eth0": _tried(_out_of_eth0),
    "routed": routed,
}
