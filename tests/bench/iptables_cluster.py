"""10,000 policies and 100,000 addresses, as one node with 200 pods sees them.

Two settings. SPREAD is a cluster: a policy a deployment, and few of them select pods of this node. CROWDED has every
policy select pods of this node, fifty a pod; no peer is named twice, so that all addresses are members of something.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
from collections.abc import Iterator, Mapping

from agent import desired, snapshot
from agent.model import endpoint, labels, net, resources
from agent.policy import compiler

POLICIES, REPLICAS, LOCAL, DEPLOYMENTS_HERE = 10_000, 10, 200, 100
OPEN, CLOSED = 7000, 7001
"""On OPEN the client may talk to the server, TCP and UDP; CLOSED is in no policy."""
CLIENT, SERVER = ipaddress.IPv4Address("10.244.1.10"), ipaddress.IPv4Address("10.244.1.11")
NODE = "node-0"
PORTS = (80, 443, 3306, 5432, 6379, 8080, 8443, 9090, 9200)
REMOTE = int(ipaddress.IPv4Address("100.64.0.0"))


class Setting(enum.Enum):
    """Where the policies' subjects are; the value is for tables."""

    SPREAD = "cluster-wide"
    CROWDED = "all select local pods"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A snapshot, and which of its pods are here: client and server first."""

    snapshot: snapshot.Snapshot
    local: tuple[resources.Pod, ...]


def build(setting: Setting, policies: int = POLICIES) -> Cluster:
    """Make the cluster; `policies` counts all but those of the client and the server, which are there in any case."""
    items, local = (_spread if setting is Setting.SPREAD else _crowded)(policies)
    return Cluster(snapshot=snapshot.build(items), local=tuple(local))


def sandboxes(cluster: Cluster, interfaces: Mapping[str, int]) -> tuple[endpoint.Sandbox, ...]:
    """Return the sandboxes of the local pods; `interfaces` are their veths by name, `veth<number>`."""
    return tuple(
        endpoint.Sandbox(
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            netns_cookie=1000 + number,
            veth_ifindex=interfaces[f"veth{number}"],
            ingress_ifindex=interfaces[f"veth{number}"],
            addresses=pod.addresses,
        )
        for number, pod in enumerate(cluster.local)
    )


def compile_for(cluster: Cluster, interfaces: Mapping[str, int]) -> desired.DesiredState:
    """Compile what the node enforces."""
    node = endpoint.NodeView(name=NODE, sandboxes=sandboxes(cluster, interfaces))
    return compiler.compile_node(cluster.snapshot, node).state


def edited(cluster: Cluster, port: int) -> Cluster:
    """Return the cluster with the client's policy allowing `port` besides."""
    ref = resources.ObjectRef("NetworkPolicy", cluster.local[0].namespace, "of-client")
    policy = cluster.snapshot.policies[ref]
    (rule,) = policy.egress
    wider = dataclasses.replace(rule, ports=(*(rule.ports or ()), _port(net.Protocol.TCP, port)))
    policies = {**cluster.snapshot.policies, ref: dataclasses.replace(policy, egress=(wider,))}
    return dataclasses.replace(cluster, snapshot=dataclasses.replace(cluster.snapshot, policies=policies))


