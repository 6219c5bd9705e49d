"""What the lab's DNS server knows, as names, and as the configuration of dnsmasq.

The problem: requirements are about answers of every shape, and only a real server shapes them as servers do. The rule:
names that stand still are in the configuration, each with its TTL; those that are many are in a hosts file; those that
change are in files of their own, one for each TTL, which servers of their own read again when told, behind the one that
pods ask, which asks them and keeps what they say for its TTL, as a cluster's resolver does. Pure.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping

from agent.model import net

OUTSIDE4, OUTSIDE6 = ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("2001:db8:18::/48")
"""Where all these addresses are: for tests of networks (RFC 2544), and for documentation."""
SEED_RANGE = ipaddress.ip_network("198.51.100.0/24")
FRESH, FRESH_NAMES = "fresh.test", 25_000
FRESH_FIRST = 1 << 14
HOSTS_TTL_S = 60
CDN, CDN_TTLS_S, CDN_NAMES = "cdn.test", (1, 2, 3, 4, 5), 4
CDN_FIRST, CDN_ADDRESSES, CDN_ANSWER = 1 << 13, 1000, 8
SILENT = "silent.test"
"""Nobody answers for names in it."""
NOWHERE_PORT = 5999
CDN_PORT = 5300
"""And the TTL, each zone's server."""
HTTPS = 65


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name with addresses: numbers within OUTSIDE4, and within OUTSIDE6 if it has those, too."""

    name: str
    numbers: tuple[int, ...]
    ttl_s: int = 60
    ipv6: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """A name whose addresses somebody else has chosen."""

    name: str
    addresses: tuple[net.Address, ...]
    ttl_s: int = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A CNAME."""

    name: str
    target: str
    ttl_s: int = 60


def ipv4(number: int) -> ipaddress.IPv4Address:
    """Return the outside address of that number."""
    return ipaddress.IPv4Address(int(OUTSIDE4.network_address) + number)


def ipv6(number: int) -> ipaddress.IPv6Address:
    """Return the outside address of that number."""
    return ipaddress.IPv6Address(int(OUTSIDE6.network_address) + number)


def fresh(index: int) -> str:
    """Return a name that has an address of its own, `fresh_address(index)`."""
    return f"f{index}.{FRESH}"


def fresh_address(index: int) -> ipaddress.IPv4Address:
    """Return that address."""
    return ipv4(FRESH_FIRST + index)


def cdn_names() -> Mapping[int, tuple[str, ...]]:
    """Return the names of the content network by TTL."""
    return {ttl: tuple(f"n{index}.t{ttl}.{CDN}" for index in range(CDN_NAMES)) for ttl in CDN_TTLS_S}


