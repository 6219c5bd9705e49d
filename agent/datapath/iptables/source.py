"""Whether a packet's source address is its sender's, checked in raw PREROUTING: before conntrack and routing.

The order is that of bpf/include/source.h, turned round so that what is honest leaves at the first look-up: the source
is a pod's and came in where that pod is; else a pod's address came in elsewhere, or something else came in by a pod's
own interface: forged. An interface has no set of its own to be in, for ipset takes at most 64 interfaces a network
(AHASH_MAX), so interfaces are found by a tree of names.

On a bridge all pods come in by one interface. Where br_netfilter shows its frames to netfilter, it shows their port
too, and each pod's port has a chain with its addresses; a frame without a port, or by one that is no pod's (an uplink),
goes on as if there were no bridge, and is held against the bridge's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from agent import desired
from agent.datapath.iptables import discovery, dispatch, members, policy, ruleset
from agent.model import net

SOURCE, FORGED = "NW-SOURCE", "NW-FORGED"
_PLACE, _LINK, _VETH = "NW-PLACE", "NW-LINK", "NW-VETH"
_PORT, _PORT_LINK = "NW-PORT", "NW-PORT-LINK"
_NAME = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.@-]{0,14}")
"""Interface names that mean themselves to iptables: no trailing `+`, no quotes."""


class Check:
    """The chains and sets of one family."""

    def __init__(
        self,
        owners: Mapping[net.Address, desired.Endpoint],
        family: net.Family,
        interfaces: Mapping[int, str],
        forged: tuple[ruleset.Rule, ...],
        *,
        has_ports: bool,
    ) -> None:
        """Check the addresses of `owners`; `forged` are the rules for what is forged.

        Endpoints whose interface has no name in `interfaces` are left out: nothing of theirs could be called honest.
        `has_ports`: what a bridge carries is shown to netfilter with its port.
        """
        self._own, self._pods = f"NW{family.value}-OWN", f"NW{family.value}-PODS"
        self._six = family is net.Family.IPV6
        names = {index: name for index, name in interfaces.items() if index and _NAME.fullmatch(name)}
        own: dict[ruleset.Member, bool] = {}
        pods: list[net.Network] = []
        veths: set[str] = set()
        ports: dict[str, list[net.Address]] = {}
        bridges: set[str] = set()
        for address, item in owners.items():
            network = net.host_network(address)
            places = [names[index] for index in (item.ingress_ifindex, item.veth_ifindex) if index in names]
            own.update((ruleset.Member(network, interface=name), True) for name in places)
            if item.ingress_ifindex in names:
                pods.append(network)
            veth, bridge = names.get(item.veth_ifindex), names.get(item.ingress_ifindex)
            if veth and item.ingress_ifindex in (0, item.veth_ifindex):
                veths.add(veth)
            elif veth and bridge and has_ports:
                ports.setdefault(veth, []).append(address)
                bridges.add(bridge)
        contents = {
            self._own: ruleset.SetContent(kind=ruleset.SetKind.NET_INTERFACES, members=own),
            self._pods: ruleset.SetContent(kind=ruleset.SetKind.NETS, members=members.of_networks(pods)),
        }
        self.sets = {name: content for name, content in contents.items() if content.members}
        self._has_veths = bool(veths)
        self.chains = self._chains(sorted(bridges), ports) | {FORGED: forged}
        if veths:
            leaves = dict.fromkeys(sorted(veths), ("-g", FORGED))
            self.chains |= dispatch.tree(_VETH, dispatch.ByInterface(), leaves, ())

    def _chains(self, bridges: Iterable[str], ports: Mapping[str, list[net.Address]]) -> policy.Chains:
        if not self.sets:
            return {SOURCE: ()}
        chains: policy.Chains = {SOURCE: tuple(self._place())}
        if self._six:
            chains[_LINK] = tuple(self._link(("-g", _VETH) if self._has_veths else ()))
        if not ports:
            return chains
        chains[_PLACE] = chains[SOURCE]
        chains[SOURCE] = (
            *(ruleset.Rule(("-i", bridge, "-g", _PORT)) for bridge in bridges),
            ruleset.Rule(("-g", _PLACE)),
        )
        leaves = {}
        for port, addresses in sorted(ports.items()):
            leaf = f"{_PORT}={port}"
            leaves[port] = "-g", leaf
            chains[leaf] = tuple(self._sent_by(addresses))
        chains |= dispatch.tree(_PORT, dispatch.ByPort(), leaves, (ruleset.Rule(("-g", _PLACE)),))
        if self._six:
            chains[_PORT_LINK] = tuple(self._link(("-g", FORGED)))
        return chains

    def _place(self) -> Iterator[ruleset.Rule]:
        """Hold the source against the interface it came in by."""
        if self._six and self._has_veths:
            yield from _routers_only(("-j", _VETH))
        yield ruleset.Rule((*policy.matching_set(self._own, "src,src"), "-j", "RETURN"), (self._own,))
        if self._six:
            yield from _on_link(_LINK)
        if self._pods in self.sets:
            yield ruleset.Rule((*policy.matching_set(self._pods, "src"), "-g", FORGED), (self._pods,))
        if self._has_veths:
            yield ruleset.Rule(("-g", _VETH))

    def _sent_by(self, addresses: Iterable[net.Address]) -> Iterator[ruleset.Rule]:
        """Let pass what a bridge's port may send whose pod has `addresses`."""
        if self._six:
            yield from _routers_only(("-g", FORGED))
        for address in addresses:
            yield ruleset.Rule(("-s", str(net.host_network(address)), "-j", "RETURN"))
        if self._six:
            yield from _on_link(_PORT_LINK)
        yield ruleset.Rule(("-g", FORGED))

    def _link(self, rest: tuple[str, ...]) -> Iterator[ruleset.Rule]:
        yield from discovery.rules(("-j", "RETURN"), on_link=True)
        if rest:
            yield ruleset.Rule(rest)


def _routers_only(target: tuple[str, ...]) -> Iterator[ruleset.Rule]:
    for kind in discovery.ROUTERS_ONLY:
        yield ruleset.Rule((*discovery.neighbour(kind), *target))


def _on_link(chain: str) -> Iterator[ruleset.Rule]:
    for source in discovery.ON_LINK:
        yield ruleset.Rule(("-s", source, *discovery.ICMPV6, "-g", chain))
