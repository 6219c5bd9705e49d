"""Proof that the packet programs judge, and which of them were seen at their hooks.

The problem: what becomes of forwarded packets shows only in network namespaces, which take CAP_SYS_ADMIN. The rule:
what can be shown without is shown, and the rest is not claimed. The programs of FORWARD are run on packets
(BPF_PROG_TEST_RUN) by the live maps. The source check is seen at work: a datagram of ours with a foreign source crosses
the loopback interface, and does not once the rows say whose that source is. Where it never does, for a node's firewall
may stop it, nothing is said against the check. All else is known from links that are new, or whose priority is taken
(`links`).

The rows use documentation addresses, as sources only: no packet but ours has them. What crosses the interface goes to
a socket of ours, so that nobody answers to such an address. The check counts what it drops, one of each family.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import pathlib
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from agent import errors
from agent.datapath import plan
from agent.datapath.bpf import layout, links, maps, syscalls
from agent.model import net

SET_WITHOUT_ROWS = 1
"""As `selftest.SET_OF_PROBE`."""
SUBJECT4 = ipaddress.IPv4Address("192.0.2.1")
PEER4 = ipaddress.IPv4Address("192.0.2.2")
SUBJECT6 = ipaddress.IPv6Address("2001:db8::1")
PEER6 = ipaddress.IPv6Address("2001:db8::2")
SUBJECTS: tuple[net.Address, ...] = (SUBJECT4, SUBJECT6)
PORT = 9
NF_DROP = 0
NF_ACCEPT = 1
NO_INTERFACE = 0x7FFFFFFF
"""No interface has this index."""
PATIENCE_SECONDS, DENIED_SECONDS = 0.5, 0.05
"""How long to look for a datagram that shall arrive, and for one that must not."""
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
"""Lets a socket with CAP_NET_ADMIN have any source (linux/in.h, linux/in6.h)."""

Rows: TypeAlias = tuple[plan.Table, Mapping[Any, Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class PacketProof:
    """Tests the pinned packet programs of one node against its live maps, once they are attached."""

    maps: maps.Maps
    programs: pathlib.Path

    def run(self) -> tuple[str, ...]:
        """Return what was shown and how, a line each. Raises NotSupported where a program does not enforce."""
        denied = plan.EndpointSlot(ingress_set=SET_WITHOUT_ROWS, egress_set=SET_WITHOUT_ROWS, held=False)
        number = (layout.ENDPOINT_PROBE, layout.ENDPOINT_PROBE)
        arriving = [program for program, family in SOURCE_CHECKS.items() if _arrives(family, within=PATIENCE_SECONDS)]
        with rows(
            self.maps,
            (plan.Table.ENDPOINTS, {layout.ENDPOINT_PROBE: endpoint(denied, ingress_ifindex=NO_INTERFACE)}),
            (plan.Table.EP_BY_IP, dict.fromkeys(SUBJECTS, number)),
        ):
            self._judge()
            seen = [program for program in arriving if self._stops(SOURCE_CHECKS[program])]
        unseen = [hook.program for hook in links.HOOKS if hook.program not in seen]
        return (
            "by function: nw_forward4 and nw_forward6 dropped a packet that the maps deny, and passed another",
            *([f"by function: {', '.join(seen)} dropped what we forged"] if seen else []),
            f"by their links alone: {', '.join(unseen)} are attached to this network namespace",
        )

    def _stops(self, family: socket.AddressFamily) -> bool:
        """Tell whether the source check, and not a slow machine, keeps a forged datagram away."""
        before = self.maps.counters()["spoofed"]
        return not _arrives(family, within=DENIED_SECONDS) and self.maps.counters()["spoofed"] > before

    def _judge(self) -> None:
        for program, packet, expected in (
            ("nw_forward4", packet4(SUBJECT4, PEER4), NF_DROP),
            ("nw_forward4", packet4(PEER4, PEER4), NF_ACCEPT),
            ("nw_forward6", packet6(SUBJECT6, PEER6), NF_DROP),
            ("nw_forward6", packet6(PEER6, PEER6), NF_ACCEPT),
        ):
            with syscalls.owned(syscalls.open_pin(self.programs / program)) as descriptor:
                answer = syscalls.program_test_run(descriptor, packet).verdict
            if answer != expected:
                raise errors.NotSupported(
                    feature=f"the packet layer ({program} answered {answer} for {expected})",
                    needs="BPF netfilter programs as of Linux 6.4",
                )


SOURCE_CHECKS = {"nw_source4": socket.AF_INET, "nw_source6": socket.AF_INET6}


@contextlib.contextmanager
def rows(into: maps.Maps, *content: Rows) -> Iterator[None]:
    """Have rows, written in this order and removed in the other."""
    with contextlib.ExitStack() as undo:
        for table, written in content:
            undo.callback(into.delete, table, frozenset(written))
            into.upsert(table, written)
        yield


def endpoint(slot: plan.EndpointSlot, *, ingress_ifindex: int = 0) -> plan.EndpointValue:
    """Return an endpoint that is the same in both generations."""
    return plan.EndpointValue(slots=(slot, slot), ingress_ifindex=ingress_ifindex)


def packet4(source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address) -> bytes:
    """Return an empty UDP datagram in IPv4."""
    udp = struct.pack(">HHHH", PORT, PORT, 8, 0)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return header + source.packed + destination.packed + udp


def packet6(source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address) -> bytes:
    """Return an empty UDP datagram in IPv6."""
    udp = struct.pack(">HHHH", PORT, PORT, 8, 0)
    return struct.pack(">IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64) + source.packed + destination.packed + udp


def _arrives(family: socket.AddressFamily, *, within: float) -> bool:
    """Forge a datagram to an address of the node's own, which goes by the loopback interface, and wait for it."""
    six = family is socket.AF_INET6
    own, source = ("::1", SUBJECT6) if six else (_own_address4(), SUBJECT4)
    option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT) if six else (socket.IPPROTO_IP, IP_TRANSPARENT)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as hears, socket.socket(family, socket.SOCK_DGRAM) as sends:
            hears.bind((own, 0))
            hears.settimeout(within)
            sends.setsockopt(*option, 1)
            sends.bind((str(source), 0))
            sends.sendto(b"nodewall", hears.getsockname())
            return bool(hears.recv(16))
    except OSError:  # it did not come; or no address of that family, or a firewall that refuses
        return False


def _own_address4() -> str:
    """Return the address that the node speaks from, for kubelet's rules forbid others to speak to 127.0.0.0/8."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect((str(PEER4), PORT))
        except OSError:  # no route
            return "127.0.0.1"
        return str(unsent.getsockname()[0])