def _spread(policies: int) -> tuple[list[resources.Resource], list[resources.Pod]]:
    """Make ten deployments a namespace; each may be reached by its predecessor and by one of another namespace."""
    items: list[resources.Resource] = list(_ends("ns-0", "app"))
    local = [item for item in items if isinstance(item, resources.Pod)]
    step = max(policies // (LOCAL - len(local)), 1)
    for number in range(policies):
        namespace, app = f"ns-{number // 10}", f"a{number % 10}"
        neighbours = (_peer(None, f"a{(number - 1) % 10}"), _peer(f"ns-{number * 7 % (policies // 10)}", app))
        followers = (_peer(None, f"a{(number + 1) % 10}"), _peer(f"ns-{number * 3 % (policies // 10)}", app))
        ports = (_port(net.Protocol.TCP, PORTS[number % len(PORTS)]),)
        ingress, egress = _rule(neighbours, ports), _rule(followers, ports)
        items.append(_policy(namespace, f"of-{app}", app, ingress=ingress, egress=egress))
        for replica in range(REPLICAS):
            here = replica == 0 and number % step == 0 and len(local) < LOCAL
            pod = _pod(namespace, app, number * REPLICAS + replica, here=len(local) if here else None)
            items.append(pod)
            if here:
                local.append(pod)
    return items, local


def _crowded(policies: int) -> tuple[list[resources.Resource], list[resources.Pod]]:
    """Make a hundred deployments here, each with its part of the policies; each policy has its own peer elsewhere."""
    items: list[resources.Resource] = list(_ends("local", "app"))
    local = [item for item in items if isinstance(item, resources.Pod)]
    for number in range(LOCAL - len(local)):
        local.append(_pod("local", f"a{number % DEPLOYMENTS_HERE}", number, here=len(local)))
    items += local
    for number in range(policies):
        rule = _rule((_peer("remote", f"p{number}"),), (_port(net.Protocol.TCP, PORTS[number % len(PORTS)]),))
        app = f"a{number % DEPLOYMENTS_HERE}"
        if number // DEPLOYMENTS_HERE % 2:
            items.append(_policy("local", f"policy-{number}", app, egress=rule))
        else:
            items.append(_policy("local", f"policy-{number}", app, ingress=rule))
        items += [_pod("remote", f"p{number}", number * REPLICAS + replica) for replica in range(REPLICAS)]
    return items, local


def _ends(namespace: str, key: str) -> Iterator[resources.Resource]:
    """Client and server, and the policies that let one reach the other."""
    for number, (name, address) in enumerate((("client", CLIENT), ("server", SERVER))):
        yield resources.Pod(
            namespace=namespace,
            name=name,
            uid=f"uid-{name}",
            node=NODE,
            labels=labels.Labels({key: name}),
            addresses=(address,),
        )
        peer = _peer(None, ("server", "client")[number])
        rule = _rule((peer,), (_port(net.Protocol.TCP, OPEN), _port(net.Protocol.UDP, OPEN)))
        if number == 0:
            yield _policy(namespace, f"of-{name}", name, egress=rule)
        else:
            yield _policy(namespace, f"of-{name}", name, ingress=rule)


def _pod(namespace: str, app: str, number: int, here: int | None = None) -> resources.Pod:
    address = ipaddress.IPv4Address(REMOTE + number if here is None else int(CLIENT) + here)
    return resources.Pod(
        namespace=namespace,
        name=f"{app}-{number}" if here is None else f"{app}-here-{here}",
        uid=f"uid-{number}-{here}",
        node=f"node-{1 + number % 99}" if here is None else NODE,
        labels=labels.Labels({"app": app}),
        addresses=(address,),
    )


def _policy(
    namespace: str,
    name: str,
    app: str,
    *,
    ingress: resources.PolicyRule | None = None,
    egress: resources.PolicyRule | None = None,
) -> resources.NetworkPolicy:
    directions = {net.Direction.INGRESS} if ingress else set()
    directions |= {net.Direction.EGRESS} if egress else set()
    return resources.NetworkPolicy(
        namespace=namespace,
        name=name,
        subject=_selector("app", app),
        directions=frozenset(directions),
        ingress=(ingress,) if ingress else (),
        egress=(egress,) if egress else (),
    )


def _rule(peers: tuple[resources.PodPeer, ...], ports: tuple[resources.PortMatch, ...]) -> resources.PolicyRule:
    return resources.PolicyRule(peers=peers, ports=ports)


def _peer(namespace: str | None, app: str) -> resources.PodPeer:
    where = None if namespace is None else _selector(snapshot.METADATA_NAME, namespace)
    return resources.PodPeer(pods=_selector("app", app), namespaces=where)


def _selector(key: str, value: str) -> labels.LabelSelector:
    requirement = labels.Requirement(key=key, operator=labels.Operator.IN, values=frozenset({value}))
    return labels.LabelSelector((requirement,))


def _port(protocol: net.Protocol, number: int) -> resources.PortMatch:
    return resources.PortMatch(protocol=protocol, port=net.PortRange(number, number))
