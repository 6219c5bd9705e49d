"""From two plans, what is and what shall be, to the orders for `runner.py`. Pure.

Nothing in the old plan: everything is built. A pod is rebuilt when anything about its sandbox is another, as a
runtime would do; a policy change orders nothing at all.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.lab import links, plan, proxy, rundir
from agent.model import net

Orders = dict[str, list[dict[str, Any]]]

RESTORE = {
    net.Family.IPV4: ("iptables-nft-restore", "iptables-legacy-restore"),
    net.Family.IPV6: ("ip6tables-nft-restore", "ip6tables-legacy-restore"),
}
"""In this order; the first that the machine has and the kernel obeys."""
XTABLES_LOCKFILE = "XTABLES_LOCKFILE"
"""What the iptables commands take their lock's path from."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs between two plans of one lab; nodes cannot differ, save that there were none before."""

    old: plan.LabPlan | None
    new: plan.LabPlan
    gone_pods: tuple[plan.PodPlan, ...]
    gone_hosts: tuple[plan.HostPlan, ...]
    new_pods: tuple[plan.PodPlan, ...]
    new_hosts: tuple[plan.HostPlan, ...]

    @property
    def services(self) -> bool:
        """Whether the chains of Services have to be written."""
        return self.old is None or _fronts(self.old) != _fronts(self.new)


def compare(old: plan.LabPlan | None, new: plan.LabPlan) -> Change:
    """Return what differs; parties that are the same in every respect stay as they are."""
    pods, hosts = (old.pods, old.hosts) if old is not None else ({}, {})
    return Change(
        old=old,
        new=new,
        gone_pods=tuple(pod for party, pod in pods.items() if new.pods.get(party) != pod),
        gone_hosts=tuple(host for party, host in hosts.items() if new.hosts.get(party) != host),
        new_pods=tuple(pod for party, pod in new.pods.items() if pods.get(party) != pod),
        new_hosts=tuple(host for party, host in new.hosts.items() if hosts.get(party) != host),
    )


def tear_down(change: Change, paths: rundir.RunDirectory) -> Orders:
    """Order the links and routes of what is gone away."""
    if change.old is None:
        return {}
    rendered = links.Links(change.old, paths)
    lines = [rendered.pod_gone(pod) for pod in change.gone_pods if not pod.host_network]
    lines += [rendered.host_gone(host) for host in change.gone_hosts]
    return {"batches": batches(itertools.chain.from_iterable(lines))}


def build(change: Change, paths: rundir.RunDirectory, iptables: str = "auto") -> Orders:
    """Order everything that is new; `tear_down` comes before it. `iptables`: which variant Services are made with."""
    fresh, new = change.old is None, change.new
    rendered = links.Links(new, paths)
    namespaces: list[dict[str, Any]] = []
    lines: list[Iterable[links.Line]] = []
    if fresh:
        namespaces.append(_namespace(paths.fabric, links.FABRIC))
        lines.append(rendered.fabric())
        for node in new.nodes.values():
            namespaces.append(_namespace(paths.node_netns(node.name), links.node_sysctls(new.topology)))
            lines.append(rendered.node(node))
    for host in change.new_hosts:
        namespaces.append(_namespace(paths.host_netns(host.name), links.QUIET))
        lines.append(rendered.host(host))
    isolated = [pod for pod in change.new_pods if not pod.host_network]
    for pod in isolated:
        namespaces.append(_namespace(paths.pod_netns(pod.node, pod.container), links.QUIET))
        lines.append(rendered.pod(pod))
    return {
        "namespaces": namespaces,
        "batches": batches(itertools.chain.from_iterable(lines)),
        "restores": restores(change, paths, iptables),
        "files": [file for pod in isolated for file in cni_files(pod, new, paths)],
        "processes": [*_node_servers(change, paths), *_pod_servers(change, paths)],
    }


def batches(lines: Iterable[links.Line]) -> list[dict[str, Any]]:
    """Gather lines by namespace and program, in the order each namespace first comes up."""
    gathered: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        gathered.setdefault((line.netns, line.program), []).append(line.text)
    return [{"program": program, "netns": netns, "lines": texts} for (netns, program), texts in gathered.items()]


def restores(change: Change, paths: rundir.RunDirectory, iptables: str = "auto") -> list[dict[str, Any]]:
    """Order the chains of Services on every node; the jumps into them only on new nodes."""
    if not change.services:
        return []
    found = []
    for node in change.new.nodes.values():
        for family, commands in RESTORE.items():
            own = [address for address in node.addresses if net.family_of(address) is family]
            texts = [proxy.render(proxy.frontends(change.new.snapshot, family), own)]
            if change.old is None:
                texts.insert(0, proxy.render_hooks())
            netns = str(paths.node_netns(node.name))
            locked = ["env", f"{XTABLES_LOCKFILE}={paths.xtables_lock(node.name)}"]
            wanted_first = sorted(commands, key=lambda command: f"-{iptables}-" not in command)
            alternatives = [[*locked, command, "--noflush", "-w"] for command in wanted_first]
            found += [{"commands": alternatives, "netns": netns, "text": text} for text in texts]
    return found


