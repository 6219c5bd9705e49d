"""A full compile of 10,000 pods and 5,000 policies for one node, against a scan that indexes nothing.

Both say, for each local pod and direction, which pods may talk to it and on what; the answers must be equal.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Iterator

from agent import desired, snapshot
from agent.model import endpoint, labels, net, resources
from agent.policy import compiler
from tests.bench import figures

PODS, NAMESPACES, POLICIES, LOCAL = 10_000, 1_000, 5_000, 100
NODE = "node-0"
ROUNDS = 5
PORTS = (80, 443, 8080, 9090)


def build_cluster(seed: int = 1) -> snapshot.Snapshot:
    """Make a cluster whose labels repeat as deployments do, 20 replicas each."""
    chance = random.Random(seed)
    items: list[resources.Resource] = []
    for number in range(NAMESPACES):
        team = labels.Labels({"team": f"t{number % 40}", "kubernetes.io/metadata.name": f"ns-{number}"})
        items.append(resources.Namespace(name=f"ns-{number}", labels=team))
    for number in range(PODS):
        deployment = number // 20
        items.append(
            resources.Pod(
                namespace=f"ns-{deployment % NAMESPACES}",
                name=f"pod-{number}",
                uid=f"uid-{number}",
                node=NODE if number % (PODS // LOCAL) == 0 else f"node-{1 + number % 99}",
                labels=labels.Labels(
                    {"app": f"a{deployment % 300}", "tier": f"r{deployment % 4}", "noise": str(number)}
                ),
                addresses=(ipaddress.ip_address(0x0A000000 + number),),
            )
        )
    items.extend(_policy(chance, number) for number in range(POLICIES))
    return snapshot.build(items)


def _policy(chance: random.Random, number: int) -> resources.NetworkPolicy:
    rules = tuple(_rule(chance) for _ in range(2))
    return resources.NetworkPolicy(
        namespace=f"ns-{number % (PODS // 20)}",
        name=f"policy-{number}",
        subject=_selector(chance),
        directions=frozenset(net.Direction),
        ingress=rules,
        egress=rules[:1],
    )


def _rule(chance: random.Random) -> resources.PolicyRule:
    peer = resources.PodPeer(pods=_selector(chance), namespaces=_namespaces(chance))
    port = resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(*[chance.choice(PORTS)] * 2))
    return resources.PolicyRule(peers=(peer,), ports=(port,))


def _selector(chance: random.Random) -> labels.LabelSelector:
    key, values = chance.choice((("app", 300), ("tier", 4)))
    operator = chance.choice((labels.Operator.IN, labels.Operator.IN, labels.Operator.NOT_IN, labels.Operator.EXISTS))
    prefix = "a" if key == "app" else "r"
    chosen = frozenset(f"{prefix}{chance.randrange(values)}" for _ in range(2))
    wanted = frozenset[str]() if operator is labels.Operator.EXISTS else chosen
    return labels.LabelSelector((labels.Requirement(key=key, operator=operator, values=wanted),))


def _namespaces(chance: random.Random) -> labels.LabelSelector | None:
    if chance.random() < 0.5:
        return None
    team = frozenset({f"t{chance.randrange(40)}"})
    return labels.LabelSelector((labels.Requirement(key="team", operator=labels.Operator.IN, values=team),))


Answer = dict[tuple[str, net.Direction], dict[net.Address, frozenset[int]] | None]
"""(local pod, direction) -> peer -> allowed TCP ports of PORTS; None: not isolated."""


def view(cluster: snapshot.Snapshot) -> endpoint.NodeView:
    """Fake the sandboxes of the node's pods: numbers only, nothing of them reaches a kernel."""
    local = [pod for pod in cluster.pods.values() if pod.node == NODE]
    sandboxes = tuple(
        endpoint.Sandbox(
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            netns_cookie=1000 + number,
            veth_ifindex=10 + number,
            ingress_ifindex=10 + number,
            addresses=pod.addresses,
        )
        for number, pod in enumerate(local)
    )
    return endpoint.NodeView(name=NODE, sandboxes=sandboxes)


def scan(cluster: snapshot.Snapshot) -> Answer:
    """Go through every policy for every selector over every pod, as the first version of anything does."""
    answer: Answer = {
        (pod.name, way): None for pod in cluster.pods.values() if pod.node == NODE for way in net.Direction
    }
    for policy in cluster.policies.values():
        subjects = [
            pod
            for pod in cluster.pods.values()
            if pod.namespace == policy.namespace and policy.subject.selects(pod.labels)
        ]
        for way in policy.directions:
            peers = [(_peers(cluster, policy, rule), rule) for rule in policy.rules(way)]
            for subject in subjects:
                if subject.node != NODE:
                    continue
                allowed = answer[subject.name, way] or {}
                for pods, rule in peers:
                    ports = frozenset(port for port in PORTS if any(port in match.port for match in rule.ports or ()))  # type: ignore[operator]
                    for pod in pods:
                        address = pod.addresses[0]
                        allowed[address] = allowed.get(address, frozenset()) | ports
                answer[subject.name, way] = allowed
    return answer


def _peers(
    cluster: snapshot.Snapshot, policy: resources.NetworkPolicy, rule: resources.PolicyRule
) -> list[resources.Pod]:
    found = []
    for peer in rule.peers or ():
        assert isinstance(peer, resources.PodPeer)
        for pod in cluster.pods.values():
            here = (
                pod.namespace == policy.namespace
                if peer.namespaces is None
                else peer.namespaces.selects(cluster.namespaces[pod.namespace].labels)
            )
            if here and (peer.pods is None or peer.pods.selects(pod.labels)):
                found.append(pod)
    return found


def expand(state: desired.DesiredState) -> Answer:
    """Read the compiled rows back as the scan's answer."""
    answer: Answer = {}
    for item in state.endpoints.values():
        for way, number in ((net.Direction.INGRESS, item.ingress_set), (net.Direction.EGRESS, item.egress_set)):
            answer[item.pod, way] = None if number == desired.NOT_ISOLATED else dict(_allowed(state, number))
    return answer


def _allowed(state: desired.DesiredState, number: int) -> Iterator[tuple[net.Address, frozenset[int]]]:
    ports: dict[int, set[int]] = {}
    for key, row in state.sets[number].rows.items():
        shift = 16 - key.port_bits
        matched = {port for port in PORTS if port >> shift == key.port >> shift}
        if row.action is desired.Action.ALLOW:
            ports.setdefault(key.identity, set()).update(matched)
    everybody = ports.get(0, set())
    for address, identity in state.hosts.items():
        found = ports.get(identity, set()) | everybody
        if found:
            yield address, frozenset(found)


def run() -> list[figures.Figure]:
    """Compile in rounds, scan once, compare."""
    cluster = build_cluster()
    node = view(cluster)
    took = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        compiled = compiler.compile_node(cluster, node)
        took.append((time.perf_counter() - begin) * 1000)
    begin = time.perf_counter()
    naive = scan(cluster)
    scanned = (time.perf_counter() - begin) * 1000
    assert expand(compiled.state) == naive, "the compiled rows and the scan disagree"
    rows = sum(len(policy_set.rows) for policy_set in compiled.state.sets.values())
    note = f"{len(compiled.state.sets)} sets, {rows} rows, {len(compiled.state.identities)} identities; results equal"
    return [
        figures.Figure(
            name="full compile, 10k pods x 5k policies",
            value=figures.median(took),
            unit="ms",
            baseline=scanned,
            note=note,
        )
    ]
