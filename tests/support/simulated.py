"""A cluster of datapaths without a kernel, one a node, that is brought from step to step as agents would bring it.

Every datapath lives through the whole table, so that what a step leaves behind shows in the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypedDict, TypeVar

from agent import desired as desired_
from agent import snapshot
from agent.datapath import judge as judge_
from agent.datapath import memory
from agent.model import audit as audit_
from agent.model import endpoint, net, resources, verdict
from agent.policy import compiler, evaluator
from tests.support import cases


class Judged(Protocol):
    """What was decided."""

    @property
    def allowed(self) -> bool:
        """Whether the flow passes."""


class Judging(Protocol):
    """A datapath that says what it would do."""

    def apply(self, desired: desired_.DesiredState, /) -> object:
        """Enforce a state from here on."""

    def judge(self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: memory.Hook) -> Judged:
        """Decide about a connection."""

    def judge_ends(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: memory.Hook
    ) -> tuple[judge_.Judgement, ...]:
        """Return what would be told of a connection, a side each."""


Node = TypeVar("Node", bound=Judging)
Told = frozenset[tuple[net.Direction, tuple[resources.ObjectRef, ...]]]
"""Directions of what is told as AUDIT or DROPPED, with the policies that isolate."""
HONOURED = audit_.Audit(annotations=True)
"""Truth tables say by annotations what is in audit."""


class Cluster(Generic[Node]):
    """The nodes' datapaths, and which packets cross which of them."""

    def __init__(self, make: Callable[[], Node]) -> None:
        """Start with no node; `make` makes a node's datapath."""
        self._make = make
        self._datapaths: dict[str, Node] = {}
        self._states: dict[str, desired_.DesiredState] = {}
        self._cookies: dict[tuple[str, str, str], int] = {}
        self.problems: set[resources.Problem] = set()
        self._by_name = False
        """Whether datapaths learn names, and read which ones pods ask for."""

    def apply(self, cluster: snapshot.Snapshot) -> None:
        """Compile for every node that has pods, and bring its datapath there."""
        self.problems = set(cluster.problems)
        for name in sorted({pod.node for pod in cluster.pods.values() if pod.node} | set(cluster.nodes)):
            view = endpoint.NodeView(
                name=name,
                sandboxes=self._on(name, cluster),
                audit=HONOURED,
                learns_names=self._by_name,
                filters_queries=self._by_name,
            )
            compiled = compiler.compile_node(cluster, view)
            self._states[name] = compiled.state
            if name not in self._datapaths:
                self._datapaths[name] = self._make()
            self._datapaths[name].apply(compiled.state)
            self.problems.update(compiled.problems)

    def passes(self, flow: evaluator.Flow) -> bool:
        """Tell whether the packet layers of both ends let a flow pass.

        A node's own traffic to its pods crosses no hook (rule A37); what a pod sends to its own node ends there.
        """
        return all(self._datapaths[node].judge(**_asked(flow), hook=hook).allowed for node, hook in _crossed(flow))

    def audits(self, flow: evaluator.Flow) -> Told:
        """Return what the packet layers of both ends tell as AUDIT of a flow that passes."""
        return frozenset(
            (one.direction, self._states[node].sets[one.set].isolating)
            for node, hook in _crossed(flow)
            for one in self._datapaths[node].judge_ends(**_asked(flow), hook=hook)
            if one.verdict is verdict.Verdict.AUDIT
        )

    def denials(self, flow: evaluator.Flow) -> Told:
        """Return what is told of a flow that does not pass: of it no node sees more than the first side that denies."""
        for node, hook in _crossed(flow):
            for one in self._datapaths[node].judge_ends(**_asked(flow), hook=hook):
                if one.verdict is verdict.Verdict.DROPPED:
                    return frozenset({(one.direction, self._states[node].sets[one.set].isolating)})
        return frozenset()

    def _on(self, node: str, cluster: snapshot.Snapshot) -> tuple[endpoint.Sandbox, ...]:
        return tuple(
            endpoint.Sandbox(
                namespace=pod.namespace,
                pod=pod.name,
                uid=pod.uid,
                netns_cookie=self._cookie(pod),
                veth_ifindex=self._cookie(pod),
                ingress_ifindex=self._cookie(pod),
                addresses=pod.addresses,
            )
            for pod in cluster.pods.values()
            if pod.node == node and pod.has_identity
        )

    def _cookie(self, pod: resources.Pod) -> int:
        """Return a number of its own for each life of a pod."""
        return self._cookies.setdefault((pod.namespace, pod.name, pod.uid), 1000 + len(self._cookies))


class MemoryCluster(Cluster[memory.MemoryDatapath]):
    """Memory datapaths, which have a socket layer too."""

    def __init__(self) -> None:
        """Start with no node."""
        super().__init__(memory.MemoryDatapath)
        self._by_name = True

    def learn(self, cluster: snapshot.Snapshot, answers: Iterable[cases.Learned]) -> None:
        """Let DNS answer pods."""
        for answer in answers:
            namespace, _, name = answer.pod.partition("/")
            pod = cluster.pods[namespace, name]
            self._datapaths[str(pod.node)].learn(self._cookie(pod), answer.name, answer.addresses)

    def asks(self, flow: evaluator.Flow, name: str) -> judge_.Asked:
        """Return what the filters of the source's node say of a query, sent to a destination as it is dialled."""
        assert isinstance(flow.source, resources.Pod)
        return self._datapaths[str(flow.source.node)].judge_query(
            client=flow.source_address, server=flow.destination_address, port=flow.port, name=name
        )

    def connects(self, flow: evaluator.Flow) -> bool:
        """Tell whether the source's socket layer lets it connect to an address as it dials it; only pods have one."""
        judgement = self.dials(flow)
        return judgement is None or judgement.allowed

    def dials(self, flow: evaluator.Flow) -> memory.Judgement | None:
        """Return what the source's socket layer says of an address as it dials it; None: it is no pod."""
        pod = flow.source
        if not isinstance(pod, resources.Pod) or not pod.has_identity:
            return None
        return self._datapaths[str(pod.node)].judge_connect(
            self._cookie(pod), flow.destination_address, flow.protocol.value, flow.port
        )


def _crossed(flow: evaluator.Flow) -> Iterator[tuple[str, memory.Hook]]:
    """Yield the nodes whose packet layer a flow crosses, and where."""
    source, destination = _node(flow.source), _node(flow.destination)
    from_pod, to_pod = _has_network(flow.source), _has_network(flow.destination)
    if from_pod:
        yield str(source), memory.Hook.FORWARD if to_pod or source != destination else memory.Hook.LOCAL_IN
    if to_pod and source != destination:
        yield str(destination), memory.Hook.FORWARD


class _Asked(TypedDict):
    client: net.Address
    server: net.Address
    protocol: int
    port: int


def _asked(flow: evaluator.Flow) -> _Asked:
    return _Asked(
        client=flow.source_address,
        server=flow.destination_address,
        protocol=flow.protocol.value,
        port=flow.port,
    )


def _node(party: evaluator.Party) -> str | None:
    match party:
        case resources.Pod():
            return party.node
        case resources.Node():
            return party.name
        case _:
            return None


def _has_network(party: evaluator.Party) -> bool:
    return isinstance(party, resources.Pod) and party.has_identity
