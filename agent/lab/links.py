"""The network of a lab as lines for `ip -batch` and `bridge -batch`: links, addresses, routes. Pure.

The fabric is a router with a bridge for the nodes and a link to each host. Addresses are /32 and /128 with explicit
routes nearly everywhere, so that whatever addresses a manifest states can be built. The fabric knows the way to every
pod, so hosts reach pods, and pods hosts, without address translation: a policy sees who really talks.

`ip -batch` beats pyroute2 here: one process a namespace instead of one netlink round trip a line, half the time, and
the lines can be read, tested and typed in by hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from agent.lab import plan, rundir
from agent.model import net

FABRIC_GATEWAY = {net.Family.IPV4: "169.254.0.1", net.Family.IPV6: "fe80::f0"}
"""The fabric as nodes and hosts see it: link-local, so it can be no address of the manifests."""
POD_GATEWAY = {net.Family.IPV4: "169.254.1.1", net.Family.IPV6: "fe80::1"}
"""The node as its routed pods see it."""
BITS = {net.Family.IPV4: 32, net.Family.IPV6: 128}
BRIDGE = "cni0"
TUNNEL = "vxlan0"
TUNNEL_MTU = 1430
"""1500 less the outer IPv6, UDP, VXLAN and Ethernet headers."""
QUIET: dict[str, str] = {
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/dad_transmits": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
"""Addresses are usable at once, and nothing but policy drops a packet for its source."""
ROUTER: dict[str, str] = QUIET | {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # refusals are ICMP errors, and a lab provokes hundreds at once
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv4/icmp_msgs_per_sec": "1000000",
    "net/ipv4/icmp_msgs_burst": "1000000",
    "net/ipv6/icmp/ratelimit": "0",
}
FABRIC: dict[str, str] = ROUTER | {
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a batch, and the network namespace it belongs to."""

    netns: str
    text: str
    program: str = "ip"


def node_sysctls(topology: plan.Topology) -> Mapping[str, str]:
    """Return what a node needs: it routes, and on a bridge its netfilter sees bridged packets and it proxies ARP."""
    if topology is not plan.Topology.BRIDGE:
        return ROUTER
    return ROUTER | {
        "net/bridge/bridge-nf-call-iptables": "1",
        "net/bridge/bridge-nf-call-ip6tables": "1",
        "net/ipv4/conf/all/proxy_arp": "1",
        "net/ipv6/conf/all/proxy_ndp": "1",
    }