def cni_files(pod: plan.PodPlan, lab: plan.LabPlan, paths: rundir.RunDirectory) -> list[dict[str, str]]:
    """Return the entries libcni would have written for a pod's loopback and eth0."""
    directory, netns = paths.cni_results(pod.node), str(paths.pod_netns(pod.node, pod.container))
    outside = [{"name": pod.veth}]
    if lab.topology is plan.Topology.BRIDGE:
        outside.insert(0, {"name": links.BRIDGE})
    addresses = [
        {"address": f"{address}/{_prefix(address, lab.topology)}", "interface": len(outside)}
        for address in pod.addresses
    ]
    loopback = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": netns}], "dns": {}}
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [*outside, {"name": "eth0", "sandbox": netns}],
        "ips": addresses,
        "dns": {},
    }
    entries = ("cni-loopback", "lo", loopback), ("nodewall-lab", "eth0", result)
    return [
        {
            "path": str(directory / f"{network}-{pod.container}-{interface}"),
            "text": json.dumps(_cache_entry(pod, network, interface, netns, content)),
        }
        for network, interface, content in entries
    ]


def pod_cgroup(pod: plan.PodPlan, paths: rundir.RunDirectory) -> pathlib.Path:
    """Return a pod's cgroup, in kubelet's layout."""
    return paths.node_cgroup(pod.node) / "kubepods" / "besteffort" / f"pod{pod.uid}"


def party_netns(party: str, lab: plan.LabPlan, paths: rundir.RunDirectory) -> pathlib.Path:
    """Return the network namespace a party lives in; InvalidInput if there is no such party."""
    lab.addresses(party)
    if party in lab.hosts:
        return paths.host_netns(lab.hosts[party].name)
    if party not in lab.pods:
        return paths.node_netns(party.partition("/")[2])
    pod = lab.pods[party]
    return paths.node_netns(pod.node) if pod.host_network else paths.pod_netns(pod.node, pod.container)


def party_cgroup(party: str, lab: plan.LabPlan, paths: rundir.RunDirectory) -> pathlib.Path:
    """Return the cgroup of a party's processes; InvalidInput if there is no such party."""
    lab.addresses(party)
    if party in lab.hosts:
        return paths.cgroup / "outside" / plan.key(party)
    if party not in lab.pods:
        return paths.node_cgroup(party.partition("/")[2]) / "system" / "kubelet"
    return pod_cgroup(lab.pods[party], paths) / lab.pods[party].container


def _cache_entry(
    pod: plan.PodPlan, network: str, interface: str, netns: str, result: Mapping[str, object]
) -> dict[str, object]:
    arguments = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": pod.container,
        "K8S_POD_UID": pod.uid,
    }
    return {
        "kind": "cniCacheV1",
        "containerId": pod.container,
        "ifName": interface,
        "networkName": network,
        "cniArgs": [list(pair) for pair in arguments.items()],
        "netns": netns,
        "result": result,
    }


def _prefix(address: net.Address, topology: plan.Topology) -> int:
    return plan.subnet(address).prefixlen if topology is plan.Topology.BRIDGE else links.BITS[net.family_of(address)]


def _namespace(path: pathlib.Path, sysctls: Mapping[str, str]) -> dict[str, Any]:
    return {"path": str(path), "sysctls": dict(sysctls)}


def _fronts(lab: plan.LabPlan) -> list[list[proxy.Frontend]]:
    return [proxy.frontends(lab.snapshot, family) for family in net.Family]


def _node_servers(change: Change, paths: rundir.RunDirectory) -> list[dict[str, Any]]:
    """Return the processes that probe from nodes, as kubelet does."""
    parties = [f"node/{name}" for name in change.new.nodes] if change.old is None else []
    return [_server(party, (), change.new, paths) for party in parties]


def _pod_servers(change: Change, paths: rundir.RunDirectory) -> list[dict[str, Any]]:
    parties: Sequence[plan.PodPlan | plan.HostPlan] = (*change.new_pods, *change.new_hosts)
    return [_server(party.party, party.ports, change.new, paths) for party in parties]


def _server(
    party: str, ports: Iterable[tuple[int, net.Protocol]], lab: plan.LabPlan, paths: rundir.RunDirectory
) -> dict[str, Any]:
    return {
        "name": party,
        "netns": str(party_netns(party, lab, paths)),
        "cgroup": str(party_cgroup(party, lab, paths)),
        "log": str(paths.log),
        "server": {
            "name": party,
            "path": str(paths.server_socket(plan.key(party))),
            "ports": [[number, protocol.name] for number, protocol in ports],
        },
    }
