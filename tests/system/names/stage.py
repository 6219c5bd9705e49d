"""The lab that names are tested on: pods, a cluster's resolver with a real DNS server in it, and a whole world outside.

    x/client, x/neighbour   on node-1, under the policies of the tests
    app-namespace/frontend  on node-1, too, where a policy that is not ours selects it
    kube-system/kube-dns    on node-2, behind the Service that the agents believe without being told
    x/resolver              on node-2, another DNS server with the same names, which nobody has to believe
    host/outside            answers on every address of the networks in `zones`

Agents have a grace of a second, so that a test of what expires takes no minute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from agent import patience
from agent.datapath.bpf import fqdn_layout, rows, syscalls
from agent.lab import lab, orders, plan, resolve
from agent.model import net, verdict
from agent.rpc import client as client_
from tests.support import traffic
from tests.system import conftest, engines, stress
from tests.system.names import client as application
from tests.system.names import dns, resolver, zones

CLIENT, NEIGHBOUR, FRONTEND, KUBE_DNS, RESOLVER, OUTSIDE = (
    "x/client",
    "x/neighbour",
    "app-namespace/frontend",
    "kube-system/kube-dns",
    "x/resolver",
    "host/outside",
)
NODE, FAR = "node-1", "node-2"
PORT, OTHER_PORT = 80, 5432
GRACE_S = 1
FLAGS = (f"--dns-grace={GRACE_S}",)
APPLICATION = application.__name__
UNLEARNED = "what is allowed by name is denied: "
"""How the reason of an agent begins that cannot learn."""
OUTSIDE_ADDRESSES = ("203.0.113.1", "2001:db8:113::1")
REFUSED = application.REFUSED
TOLD_S = 1.0
LOOK_S = 0.02


def pod(name: str, node: str, namespace: str = "x", **labels: str) -> resolve.Document:
    """Return a pod that serves nothing of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example/none"}]},
    }


def namespace(name: str) -> resolve.Document:
    """Return a namespace."""
    labels = {"kubernetes.io/metadata.name": name}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def kube_dns() -> resolve.Document:
    """Return the Service as every distribution has it."""
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"selector": {"k8s-app": "kube-dns"}, "ports": ports},
    }


def outside(name: str, addresses: Sequence[str]) -> resolve.Document:
    """Return a machine outside the cluster."""
    ports = [{"port": port, "protocol": kind} for port in (PORT, OTHER_PORT) for kind in ("TCP", "UDP")]
    spec = {"addresses": list(addresses), "ports": ports}
    return {"apiVersion": "lab.nodewall/v1", "kind": "Host", "metadata": {"name": name}, "spec": spec}