@dataclasses.dataclass(frozen=True, slots=True)
class Links:
    """Renders the links of one plan, `layout`; `paths` says where the namespaces are."""

    layout: plan.LabPlan
    paths: rundir.RunDirectory

    def fabric(self) -> Iterator[Line]:
        """Yield the router in the middle."""
        netns = str(self.paths.fabric)
        yield Line(netns=netns, text="link set lo up")
        yield Line(netns=netns, text=f"link add nodes0 address {plan.mac('fabric')} type bridge")
        yield Line(netns=netns, text="link set nodes0 up")
        yield from _gateway(netns, "nodes0", FABRIC_GATEWAY)

    def node(self, node: plan.NodePlan) -> Iterator[Line]:
        """Yield a node's link to the fabric, its routes to the other nodes, and its tunnel or bridge."""
        fabric, own = str(self.paths.fabric), str(self.paths.node_netns(node.name))
        port = plan.link_name("n", node.name)
        yield Line(netns=fabric, text=f"link add {port} type veth peer name eth0 netns {own}")
        yield Line(netns=fabric, text=f"link set {port} master nodes0 up")
        for address in node.addresses:
            yield Line(netns=fabric, text=f"route replace {_host(address)} dev nodes0")
        yield Line(netns=own, text="link set lo up")
        yield Line(netns=own, text="link set eth0 up")
        yield from _leaf(own, "eth0", node.addresses, FABRIC_GATEWAY)
        for other in self.layout.nodes.values():
            for address in other.addresses if other != node else ():
                yield Line(netns=own, text=f"route replace {_host(address)} dev eth0{_source(node, address)}")
        if self.layout.topology is plan.Topology.VXLAN:
            yield from self._tunnel(node)
        if self.layout.topology is plan.Topology.BRIDGE:
            yield Line(netns=own, text=f"link add {BRIDGE} address {plan.mac(node.name + BRIDGE)} type bridge")
            yield Line(netns=own, text=f"link set {BRIDGE} up")

    def _tunnel(self, node: plan.NodePlan) -> Iterator[Line]:
        own, local = str(self.paths.node_netns(node.name)), node.addresses[0]
        kind = f"type vxlan id 42 dstport 4789 local {local} dev eth0 nolearning"
        yield Line(netns=own, text=f"link add {TUNNEL} address {plan.mac(node.name)} mtu {TUNNEL_MTU} {kind}")
        yield Line(netns=own, text=f"link set {TUNNEL} up")
        for other in self.layout.nodes.values():
            outer = other.address(net.family_of(local))
            if other == node or outer is None:
                continue
            mac = plan.mac(other.name)
            yield Line(netns=own, program="bridge", text=f"fdb append {mac} dev {TUNNEL} dst {outer}")
            for family in dict.fromkeys(map(net.family_of, other.addresses)):
                text = f"neigh replace {_tunnel_end(other, family)} lladdr {mac} dev {TUNNEL} nud permanent"
                yield Line(netns=own, text=text)

    def host(self, host: plan.HostPlan) -> Iterator[Line]:
        """Yield a host's link to the fabric."""
        fabric, own = str(self.paths.fabric), str(self.paths.host_netns(host.name))
        port = plan.link_name("h", host.name)
        yield Line(netns=fabric, text=f"link add {port} type veth peer name eth0 netns {own}")
        yield Line(netns=fabric, text=f"link set {port} up")
        yield from _gateway(fabric, port, FABRIC_GATEWAY)
        for address in host.addresses:
            yield Line(netns=fabric, text=f"route replace {_host(address)} dev {port}")
        yield Line(netns=own, text="link set lo up")
        yield Line(netns=own, text="link set eth0 up")
        yield from _leaf(own, "eth0", host.addresses, FABRIC_GATEWAY)

    def pod(self, pod: plan.PodPlan) -> Iterator[Line]:
        """Yield a pod's veth, and the routes to it from everywhere."""
        node = self.layout.nodes[pod.node]
        outer, own = str(self.paths.node_netns(pod.node)), str(self.paths.pod_netns(pod.node, pod.container))
        # by address, as the bridge CNI does: who knows the neighbour finds the pod's successor, too
        mac = plan.mac(str(pod.addresses[0]))
        yield Line(netns=outer, text=f"link add {pod.veth} type veth peer name eth0 address {mac} netns {own}")
        yield Line(netns=own, text="link set lo up")
        if self.layout.topology is plan.Topology.VXLAN:
            yield Line(netns=own, text=f"link set eth0 mtu {TUNNEL_MTU}")
        yield Line(netns=own, text="link set eth0 up")
        if self.layout.topology is plan.Topology.BRIDGE:
            yield from _bridged(pod, node, outer, own)
        else:
            yield Line(netns=outer, text=f"link set {pod.veth} up")
            yield from _gateway(outer, pod.veth, POD_GATEWAY)
            for address in pod.addresses:
                yield Line(netns=outer, text=f"route replace {_host(address)} dev {pod.veth}{_source(node, address)}")
            yield from _leaf(own, "eth0", pod.addresses, POD_GATEWAY)
        yield from self._ways(pod, node)

    def pod_gone(self, pod: plan.PodPlan) -> Iterator[Line]:
        """Yield what takes a pod's links and routes away; some may be gone with its namespace."""
        fabric = str(self.paths.fabric)
        yield Line(netns=str(self.paths.node_netns(pod.node)), text=f"link del {pod.veth}")
        for address in pod.addresses:
            yield Line(netns=fabric, text=f"route del {_host(address)}")
            for name in self.layout.nodes:
                if name != pod.node:
                    yield Line(netns=str(self.paths.node_netns(name)), text=f"route del {_host(address)}")

    def host_gone(self, host: plan.HostPlan) -> Iterator[Line]:
        """Yield what takes a host's link away."""
        yield Line(netns=str(self.paths.fabric), text=f"link del {plan.link_name('h', host.name)}")

    def _ways(self, pod: plan.PodPlan, node: plan.NodePlan) -> Iterator[Line]:
        """Yield the routes to a pod from the fabric and from the other nodes."""
        for address in pod.addresses:
            via = node.address(net.family_of(address))
            if via is None:
                continue
            route = f"route replace {_host(address)}"
            yield Line(netns=str(self.paths.fabric), text=f"{route} via {via} dev nodes0 onlink")
            for other in self.layout.nodes.values():
                if other == node:
                    continue
                netns = str(self.paths.node_netns(other.name))
                way = f"via {via} dev eth0"
                if self.layout.topology is plan.Topology.VXLAN:
                    way = f"via {_tunnel_end(node, net.family_of(address))} dev {TUNNEL}"
                yield Line(netns=netns, text=f"{route} {way} onlink{_source(other, address)}")
                shared = any(address in gateway.network for gateway in other.gateways)
                if shared and net.family_of(address) is net.Family.IPV6:
                    yield Line(netns=netns, text=f"neigh replace proxy {address} dev {BRIDGE}")


