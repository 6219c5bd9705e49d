"""Named pictures of one node, each a compiled state; sequences of them must leave no trace of the way.

Two pods of namespace x and one of y live on node-1, another one of y on node-2. What a picture is about is in
its name. Drawn pictures come from random clusters, which share addresses and cookies but nothing else.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Mapping
from types import MappingProxyType

from agent import desired, snapshot
from agent.model import endpoint, labels, net, resources
from agent.policy import compiler
from tests.support import random_cluster

NODE = "node-1"
BOTH = frozenset(net.Direction)
DRAWN = 40


def pod(name: str, address: str, *, app: str, node: str = NODE) -> resources.Pod:
    """Make a running pod, named `namespace/name`."""
    namespace, _, short = name.partition("/")
    return resources.Pod(
        namespace=namespace,
        name=short,
        uid=f"uid-{name}",
        labels=labels.Labels({"app": app}),
        node=node,
        addresses=(ipaddress.ip_address(address),),
        ports=(resources.ContainerPort(80, net.Protocol.TCP, "web"),),
    )


NODES = tuple(
    resources.Node(
        name=f"node-{number}",
        addresses=(ipaddress.ip_address(f"192.0.2.{number}"),),
        pod_ranges=(ipaddress.ip_network(f"10.0.{number}.0/24"),),
    )
    for number in (1, 2)
)
PODS = (
    pod("x/a", "10.0.1.2", app="a"),
    pod("x/b", "10.0.1.3", app="b"),
    pod("y/a", "10.0.1.4", app="a"),
    pod("y/b", "10.0.2.2", app="b", node="node-2"),
)
WEB = resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(80, 80))
NAMED = resources.PortMatch(protocol=net.Protocol.TCP, port="web")
SERVICE = resources.Service(
    namespace="x",
    name="web",
    cluster_addresses=(ipaddress.ip_address("10.96.0.1"),),
    ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target="web", node_port=30080),),
    selector=labels.Labels({"app": "b"}),
)


def app(value: str) -> resources.PodPeer:
    """Select pods of every namespace by label app."""
    requirement = labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({value}))
    return resources.PodPeer(pods=labels.LabelSelector((requirement,)), namespaces=labels.EVERYTHING)


def block(cidr: str, *excepts: str) -> resources.IPBlock:
    """Make an ipBlock."""
    return resources.IPBlock(cidr=ipaddress.ip_network(cidr), excepts=tuple(map(ipaddress.ip_network, excepts)))


def rule(*peers: resources.Peer, ports: tuple[resources.PortMatch, ...] | None = None) -> resources.PolicyRule:
    """Make a rule; without peers it is for any peer."""
    return resources.PolicyRule(peers=peers or None, ports=ports)


def policy(name: str, *rules: resources.PolicyRule, namespace: str = "x") -> resources.NetworkPolicy:
    """Isolate every pod of a namespace in both directions, with the same rules for both."""
    return resources.NetworkPolicy(namespace=namespace, name=name, directions=BOTH, ingress=rules, egress=rules)


def state(
    *items: resources.Resource, hold: endpoint.HoldMode = endpoint.HoldMode.PERMISSIVE, drop: bool = False
) -> desired.DesiredState:
    """Compile node-1 of the snapshot with `items`."""
    built = snapshot.build(items, ())
    view = random_cluster.views(built, hold).get(NODE, endpoint.NodeView(name=NODE, hold_mode=hold))
    deny_mode = endpoint.DenyMode.DROP if drop else endpoint.DenyMode.REJECT
    view = endpoint.NodeView(name=NODE, sandboxes=view.sandboxes, deny_mode=deny_mode, hold_mode=hold)
    return compiler.compile_node(built, view).state


BLOCKS = rule(block("10.0.0.0/8", "10.0.1.0/24"), block("10.0.1.3/32"))

PICTURES: Mapping[str, Callable[[], desired.DesiredState]] = MappingProxyType(
    {
        "empty": desired.DesiredState,
        "no policy": lambda: state(*NODES, *PODS),
        "one pod less": lambda: state(*NODES, *PODS[:2], PODS[3]),
        "isolated": lambda: state(*NODES, *PODS, policy("deny")),
        "allowed by label": lambda: state(*NODES, *PODS, policy("p", rule(app("a"), ports=(WEB,)))),
        "allowed by port name": lambda: state(*NODES, *PODS, policy("p", rule(ports=(NAMED,)))),
        "two policies": lambda: state(*NODES, *PODS, policy("p", rule(app("a"))), policy("q", rule(app("b")))),
        "other namespace": lambda: state(*NODES, *PODS, policy("p", rule(app("a")), namespace="y")),
        "a label nobody selected by": lambda: state(*NODES, *PODS, policy("p", rule(app("a"))), policy("q", BLOCKS)),
        "nested blocks": lambda: state(*NODES, *PODS, policy("p", BLOCKS)),
        "outer block only": lambda: state(*NODES, *PODS, policy("p", rule(block("10.0.0.0/8")))),
        "inner block only": lambda: state(*NODES, *PODS, policy("p", rule(block("10.0.1.3/32")))),
        "service": lambda: state(*NODES, *PODS, SERVICE, policy("p", rule(app("b"), ports=(WEB,)))),
        "service denied": lambda: state(*NODES, *PODS, SERVICE, policy("p", rule(app("a")))),
        "held": lambda: state(*NODES, *PODS, policy("deny"), hold=endpoint.HoldMode.STRICT),
        "silent": lambda: state(*NODES, *PODS, policy("deny"), drop=True),
    }
)


@functools.cache
def named(name: str) -> desired.DesiredState:
    """Return a picture by name; `drawn N` is the first node of random cluster N."""
    if name.startswith("drawn "):
        cluster = random_cluster.cluster(int(name.removeprefix("drawn ")), hold_mode=endpoint.HoldMode.AUTO)
        return compiler.compile_node(cluster.snapshot, cluster.views["node-0"]).state
    return PICTURES[name]()


NAMES = (*PICTURES, *(f"drawn {number}" for number in range(DRAWN)))