CAST = (
    namespace("x"),
    namespace("kube-system"),
    namespace("app-namespace"),
    pod("client", NODE, app="client"),
    pod("neighbour", NODE, app="client"),
    pod("frontend", NODE, "app-namespace", app="frontend"),
    pod("kube-dns", FAR, "kube-system", **{"k8s-app": "kube-dns"}),
    pod("resolver", FAR, app="resolver"),
    kube_dns(),
    outside("outside", OUTSIDE_ADDRESSES),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running lab, what its DNS servers say, and applications in its pods."""

    lab: lab.Lab
    engine: engines.Engine
    client: traffic.PodProcess
    neighbour: traffic.PodProcess
    server: resolver.Server
    changing: resolver.Cdn
    agent: client_.AgentClient

    @property
    def in_kernel(self) -> bool:
        """Whether the kernel learns by itself; else the agent does, while packets wait."""
        return self.engine.sockets

    def apply(self, *policies: resolve.Document) -> None:
        """Have these policies and no others; return when they are enforced. What was learned before stays."""
        self.lab.apply([*CAST, *policies])

    def ask(self, name: str, *, by: traffic.PodProcess | None = None, **how: Any) -> dict[str, Any]:
        """Have the client resolve a name, of kube-dns unless told otherwise."""
        answer = (by or self.client).ask(do="ask", name=name, **{"resolver": self.resolver, **how})
        assert not answer["failed"], f"{name}: {answer['failed']}"
        return answer

    def reach(self, address: object, port: int = PORT, *, by: traffic.PodProcess | None = None) -> str:
        """Have the client connect; return the outcome."""
        outcome: str = (by or self.client).ask(do="connect", address=str(address), port=port)["outcome"]
        return outcome

    def visit(self, name: str, port: int = PORT, *, by: traffic.PodProcess | None = None, **how: Any) -> set[str]:
        """Have the client resolve a name and connect to each address at once; return the outcomes."""
        addresses = self.ask(name, by=by, **how)["addresses"]
        assert addresses, f"{name} has no address"
        return {self.reach(address, port, by=by) for address in addresses}

    @property
    def resolver(self) -> str:
        """The cluster's resolver, as pods know it: the Service's address."""
        return self.service(net.Family.IPV4)

    def service(self, family: net.Family) -> str:
        """Return the Service's address of a family."""
        service = self.lab.plan.snapshot.services["kube-system", "kube-dns"]
        return next(str(one) for one in service.cluster_addresses if net.family_of(one) is family)

    def address(self, party: str, family: net.Family = net.Family.IPV4) -> str:
        """Return a party's address."""
        return next(str(one) for one in self.lab.plan.addresses(party) if net.family_of(one) is family)

    def learned(self, pod_name: str = "client") -> dict[str, fqdn_layout.Learned]:
        """Return what a pod has learned, by address; of an address's classes the one that lasts longest."""
        endpoint = self.endpoint(pod_name)
        if not self.engine.sockets:
            return self._told_learned(pod_name, endpoint)
        with self.map("fqdn_learned") as descriptor:
            raw = list(rows.dump(descriptor))
        found = [one for key, value in raw for one in fqdn_layout.decode_learned(key, value)]
        mine = sorted((one for one in found if one.endpoint == endpoint), key=lambda one: one.expires_ns)
        return {str(one.address): one for one in mine}

    def _told_learned(self, pod_name: str, endpoint: int) -> dict[str, fqdn_layout.Learned]:
        """Return the same as the agent tells it, where no map has it."""
        found: dict[str, fqdn_layout.Learned] = {}
        for one in self.agent.learned(f"x/{pod_name}"):
            for class_ in sorted(one.classes, key=lambda each: each.expires_s):
                expires_ns = dns.now_ns() + round(class_.expires_s * 1e9)
                found[str(one.address)] = fqdn_layout.Learned(
                    endpoint=endpoint, address=one.address, class_=class_.number, expires_ns=expires_ns
                )
        return found

    def endpoint(self, pod_name: str) -> int:
        """Return a pod's number."""
        return int(next(one.id for one in self.agent.endpoints() if one.pod == pod_name))

    @contextlib.contextmanager
    def map(self, name: str) -> Iterator[int]:
        """Open a map of the pods' node."""
        with syscalls.owned(syscalls.open_pin(self.pin(name))) as descriptor:
            yield descriptor

    def pin(self, name: str) -> pathlib.Path:
        """Return where a map of the pods' node is."""
        (found,) = (self.lab.paths.bpffs / "nodewall" / NODE).rglob(name)
        return found

    def counted(self, metric: str, **labels: str) -> float:
        """Return a metric of the pods' agent."""
        wanted = labels.items()
        return sum(
            one.value for one in self.agent.metrics() if one.name == metric and wanted <= dict(one.labels).items()
        )

    def told(
        self, address: str, since_ns: int, kind: verdict.Verdict = verdict.Verdict.DROPPED
    ) -> list[verdict.VerdictEvent]:
        """Return what the agent tells of the client's attempts to reach an address since a moment of Unix time."""
        deadline = time.monotonic() + patience.seconds(TOLD_S)
        while True:
            stored = self.agent.watch_verdicts(follow=False, last=200, wanted=verdict.Filter(verdict=kind))
            events = [one for one in stored if isinstance(one, verdict.VerdictEvent)]
            found = [one for one in events if str(one.destination.address) == address and one.time_ns >= since_ns]
            if found or time.monotonic() > deadline:
                return found
            time.sleep(LOOK_S)

    def class_of(self, name: str) -> int:
        """Return the class by which the client learns a name's address."""
        answer = self.ask(name)
        return self.learned()[answer["addresses"][0]].class_


def cilium(*rules: Mapping[str, Any], name: str = "names", app: str = "client") -> resolve.Document:
    """Return a CiliumNetworkPolicy that lets pods ask kube-dns, and has these rules."""
    kube = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}
    observed = {"dns": [{"matchPattern": "*"}]}
    asking = {
        "toEndpoints": [{"matchLabels": kube}],
        "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": observed}],
    }
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, "egress": [asking, *rules]},
    }


def by_name(*patterns: str, port: int = PORT, protocol: str = "TCP") -> dict[str, Any]:
    """Return a rule of that: names, those with stars as patterns, on a port."""
    selectors = [{"matchPattern" if "*" in one else "matchName": one} for one in patterns]
    return {"toFQDNs": selectors, "toPorts": [{"ports": [{"port": str(port), "protocol": protocol}]}]}