def _tunnel_end(node: plan.NodePlan, family: net.Family) -> object:
    """Return the next hop inside the tunnel: IPv6 refuses one it would reach by another link, as the node's address."""
    if family is net.Family.IPV6:
        return f"fe80::{plan.mac(node.name)[-5:].replace(':', '')}"
    return node.address(family)


def _bridged(pod: plan.PodPlan, node: plan.NodePlan, outer: str, own: str) -> Iterator[Line]:
    """Yield a pod on the bridge: on-link to its subnet, the bridge as gateway, hairpin on as kubelet wants it."""
    yield Line(netns=outer, text=f"link set {pod.veth} master {BRIDGE} up")
    yield Line(netns=outer, text=f"link set {pod.veth} type bridge_slave hairpin on")
    for address in pod.addresses:
        gateway = next(gateway for gateway in node.gateways if address in gateway.network)
        yield Line(netns=outer, text=f"addr replace {gateway} dev {BRIDGE}{_nodad(gateway.ip)}")
        prefix = f"{address}/{gateway.network.prefixlen}"
        yield Line(netns=own, text=f"addr add {prefix} dev eth0{_nodad(address)}")
        yield Line(netns=own, text=f"route add default via {gateway.ip} dev eth0")


def _gateway(netns: str, device: str, gateways: Mapping[net.Family, str]) -> Iterator[Line]:
    yield Line(netns=netns, text=f"addr add {gateways[net.Family.IPV4]}/32 dev {device} scope link")
    yield Line(netns=netns, text=f"addr add {gateways[net.Family.IPV6]}/64 dev {device} nodad")


def _leaf(
    netns: str, device: str, addresses: tuple[net.Address, ...], gateways: Mapping[net.Family, str]
) -> Iterator[Line]:
    """Yield addresses and, for each family that has one, the default route."""
    for address in addresses:
        yield Line(netns=netns, text=f"addr add {_host(address)} dev {device}{_nodad(address)}")
    for family in dict.fromkeys(map(net.family_of, addresses)):
        gateway = gateways[family]
        if family is net.Family.IPV4:
            yield Line(netns=netns, text=f"route add {gateway}/32 dev {device} scope link")
        yield Line(netns=netns, text=f"route add default via {gateway} dev {device}")


def _host(address: net.Address) -> str:
    return f"{address}/{BITS[net.family_of(address)]}"


def _nodad(address: net.Address) -> str:
    return " nodad" if net.family_of(address) is net.Family.IPV6 else ""


def _source(node: plan.NodePlan, address: net.Address) -> str:
    """Return the source the node uses towards `address`: its own address, not a link-local one."""
    own = node.address(net.family_of(address))
    return f" src {own}" if own is not None else ""
