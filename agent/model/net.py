"""Addresses, protocols, directions and port ranges.

Host byte order and `ipaddress` objects everywhere; the wire form lives in `datapath/bpf/layout.py`.
IPv4-mapped IPv6 (::ffff:a.b.c.d) is normalised here and nowhere else (rule A24).
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

PORT_MAX = 65535
MAPPED_PREFIX = bytes(10) + b"\xff\xff"


class Protocol(enum.Enum):
    """Transport protocols a policy can name, and those verdicts report; the value is the IANA number."""

    ICMP = 1
    TCP = 6
    UDP = 17
    ICMPV6 = 58
    SCTP = 132
    UDPLITE = 136


class Direction(enum.Enum):
    """Seen from the subject of a policy; the value is what the map rows carry."""

    INGRESS = 1
    EGRESS = 2


class Family(enum.Enum):
    """IP family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports `first` to `last`, both inclusive (rule A9); host byte order."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """Refuse what no caller may build; user input is checked in `decode`."""
        if not 0 <= self.first <= self.last <= PORT_MAX:
            message = f"not a port range: {self.first}-{self.last}"
            raise ValueError(message)

    def __contains__(self, port: int) -> bool:
        """Tell whether `port` lies in the range."""
        return self.first <= port <= self.last


def family_of(address: Address | Network) -> Family:
    """Return the family of an address or network."""
    return Family.IPV4 if address.version == Family.IPV4.value else Family.IPV6


def normalize(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one, any other address unchanged (rule A24)."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def mapped(address: Address) -> bytes:
    """Return 16 bytes in network order, IPv4 as ::ffff:a.b.c.d (RFC 4291 2.5.5.2)."""
    return address.packed if isinstance(address, ipaddress.IPv6Address) else MAPPED_PREFIX + address.packed


def host_network(address: Address) -> Network:
    """Return the /32 or /128 network that holds just `address`."""
    return ipaddress.ip_network(address)