def by_network(network: str, port: int) -> dict[str, Any]:
    """Return a rule of that: a network, on a port."""
    return {"toCIDR": [network], "toPorts": [{"ports": [{"port": str(port), "protocol": "ANY"}]}]}


def cluster(*names: str, port: int = PORT) -> list[resolve.Document]:
    """Return a ClusterNetworkPolicy for those names, and a NetworkPolicy that leaves nothing else but kube-dns."""
    accept = {
        "action": "Accept",
        "to": [{"domainNames": list(names)}],
        "protocols": [{"tcp": {"destinationPort": {"number": port}}}],
    }
    subject = {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}}
    admin = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "names"},
        "spec": {"tier": "Admin", "priority": 10, "subject": subject, "egress": [accept]},
    }
    to_dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {}}
    asking = {"to": [to_dns], "ports": [{"port": 53, "protocol": kind} for kind in ("UDP", "TCP")]}
    rest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "dns-alone", "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [asking]},
    }
    return [admin, rest]


def answer_everywhere(running: lab.Lab, party: str, networks: Sequence[net.Network]) -> None:
    """Have a machine outside answer on every address of networks, once more if it is not the first time."""
    own = {net.family_of(address): address for address in running.plan.addresses(party)}
    port = plan.link_name("h", party.partition("/")[2])
    namespaces = orders.party_netns(party, running.plan, running.paths), running.paths.fabric
    for network in networks:
        via = own[net.Family(network.version)]
        ways = (f"local {network} dev lo", f"{network} via {via} dev {port} onlink")
        for netns, way in zip(namespaces, ways, strict=True):
            subprocess.run(["nsenter", f"--net={netns}", "ip", "route", "replace", *way.split()], check=True)


def restart(running: lab.Lab, *nodes: str, by: signal.Signals = signal.SIGKILL) -> None:
    """End agents and start them again, with a short grace; `Lab.apply` waits until they enforce."""
    stress.end_agents(running, *nodes, by=by)
    stress.start_agents(running, *nodes, flags=FLAGS)


def skip_without_a_queue(running: lab.Lab) -> None:
    """Kernels have NFQUEUE in iptables, in nftables, in both or neither; the agent says what it found."""
    with client_.AgentClient(running.paths.agent_socket(NODE)) as agent:
        lacking = [reason for reason in agent.status().mode_reasons if reason.startswith(UNLEARNED)]
    if lacking:
        pytest.skip(lacking[0])


@contextlib.contextmanager
def built(combination: engines.Combination, directory: pathlib.Path) -> Iterator[Stage]:
    """Build all of it."""
    families = list(net.Family)
    name = conftest.lab_name("names")
    with (
        combination.engine.lab(name, combination.topology, families=families) as running,
        contextlib.ExitStack() as stack,
    ):
        running.down()
        running.up([*CAST])
        conftest.check_engine(running, combination.engine)
        if combination.engine == engines.NFT:
            skip_without_a_queue(running)
        restart(running, NODE)
        running.apply([*CAST])
        answer_everywhere(running, OUTSIDE, (zones.OUTSIDE4, zones.OUTSIDE6, zones.SEED_RANGE))
        servers = {
            party: stack.enter_context(resolver.serving(running, party, directory / party.replace("/", "-")))
            for party in (KUBE_DNS, RESOLVER)
        }
        changing = stack.enter_context(resolver.changing(running, KUBE_DNS, directory / "cdn"))
        applications = [
            stack.enter_context(traffic.PodProcess(running, one, APPLICATION)) for one in (CLIENT, NEIGHBOUR)
        ]
        agent = stack.enter_context(client_.AgentClient(running.paths.agent_socket(NODE)))
        yield Stage(
            lab=running,
            engine=combination.engine,
            client=applications[0],
            neighbour=applications[1],
            server=servers[KUBE_DNS],
            changing=changing,
            agent=agent,
        )


def expires_ns(answer: Mapping[str, Any], ttl_s: int | None = None) -> tuple[int, int]:
    """Return between which moments of the kernel's clock what an answer opened closes."""
    lasts_ns = ((answer["ttl_s"] if ttl_s is None else ttl_s) + GRACE_S) * 1_000_000_000
    return answer["sent_ns"] + lasts_ns, answer["received_ns"] + lasts_ns


def sleep_until(moment_ns: int) -> None:
    """Sleep until a moment of the kernel's clock."""
    time.sleep(max(0.0, (moment_ns - dns.now_ns()) / 1e9))
