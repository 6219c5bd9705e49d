"""The evaluator and the compiler must agree on every DNS query of random clusters (see `test_differential`).

Each query is judged by the rules, and by the filter that the source's node has for the address as the pod dials
it (rule E17). What is sent to a Service is judged by what all of its endpoints that are allowed have in common.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Iterator

import pytest

from agent import desired
from agent.datapath import judge
from agent.model import net, resources
from agent.policy import evaluator
from tests import test_differential
from tests.support import asking, random_asking, random_cluster

QUERIES = range(100, 200)
QUERIES_THOROUGH = range(200, 3_000)
PARTS = 9
"""One of them runs daily."""
IN_AUDIT = 40
ATTEMPTS = 60
FLOWS = 10
DIALS = 6
OUTCOMES = {
    (False, False): judge.Admission.ADMITTED,
    (False, True): judge.Admission.WOULD_REFUSE,
    (True, False): judge.Admission.REFUSED,
}


class Asking(test_differential.Comparison):
    """One cluster, whose pods ask."""

    def direct(self, query: random_asking.Query) -> judge.Admission | None:
        """Compare a query to an address; None where a Service listens there, or nobody lives who would ask."""
        source = evaluator.party_at(self.snapshot, query.client)
        if not isinstance(source, resources.Pod) or source.node is None or query.client in self.left_over:
            return None
        enforced = self.nodes[source.node]
        if desired.Frontend(query.server, query.port, net.Protocol.UDP.value) in enforced.state.frontends:
            return None
        flow = self.flow(source, query.client, query.server, query.port)
        return self.compared(enforced, [flow], query.server, query.port, query.name)

    def dialled(self) -> Iterator[judge.Admission]:
        """Compare queries to some Services, by every local pod."""
        rng = random.Random(self.cluster.seed)
        for node, enforced in self.nodes.items():
            udp = {key: found for key, found in self.frontends(node).items() if key.protocol == net.Protocol.UDP.value}
            for item in enforced.state.endpoints.values():
                pod = self.snapshot.pods[item.namespace, item.pod]
                for frontend, backends in rng.sample(list(udp.items()), min(DIALS, len(udp))):
                    own = [address for address in item.addresses if address.version == frontend.address.version]
                    if pod.finished or not own or not backends:
                        continue
                    flows = [self.flow(pod, own[0], address, port, via_service=True) for address, port in backends]
                    name = rng.choice(random_asking.NAMES)
                    yield self.compared(enforced, flows, frontend.address, frontend.port, name)

    def flow(
        self, source: resources.Pod, client: net.Address, server: net.Address, port: int, *, via_service: bool = False
    ) -> evaluator.Flow:
        """Return a flow to where it ends."""
        destination = evaluator.party_at(self.snapshot, server)
        return evaluator.Flow(
            source=source,
            destination=destination,
            source_address=client,
            destination_address=server,
            protocol=net.Protocol.UDP,
            port=port,
            via_service=via_service or source == destination,
        )

    def compared(
        self,
        enforced: test_differential.Enforced,
        flows: list[evaluator.Flow],
        server: net.Address,
        port: int,
        name: str,
    ) -> judge.Admission:
        """Compare one query."""
        expected = OUTCOMES[asking.refused(self.snapshot, flows, name, self.audit)]
        found = enforced.datapath.judge_query(client=flows[0].source_address, server=server, port=port, name=name)
        where = f"seed {self.cluster.seed}: {flows[0].source_address} asks {server} port {port} for {name!r}"
        assert found.admission is expected, f"{where}: {found}"
        if found.rule:
            assert enforced.state.rules[found.rule] in self.restricting(flows), where
        return expected

    def restricting(self, flows: list[evaluator.Flow]) -> set[object]:
        """Return the rules that match any of `flows`."""
        walks = [evaluator.walk(self.snapshot, flow, self.audit).egress for flow in flows]
        tiers = [tier for walk in walks for tier in walk.tiers]
        return {rule.rule for tier in tiers for policy in tier.policies for rule in policy.rules if rule.matches}


def agree_on_queries(seed: int, *, in_audit: bool = False) -> collections.Counter[judge.Admission | None]:
    """Compare queries and flows of a cluster; return how the queries fared."""
    cluster, answers = random_asking.cluster(seed)
    comparison = Asking(test_differential.partly_in_audit(cluster) if in_audit else cluster, answers)
    for attempt in random_cluster.attempts(comparison.cluster, FLOWS):
        comparison.compare(attempt)
    fared = collections.Counter(map(comparison.direct, random_asking.queries(comparison.cluster, ATTEMPTS)))
    fared.update(comparison.dialled())
    return fared


def test_the_compiler_agrees_with_the_evaluator_on_names_that_may_be_asked_for() -> None:
    """Rule E17: unions of what rules restrict, rules that restrict nothing, denials, tiers and Services."""
    fared = sum(map(agree_on_queries, QUERIES), collections.Counter())
    assert fared[judge.Admission.REFUSED] > len(QUERIES)
    assert fared[judge.Admission.ADMITTED] > fared[judge.Admission.REFUSED]


def test_queries_that_policies_in_audit_would_refuse_are_told_as_the_evaluator_says() -> None:
    """Rules A51 and E17."""
    fared = sum((agree_on_queries(seed, in_audit=True) for seed in range(IN_AUDIT)), collections.Counter())
    assert fared[judge.Admission.WOULD_REFUSE] > 0


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.matrix) for part in range(1, PARTS))])
def test_the_compiler_agrees_with_the_evaluator_on_queries_thousands_of_times(part: int) -> None:
    for seed in QUERIES_THOROUGH[part::PARTS]:
        agree_on_queries(seed)
