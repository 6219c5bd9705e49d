"""Whether a packet's source address is its sender's, checked in raw PREROUTING: before conntrack and routing.

The order is that of bpf/include/source.h, turned round so that what is honest leaves at the first look-up: the source
is a pod's and came in where that pod is; else a pod's address came in elsewhere, or something else came in by a pod's
own interface: forged. An interface has no set of its own to be in, for ipset takes at most 64 interfaces a network
(AHASH_MAX), so interfaces are found by a tree of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent import desired
from agent.datapath.iptables import discovery, dispatch, members, policy, ruleset
from agent.model import net

SOURCE, FORGED = "NW-SOURCE", "NW-FORGED"
_LINK, _VETH = "NW-LINK", "NW-VETH"
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
    ) -> None:
        """Check the addresses of `owners`; `forged` are the rules for what is forged.

        Endpoints whose interface has no name in `interfaces` are left out: nothing of theirs could be called honest.
        """
        self._own, self._pods = f"NW{family.value}-OWN", f"NW{family.value}-PODS"
        self._six = family is net.Family.IPV6
        names = {index: name for index, name in interfaces.items() if index and _NAME.fullmatch(name)}
        own: dict[ruleset.Member, bool] = {}
        pods: list[net.Network] = []
        veths: set[str] = set()
        for address, item in owners.items():
            network = net.host_network(address)
            places = [names[index] for index in (item.ingress_ifindex, item.veth_ifindex) if index in names]
            own.update((ruleset.Member(network, interface=name), True) for name in places)
            if item.ingress_ifindex in names:
                pods.append(network)
        for item in owners.values():
            if item.veth_ifindex in names and item.ingress_ifindex in (0, item.veth_ifindex):
                veths.add(names[item.veth_ifindex])
        self._veths = (
            dispatch.tree(_VETH, dispatch.ByInterface(), dict.fromkeys(sorted(veths), ("-g", FORGED)), ())
            if veths
            else {}
        )
        contents = {
            self._own: ruleset.SetContent(kind=ruleset.SetKind.NET_INTERFACES, members=own),
            self._pods: ruleset.SetContent(kind=ruleset.SetKind.NETS, members=members.of_networks(pods)),
        }
        self.sets = {name: content for name, content in contents.items() if content.members}
        self.chains: policy.Chains = {SOURCE: tuple(self._source()), **self._veths, FORGED: forged}
        if self._six and self.sets:
            self.chains[_LINK] = tuple(self._link())

    def _source(self) -> Iterator[ruleset.Rule]:
        if not self.sets:
            return
        if self._six and self._veths:
            for kind in discovery.ROUTERS_ONLY:
                yield ruleset.Rule((*discovery.neighbour(kind), "-j", _VETH))
        yield ruleset.Rule((*policy.matching_set(self._own, "src,src"), "-j", "RETURN"), (self._own,))
        if self._six:
            for source in discovery.ON_LINK:
                yield ruleset.Rule(("-s", source, *discovery.ICMPV6, "-g", _LINK))
        if self._pods in self.sets:
            yield ruleset.Rule((*policy.matching_set(self._pods, "src"), "-g", FORGED), (self._pods,))
        if self._veths:
            yield ruleset.Rule(("-g", _VETH))

    def _link(self) -> Iterator[ruleset.Rule]:
        yield from discovery.rules(("-j", "RETURN"), on_link=True)
        if self._veths:
            yield ruleset.Rule(("-g", _VETH))
