"""The evaluator and the compiler, who share nothing, must agree on every flow of every random cluster.

For each flow the evaluator judges both ends by the numbered rules. The compiler compiles each node, its
state is applied to tables, and the flow is judged where its packets pass: at the source's node (FORWARD,
or LOCAL_IN on the way to that node itself) and at the destination's (FORWARD). Besides the verdict, the
direction that denies, the rule that allows and the isolating policies must agree. At the socket, connect()
to an address must say what egress says, and to a Service what egress says to its backends.
"""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Sequence

import pytest

from agent import desired
from agent import snapshot as snapshot_
from agent.datapath import memory
from agent.model import audit as audit_
from agent.model import endpoint, net, resources, verdict
from agent.policy import compiler, evaluator
from tests.support import random_cluster, random_dialects

QUICK = 300
THOROUGH = 10_000
DAILY = 1_270
"""Seeds that `make test` asks for; `make test-matrix` asks for all."""
FLOWS = 40
DIALS = 3
IN_AUDIT = 60
ACTIONS = {
    verdict.Reason.RULE_ALLOWED: resources.RuleAction.ALLOW,
    verdict.Reason.POLICY_DENY: resources.RuleAction.DENY,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Enforced:
    """One node, compiled and applied."""

    state: desired.DesiredState
    datapath: memory.MemoryDatapath
    view: endpoint.NodeView

    @classmethod
    def of(cls, snapshot: snapshot_.Snapshot, view: endpoint.NodeView) -> Enforced:
        """Compile and apply."""
        state = compiler.compile_node(snapshot, view).state
        datapath = memory.MemoryDatapath()
        datapath.apply(state)
        return cls(state, datapath, view)


class Comparison:
    """One cluster, judged both ways."""

    def __init__(self, cluster: random_cluster.Cluster, answers: Sequence[random_dialects.Answer] = ()) -> None:
        """Compile and apply every node of `cluster`, and let DNS answer."""
        self.cluster = cluster
        self.snapshot = cluster.snapshot
        self.audit = next((view.audit for view in cluster.views.values()), audit_.NOTHING)
        self.audited = 0
        """Flows of which a side was told as AUDIT."""
        self.nodes = {name: Enforced.of(self.snapshot, view) for name, view in cluster.views.items()}
        self.names: defaultdict[tuple[tuple[str, str], net.Address], set[str]] = defaultdict(set)
        self.named = 0
        """Flows that pass only because DNS has answered."""
        for answer in answers:
            self.learn(answer)
        self.left_over = {
            address
            for enforced in self.nodes.values()
            for item in enforced.state.endpoints.values()
            if self.snapshot.pods[item.namespace, item.pod].finished
            for address in item.addresses
        }

    def learn(self, answer: random_dialects.Answer) -> None:
        """Tell the pod's node; the evaluator is told flow by flow."""
        pod = self.snapshot.pods[answer.pod]
        enforced = self.nodes[str(pod.node)]
        enforced.datapath.learn(cookie_of(enforced.view, pod), answer.name, [answer.address])
        self.names[answer.pod, answer.address].add(answer.name)

    def names_of(self, source: evaluator.Party, address: net.Address) -> frozenset[str]:
        """Return the names for which DNS gave a pod an address."""
        if not isinstance(source, resources.Pod):
            return frozenset()
        return frozenset(self.names.get(((source.namespace, source.name), address), ()))

    def compare(self, attempt: random_cluster.Attempt) -> None:
        """Judge one flow both ways; what is left of a finished pod is nobody to the evaluator."""
        if {attempt.client, attempt.server} & self.left_over:
            return
        source = evaluator.party_at(self.snapshot, attempt.client)
        destination = evaluator.party_at(self.snapshot, attempt.server)
        flow = evaluator.Flow(
            source=source,
            destination=destination,
            source_address=attempt.client,
            destination_address=attempt.server,
            protocol=attempt.protocol,
            port=attempt.port,
            via_service=source == destination,  # else it never leaves the pod
            names=self.names_of(source, attempt.server),
        )
        walk = evaluator.walk(self.snapshot, flow, self.audit)
        judged = self.judgements(attempt, source, destination)
        denied = [judgement for _, judgement in judged if not judgement.allowed]
        where = f"seed {self.cluster.seed}: {attempt}: {walk.decision} but {judged}"
        assert (not denied) == walk.decision.allowed, where
        if denied:
            expected = net.Direction.INGRESS if walk.decision.egress.allowed else net.Direction.EGRESS
            assert denied[0].direction is expected, where
        for node, judgement in judged:
            self.attributed(self.nodes[node].state, judgement, walk, where)
        if walk.decision.allowed and flow.names:
            unnamed = dataclasses.replace(flow, names=frozenset())
            self.named += not evaluator.evaluate(self.snapshot, unnamed, self.audit).allowed
        if walk.decision.allowed:
            told = self.told(attempt, source, destination)
            assert told == {(side.direction, frozenset(side.isolating)) for side in walk.decision.would_deny}, where
            self.audited += bool(told)
        if isinstance(source, resources.Pod) and source.has_identity and source.node is not None:
            self.socket(source, attempt, walk, where)

    def judgements(
        self, attempt: random_cluster.Attempt, source: evaluator.Party, destination: evaluator.Party
    ) -> list[tuple[str, memory.Judgement]]:
        """Follow the packet: which hooks of which nodes see it, and what they say."""
        return [
            (
                node,
                self.nodes[node].datapath.judge(
                    client=attempt.client,
                    server=attempt.server,
                    protocol=attempt.protocol.value,
                    port=attempt.port,
                    hook=hook,
                ),
            )
            for node, hook in crossed(source, destination)
        ]

    def told(
        self, attempt: random_cluster.Attempt, source: evaluator.Party, destination: evaluator.Party
    ) -> set[tuple[net.Direction, frozenset[resources.ObjectRef]]]:
        """Return the sides that those hooks tell of as AUDIT, and who isolates."""
        return {
            (end.direction, frozenset(self.nodes[node].state.sets[end.set].isolating))
            for node, hook in crossed(source, destination)
            for end in self.nodes[node].datapath.judge_ends(
                client=attempt.client,
                server=attempt.server,
                protocol=attempt.protocol.value,
                port=attempt.port,
                hook=hook,
            )
            if end.verdict is verdict.Verdict.AUDIT
        }

    def attributed(
        self, state: desired.DesiredState, judgement: memory.Judgement, walk: evaluator.Walk, where: str
    ) -> None:
        """Check that the rule named is one that allows, and that the isolating policies are those that isolate."""
        side = walk.egress if judgement.direction is net.Direction.EGRESS else walk.ingress
        action = ACTIONS.get(judgement.reason)
        if action is not None and judgement.rule:
            deciding = {
                rule.rule
                for tier in side.tiers
                for policy in tier.policies
                for rule in policy.rules
                if rule.matches and rule.action is action
            }
            assert state.rules[judgement.rule] in deciding, where
        said = side.side.would if judgement.verdict is verdict.Verdict.AUDIT else side.side
        if judgement.set != desired.NOT_ISOLATED:
            assert said is not None, where
            assert set(state.sets[judgement.set].isolating) == set(said.isolating), where

    def socket(self, source: resources.Pod, attempt: random_cluster.Attempt, walk: evaluator.Walk, where: str) -> None:
        """Check that the socket layer judges egress to what is no Service, and that own addresses pass."""
        assert source.node is not None
        enforced = self.nodes[source.node]
        cookie = cookie_of(enforced.view, source)
        said = enforced.datapath.judge_connect(cookie, attempt.server, attempt.protocol.value, attempt.port)
        frontend = desired.Frontend(attempt.server, attempt.port, attempt.protocol.value)
        if frontend not in enforced.state.frontends:
            own = attempt.server in source.addresses
            assert said.allowed == (own or walk.decision.egress.allowed), where
            audited = said.verdict is verdict.Verdict.AUDIT
            assert audited == (not own and in_vain([walk.decision.egress])), where

    def services(self) -> None:
        """Dial some frontends from every local pod: all backends allowed, none, or left to the packet layer."""
        rng = random.Random(self.cluster.seed)
        for node, enforced in self.nodes.items():
            frontends = self.frontends(node)
            for item in enforced.state.endpoints.values():
                pod = self.snapshot.pods[item.namespace, item.pod]
                if pod.finished:
                    continue
                for frontend, backends in rng.sample(list(frontends.items()), min(DIALS, len(frontends))):
                    if frontend.address.version in {address.version for address in pod.addresses}:
                        self.dial(enforced, item.netns_cookie, pod, frontend, backends)

    def dial(
        self,
        enforced: Enforced,
        cookie: int,
        pod: resources.Pod,
        frontend: desired.Frontend,
        backends: list[tuple[net.Address, int]],
    ) -> None:
        """Compare one frontend's class with the verdicts on its backends."""
        where = f"seed {self.cluster.seed}: {pod.name} dials {frontend} for {backends}"
        assert (frontend in enforced.state.frontends) == bool(backends), where
        said = enforced.datapath.judge_connect(cookie, frontend.address, frontend.protocol, frontend.port)
        sides = [self.sending(pod, frontend, address, port) for address, port in backends]
        if sides:
            some = any(side.allowed for side in sides)
            if self.by_name(enforced, pod):  # whether a backend has a name is the packet layer's to know
                assert said.allowed or not some, where
                return
            assert said.allowed == some, where
            assert (said.reason is verdict.Reason.SERVICE_DENIED) == (not some or in_vain(sides)), where
            assert (said.verdict is verdict.Verdict.AUDIT) == in_vain(sides), where

    def by_name(self, enforced: Enforced, pod: resources.Pod) -> bool:
        """Tell whether a pod may reach anything by its name."""
        item = next(each for each in enforced.state.endpoints.values() if each.uid == pod.uid)
        rows = enforced.state.sets[item.egress_set].rows if item.egress_set != desired.NOT_ISOLATED else {}
        return any(key.identity in enforced.state.names.contents for key in rows)

    def sending(
        self, pod: resources.Pod, frontend: desired.Frontend, address: net.Address, port: int
    ) -> evaluator.Side:
        """Ask the evaluator about egress to one backend."""
        flow = evaluator.Flow(
            source=pod,
            destination=evaluator.party_at(self.snapshot, address),
            source_address=next(each for each in pod.addresses if each.version == address.version),
            destination_address=address,
            protocol=net.Protocol(frontend.protocol),
            port=port,
            via_service=True,
            names=self.names_of(pod, address),
        )
        return evaluator.evaluate(self.snapshot, flow, self.audit).egress

    def frontends(self, node: str) -> dict[desired.Frontend, list[tuple[net.Address, int]]]:
        """List what is translated at a node and its backends, slowly and in the open."""
        found: dict[desired.Frontend, list[tuple[net.Address, int]]] = {}
        for service in self.snapshot.services.values():
            for port in service.ports:
                backends = backends_of(self.snapshot, service, port)
                listening = [(each, port.port) for each in (*service.cluster_addresses, *service.external_addresses)]
                if port.node_port is not None:
                    listening += [(each, port.node_port) for each in self.snapshot.nodes[node].addresses]
                for address, number in listening:
                    same_family = [backend for backend in backends if backend[0].version == address.version]
                    found.setdefault(desired.Frontend(address, number, port.protocol.value), []).extend(same_family)
        return found


def crossed(source: evaluator.Party, destination: evaluator.Party) -> list[tuple[str, memory.Hook]]:
    from_node, to_node = node_of(source), node_of(destination)
    forwarded = on_network(source), on_network(destination)
    seen: list[tuple[str, memory.Hook]] = []
    if forwarded[0] and from_node is not None:
        local = to_node == from_node and not forwarded[1]
        seen.append((from_node, memory.Hook.LOCAL_IN if local else memory.Hook.FORWARD))
    if forwarded[1] and to_node is not None and to_node != from_node:
        seen.append((to_node, memory.Hook.FORWARD))
    return seen


def in_vain(sides: list[evaluator.Side]) -> bool:
    """Tell whether dialling is allowed and would not be: with the policies in audit no destination were left."""
    return all(side.allowed and side.would is not None and not side.would.allowed for side in sides)


def partly_in_audit(cluster: random_cluster.Cluster) -> random_cluster.Cluster:
    """Put some policies and a namespace into audit, by every means."""
    rng = random.Random(cluster.seed ^ 0xA0D17)
    snapshot = dataclasses.replace(
        cluster.snapshot,
        policies={
            ref: dataclasses.replace(policy, asks_audit=rng.random() < 0.3)
            for ref, policy in cluster.snapshot.policies.items()
        },
    )
    spaces = [audit_.Target(name) for name in snapshot.namespaces]
    named = [audit_.Target(ref.namespace, ref.name) for ref in snapshot.policies]
    audit = audit_.Audit(
        flags=frozenset(rng.sample(spaces, rng.choice((0, 0, 1)))),
        commands=frozenset(rng.sample(named, min(len(named), rng.choice((0, 1, 2))))),
        annotations=rng.random() < 0.7,
    )
    views = {name: dataclasses.replace(view, audit=audit) for name, view in cluster.views.items()}
    return dataclasses.replace(cluster, snapshot=snapshot, views=views)


def backends_of(
    snapshot: snapshot_.Snapshot, service: resources.Service, port: resources.ServicePort
) -> list[tuple[net.Address, int]]:
    slices = [
        each
        for each in snapshot.endpoint_slices.values()
        if (each.namespace, each.service) == (service.namespace, service.name)
    ]
    if slices:
        return [
            (address, served.number)
            for each in slices
            for served in each.ports
            if (served.name, served.protocol) == (port.name, port.protocol)
            for address in each.addresses
        ]
    found: list[tuple[net.Address, int]] = []
    for pod in snapshot.pods.values():
        serving = pod.namespace == service.namespace and pod.ready and not pod.deleting and not pod.finished
        if serving and service.selector and all(pod.labels.get(key) == it for key, it in service.selector.items()):
            named = [each.number for each in pod.ports if (each.name, each.protocol) == (port.target, port.protocol)]
            numbers = [port.target] if isinstance(port.target, int) else named[:1]
            found += [(address, number) for address in pod.addresses for number in numbers]
    return found


def cookie_of(view: endpoint.NodeView, pod: resources.Pod) -> int:
    return next(sandbox.netns_cookie for sandbox in view.sandboxes if sandbox.uid == pod.uid)


def node_of(party: evaluator.Party) -> str | None:
    match party:
        case resources.Pod():
            return party.node
        case resources.Node():
            return party.name
        case _:
            return None


def on_network(party: evaluator.Party) -> bool:
    """Whether it is a pod with a network of its own."""
    return isinstance(party, resources.Pod) and not party.host_network


def agree(seed: int) -> None:
    cluster = random_cluster.cluster(seed)
    comparison = Comparison(cluster)
    comparison.services()
    for attempt in random_cluster.attempts(cluster, FLOWS):
        comparison.compare(attempt)


@pytest.mark.parametrize("start", range(0, QUICK, 50))
def test_the_compiler_agrees_with_the_evaluator(start: int) -> None:
    for seed in range(start, start + 50):
        agree(seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [pytest.param(start, marks=() if start < DAILY else pytest.mark.matrix) for start in range(QUICK, THOROUGH, 970)],
)
def test_the_compiler_agrees_with_the_evaluator_ten_thousand_times(start: int) -> None:
    for seed in range(start, start + 970):
        agree(seed)


def test_what_is_in_audit_denies_nothing_and_is_told_as_the_evaluator_says() -> None:
    """Rule A51: verdicts, who would deny, and what dialling says, packet and socket layer alike."""
    audited = 0
    for seed in range(IN_AUDIT):
        comparison = Comparison(partly_in_audit(random_cluster.cluster(seed)))
        for attempt in random_cluster.attempts(comparison.cluster, FLOWS):
            comparison.compare(attempt)
        comparison.services()
        audited += comparison.audited
    assert audited > IN_AUDIT / 2
