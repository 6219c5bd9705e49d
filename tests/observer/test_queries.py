"""DNS queries that a filter of names did not admit, as verdicts (rule E17)."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import desired
from agent.datapath import base
from agent.model import net, resources, verdict
from agent.observer import history, queries, stream
from tests.bpf.dns import wire
from tests.learning import answering
from tests.support import agents

SECOND = 1_000_000_000
DNS = resources.ObjectRef("Service", "kube-system", "kube-dns")
CLUSTER_ADDRESS = ipaddress.ip_address("10.96.0.10")
EGRESS = 6
RULE = verdict.RuleRef(
    policy=resources.ObjectRef("CiliumNetworkPolicy", "x", "dns"), direction=net.Direction.EGRESS, index=0
)
SERVICE = resources.Service(
    namespace=DNS.namespace, name=DNS.name, cluster_addresses=(CLUSTER_ADDRESS,), ports=(), selector=None
)


@pytest.fixture
def past() -> history.History:
    state = agents.enforced()
    egress = desired.PolicySet(
        id=EGRESS, digest=b"6", direction=net.Direction.EGRESS, rows={}, isolating=(RULE.policy,)
    )
    state = dataclasses.replace(state, sets={**state.sets, EGRESS: egress}, rules={**state.rules, 11: RULE})
    known = history.History()
    known.enforced(3, state, agents.cluster(SERVICE))
    return known


def refused(
    message: bytes, *, endpoint: int = 1, outcome: base.Outcome = base.Outcome.REFUSED, rule: int = 11
) -> answering.Answer:
    return answering.Answer(
        endpoint=endpoint,
        time_ns=5 * SECOND,
        message=message,
        outcome=outcome,
        resolver=CLUSTER_ADDRESS,
        resolver_port=53,
        client_port=40000,
        policy_set=EGRESS,
        rule=rule,
        repeats=2,
    )


def told(past: history.History, *several: answering.Answer) -> tuple[verdict.VerdictEvent, ...]:
    clock, verdicts = agents.ManualClock(), stream.Stream(clock=agents.ManualClock())
    queries.Refusals(node="n1", history=past, stream=verdicts, clock=clock).tell(several)
    return verdicts.stored()


def test_a_refused_query_says_who_asked_whom_for_which_name_and_who_isolates(past: history.History) -> None:
    (event,) = told(past, refused(wire.query("Evil.example.org", type_=28)))
    assert event.verdict is verdict.Verdict.DROPPED
    assert event.reason is verdict.Reason.POLICY_DENIED
    assert event.isolating == (RULE.policy,)
    assert event.rule is None
    assert event.query == verdict.Query(name="Evil.example.org.", type="AAAA", admitted_by=str(RULE))
    assert (event.source.address, event.source.pod, event.source.port) == (agents.CLIENT, "a", 40000)
    assert (event.destination.owner, event.destination.port, event.protocol) == (DNS, 53, 17)
    assert (event.direction, event.layer) == (net.Direction.EGRESS, verdict.Layer.PACKET)
    assert (event.generation, event.repeats) == (3, 2)
    assert event.time_ns == agents.ManualClock().unix_ns() + 4 * SECOND


def test_what_policies_in_audit_would_refuse_is_audit(past: history.History) -> None:
    """Rule A51."""
    (event,) = told(past, refused(wire.query("a.b"), outcome=base.Outcome.WOULD_REFUSE))
    assert (event.verdict, event.isolating) == (verdict.Verdict.AUDIT, (RULE.policy,))


@pytest.mark.parametrize("message", [b"", b"\0" * 12, wire.query("a.b")[:-1], b"\0" * 12 + b"\x40" + b"a" * 70])
def test_what_is_no_query_is_a_verdict_without_one(past: history.History, message: bytes) -> None:
    (event,) = told(past, refused(message, rule=0))
    assert (event.query, event.verdict) == (None, verdict.Verdict.DROPPED)


def test_a_pod_that_is_gone_is_not_made_up(past: history.History) -> None:
    (event,) = told(past, refused(wire.query("a.b"), endpoint=9))
    assert (event.source.pod, event.source.address) == ("", ipaddress.ip_address("0.0.0.0"))


def test_nothing_refused_is_no_batch(past: history.History) -> None:
    assert told(past) == ()