NAMES = (
    Name(name="api.one.test", numbers=(1,), ipv6=True),
    Name(name="two.labels.one.test", numbers=(2,)),
    Name(name="one.test", numbers=(3,)),
    Name(name="a.deep.test", numbers=(4,)),
    Name(name="a.b.deep.test", numbers=(5,)),
    Name(name="deep.test", numbers=(6,)),
    Name(name="s3-eu.infix.test", numbers=(7,)),
    Name(name="s3.infix.test", numbers=(8,)),
    Name(name="xs3.infix.test", numbers=(9,)),
    Name(name="s3.b.infix.test", numbers=(10,)),
    Name(name="exact.test", numbers=(11,)),
    Name(name="www.exact.test", numbers=(12,)),
    Name(name="db.test", numbers=(13,)),
    Name(name="other.test", numbers=(14,)),
    Name(name="target.one.test", numbers=(15,)),
    Name(name="end.elsewhere.example", numbers=(16,), ipv6=True),
    Name(name="hinted.one.test", numbers=(17,)),
    Name(name="shared.one.test", numbers=(19,)),
    Name(name="big.one.test", numbers=tuple(range(1000, 1120))),
    Name(name="split.one.test", numbers=tuple(range(1200, 1320))),
    Name(name="fragments.one.test", numbers=tuple(range(1400, 1520))),
    Name(name="short.one.test", numbers=(20,), ttl_s=1),
    Name(name="zero.one.test", numbers=(21,), ttl_s=0),
    Name(name="brief.one.test", numbers=(22,), ttl_s=1),
    Name(name="lasting.one.test", numbers=(22,), ttl_s=60),
    Name(name="soon.elsewhere.example", numbers=(23,), ttl_s=60),
    Name(name="stream.one.test", numbers=(24,), ttl_s=1),
    Name(name="datagrams.one.test", numbers=(25,), ttl_s=1),
    Name(name="later.test", numbers=(26,)),
    Name(name="gone.one.test", numbers=(27,)),
    Name(name="mine.one.test", numbers=(28,)),
    Name(name="local.one.test", numbers=(29,)),
    Name(name="restart.one.test", numbers=(30,)),
    Name(name="strange.one.test", numbers=(31,)),
    Name(name="raced.one.test", numbers=(32,)),
)
ALIASES = (
    Alias(name="other-alias.test", target="target.one.test"),
    Alias(name="www.one.test", target="edge.shop.example"),
    Alias(name="edge.shop.example", target="end.elsewhere.example"),
    Alias(name="soon.one.test", target="soon.elsewhere.example", ttl_s=1),
)
SEED = tuple(
    Fixed(name=name, addresses=(ipaddress.IPv4Address(f"198.51.100.{number}"),))
    for number, name in enumerate(
        (
            "cilium.io",
            "service1.api.cilium.io",
            "special-eu-service.api.cilium.io",
            "specialservice.api.cilium.io",
            "other.api.cilium.io",
            "special.x.service.api.cilium.io",
            "example.org",
        ),
        start=20,
    )
)
"""The zone of a truth table."""
HINT = 18
"""Hinted at for `hinted.one.test`, whose address is another."""
LOCAL_ZONES = ("test", "example", "cilium.io", "example.org")


def configuration(names: Iterable[Name] = NAMES, aliases: Iterable[Alias] = ALIASES) -> Iterator[str]:
    """Yield the lines that tell the server that pods ask what it knows, but for its hosts file."""
    yield f"local-ttl={HOSTS_TTL_S}"
    yield "cache-size=1000"
    yield "edns-packet-max=4096"
    yield from (f"local=/{zone}/" for zone in LOCAL_ZONES)
    yield f"server=/{SILENT}/127.0.0.1#{NOWHERE_PORT}"
    yield from (f"server=/t{ttl}.{CDN}/127.0.0.1#{CDN_PORT + ttl}" for ttl in CDN_TTLS_S)
    for one in names:
        for number in one.numbers:
            addresses = [str(ipv4(number)), *([str(ipv6(number))] if one.ipv6 else [])]
            yield f"host-record={one.name},{','.join(addresses)},{one.ttl_s}"
    for seed in SEED:
        yield from (f"host-record={seed.name},{address},{seed.ttl_s}" for address in seed.addresses)
    yield from (f"cname={one.name},{one.target},{one.ttl_s}" for one in aliases)
    hint = struct.pack(">HBHH", 1, 0, 4, 4) + ipv4(HINT).packed
    yield f"dns-rr=hinted.one.test,{HTTPS},{hint.hex()}"


def fresh_hosts() -> str:
    """Write the hosts file of the names with an address each."""
    return "".join(f"{fresh_address(index)} {fresh(index)}\n" for index in range(FRESH_NAMES))


def is_cdn(address: str) -> bool:
    """Tell whether an address is the content network's."""
    number = int(ipaddress.ip_address(address)) - int(OUTSIDE4.network_address)
    return CDN_FIRST <= number < CDN_FIRST + CDN_ADDRESSES


def hosts(content: Mapping[str, Iterable[net.Address]]) -> str:
    """Write a hosts file."""
    return "".join(f"{address} {name}\n" for name, addresses in content.items() for address in addresses)
