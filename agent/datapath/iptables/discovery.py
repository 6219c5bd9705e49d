"""Neighbour and multicast listener discovery, as rules of ip6tables.

Without them there is no IPv6 (rule A41). They never leave a link, which the hop limit proves: 255, so nobody routed
the packet (RFC 4861 6.1), or 1 from a link-local address or none, so nobody will (RFC 3810 5). With any other they are
no discovery but data, and judged; so says `packet_is_discovery` in bpf/include/packet.h too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agent.datapath.iptables import ruleset

ICMPV6 = ("-p", "ipv6-icmp")
ON_LINK = ("fe80::/10", "::/128")
"""Link-local sources, and none at all."""
ROUTERS_ONLY = (134, 137)
"""Router advertisement and redirect: a pod is no router (RFC 6104, CVE-2020-10749)."""
_NEIGHBOURS = range(133, 138)
_NEIGHBOUR_HOPS = 255
_LISTENERS = (130, 131, 132, 143)
_LISTENER_HOPS = 1


def neighbour(kind: int) -> tuple[str, ...]:
    """Match one type of neighbour discovery."""
    return _message(kind, _NEIGHBOUR_HOPS)


def rules(target: Sequence[str], *, on_link: bool = False) -> Iterator[ruleset.Rule]:
    """Send every message of discovery to `target`; `on_link`: the source is already known to be link-local or none."""
    for kind in _NEIGHBOURS:
        yield ruleset.Rule((*neighbour(kind), *target))
    for kind in _LISTENERS:
        for source in (None,) if on_link else ON_LINK:
            chosen = ("-s", source) if source else ()
            yield ruleset.Rule((*chosen, *_message(kind, _LISTENER_HOPS), *target))


def _message(kind: int, hops: int) -> tuple[str, ...]:
    return *ICMPV6, "-m", "icmp6", "--icmpv6-type", str(kind), "-m", "hl", "--hl-eq", str(hops)
