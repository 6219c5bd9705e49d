"""The source check at each pod's veth, as nft text for the netdev family.

At ingress of the veth a frame is seen before bridging and reassembly, where raw PREROUTING sees the bridge and whole
datagrams. Same rules as bpf/include/source.h and bpf/tc_source.bpf.c, a chain a veth with its pod's addresses in it:

  ARP                       the sender's protocol address is the pod's own, or none (a probe, RFC 5227)
  IPv4, IPv6                the source is the pod's own; discovery also link-local or none
  router advertisement, redirect       never: a pod is no router
  neighbour advertisement   the target is the pod's own address, or link-local
  hop limit 255 behind headers that cannot be followed: dropped; it may be such an advertisement
  anything else, and tagged frames: dropped; nobody behind here could check their source

A chain that denies by policy would drop everything from the moment its hook is there until the commit, so the last
rule drops and the policy accepts. A fragment of ICMPv6 with hop limit 255 is dropped: RFC 6980 forbids such discovery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent.datapath.iptables import prefix
from agent.model import endpoint, net

TABLE = "nodewall"
"""The table, family netdev."""
PRIORITY = -500
LOG_BYTES = 128
"""Of each forged packet."""
_ETHERTYPES = "0x0800, 0x0806, 0x86dd"
_ETHERTYPE, _ARP_SENDER, _ADVERTISED, _ADVERTISED_PREFIX = "@ll,96,16", "@nh,112,32", "@th,64,128", "@th,64,10"
"""Written as offsets and lengths in bits: nft's own names look behind a tag, or are unknown to older releases."""
_LINK_LOCAL = "0x3fa"
"""The ten bits of fe80::/10."""
_ON_LINK = ("fe80::/10", "::")
_LINK, _FORGED = "link", "forged"


def render(sandboxes: Sequence[endpoint.Sandbox], interfaces: Mapping[int, str], generation: int) -> str:
    """Return a transaction for `nft -f` that puts exactly the checks of `sandboxes` in place; "": there are none.

    Pods whose veth has no name in `interfaces` are left out.
    """
    addresses: dict[int, set[net.Address]] = {}
    for sandbox in sandboxes:
        if sandbox.veth_ifindex and _is_plain(interfaces.get(sandbox.veth_ifindex, "")):
            addresses.setdefault(sandbox.veth_ifindex, set()).update(sandbox.addresses)
    if not addresses:
        return ""
    chains = {_FORGED: _forged(generation), _LINK: _link()}
    chains |= {f"veth{index}": _chain(interfaces[index], own) for index, own in sorted(addresses.items())}
    lines = [f"table netdev {TABLE}", f"delete table netdev {TABLE}", f"table netdev {TABLE} {{"]
    for name, rules in chains.items():
        lines += [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
    lines.append("}")
    return "\n".join(lines) + "\n"


def removal() -> str:
    """Return a transaction for `nft -f` that removes the table; that it is not there is no error."""
    return f"table netdev {TABLE}\ndelete table netdev {TABLE}\n"


def _is_plain(name: str) -> bool:
    """Whether nft reads the name as it stands, between quotes."""
    return name.isascii() and name.isprintable() and bool(name) and not set(name) & set('"*\\')


def _chain(name: str, own: set[net.Address]) -> Iterator[str]:
    four = sorted(address for address in own if address.version == net.Family.IPV4.value)
    six = sorted(address for address in own if address.version == net.Family.IPV6.value)
    yield f'type filter hook ingress device "{name}" priority {PRIORITY}; policy accept;'
    if four:
        yield f"ip saddr {_one_of(map(str, four))} {_ETHERTYPE} 0x0800 accept"
    yield f"{_ETHERTYPE} != {{ {_ETHERTYPES} }} drop"
    yield f"meta protocol arp {_ARP_SENDER} {_one_of(('0x0', *map(_number, four)))} accept"
    if six:
        yield from _own_six(_one_of(map(str, six)), _one_of(map(_number, six)))
    yield from (f"ip6 saddr {source} goto {_LINK}" for source in _ON_LINK)
    yield f"goto {_FORGED}"


def _own_six(own: str, targets: str) -> Iterator[str]:
    """Let pass what is no discovery by its source alone; look at what may be."""
    yield f"ip6 saddr {own} ip6 hoplimit != 255 accept"
    yield f"ip6 saddr {own} meta l4proto != icmpv6 accept"
    yield f"ip6 saddr {own} icmpv6 type != {{ 134, 136, 137 }} accept"
    yield f"ip6 saddr {own} icmpv6 type 136 {_ADVERTISED_PREFIX} {_LINK_LOCAL} accept"
    for source in (own, *_ON_LINK):
        yield f"ip6 saddr {source} ip6 hoplimit 255 icmpv6 type 136 {_ADVERTISED} {targets} accept"


def _link() -> Iterator[str]:
    """Let discovery pass whose source is link-local or none (RFC 4861, RFC 3810)."""
    yield "ip6 hoplimit 255 icmpv6 type { 133, 135 } accept"
    yield f"ip6 hoplimit 255 icmpv6 type 136 {_ADVERTISED_PREFIX} {_LINK_LOCAL} accept"
    yield "ip6 hoplimit 1 icmpv6 type { 130, 131, 132, 143 } accept"
    yield f"goto {_FORGED}"


def _one_of(values: Iterable[str]) -> str:
    """Write a choice; of one, without the set that nft would make for it."""
    listed = tuple(values)
    return listed[0] if len(listed) == 1 else f"{{ {', '.join(listed)} }}"


def _number(address: net.Address) -> str:
    return f"{int(address):#x}"


def _forged(generation: int) -> Iterator[str]:
    note = prefix.Prefix(generation, prefix.Note.FORGED)
    yield f'log prefix "{note}" group {prefix.GROUP} snaplen {LOG_BYTES}'
    yield "drop"
