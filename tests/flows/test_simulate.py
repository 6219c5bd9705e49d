"""Simulation finds exactly the flows that other policies deny, and says what it cannot tell."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

import pytest

from agent import errors, snapshot
from agent.flows import records, simulate, talks
from agent.model import identity, labels, net, resources, verdict
from agent.policy import evaluator
from tests.flows import recording
from tests.support import agents, cases
from tests.support import flows as tables

A = agents.pod("a", agents.CLIENT)
B = agents.pod("b", agents.SERVER)
OPEN = snapshot.build((resources.Namespace(name="x", labels=labels.Labels({"kubernetes.io/metadata.name": "x"})), A, B))
CLOSED = simulate.changed(OPEN, snapshot.build((agents.DENY,)))
FLOW = evaluator.Flow(
    source=A,
    destination=B,
    source_address=agents.CLIENT,
    destination_address=agents.SERVER,
    protocol=net.Protocol.TCP,
    port=80,
)


def told(*found: records.Record) -> talks.Told:
    return talks.gather(found)


def only(report: simulate.Report) -> simulate.Judged:
    (one,) = report.judged
    return one


@pytest.mark.parametrize(
    "path", recording.enforced(), ids=lambda path: str(path.relative_to(cases.DIRECTORY).with_suffix(""))
)
def test_exactly_the_flows_break_that_the_policies_of_a_table_deny(path: pathlib.Path) -> None:
    step = cases.load(path).steps[-1]
    cluster = tables.snapshot_of(step)
    base = dataclasses.replace(cluster, policies={})
    flows = list(recording.flows_of(cluster, step))
    told = talks.gather(recording.judged(base, (flow for _, flow in flows)))
    report = simulate.simulate(told, base, simulate.changed(base, cluster))
    found = {outcome: {one.talk.key for one in report.of(outcome)} for outcome in simulate.Outcome}
    assert not found[simulate.Outcome.OPENS] | found[simulate.Outcome.UNRESOLVED] | found[simulate.Outcome.OUTDATED]
    expected = {one.key for one in talks.gather(recording.judged(base, (f for ok, f in flows if not ok))).talks}
    assert found[simulate.Outcome.BREAKS] == expected
    assert len(told.talks) == len(expected) + len(found[simulate.Outcome.PASSES])
    for one in report.of(simulate.Outcome.BREAKS):
        assert one.side is not None
        assert one.blamed
        assert set(one.blamed) <= set(cluster.policies)


@pytest.mark.parametrize("path", recording.tables(recording.enforced()[::3], every=5))
def test_exactly_the_flows_open_that_the_deleted_policies_of_a_table_denied(path: pathlib.Path) -> None:
    step = cases.load(path).steps[-1]
    cluster = tables.snapshot_of(step)
    flows = list(recording.flows_of(cluster, step))
    told = talks.gather(recording.judged(cluster, (flow for _, flow in flows)))
    report = simulate.simulate(told, cluster, simulate.changed(cluster, snapshot.build(()), cluster.policies))
    denied = talks.gather(recording.judged(cluster, (flow for ok, flow in flows if not ok)))
    assert {one.talk.key for one in report.of(simulate.Outcome.OPENS)} == {one.key for one in denied.talks}
    assert not report.of(simulate.Outcome.BREAKS)


def test_what_breaks_names_the_new_policy_and_what_used_to_let_it_pass() -> None:
    one = only(simulate.simulate(told(*recording.judged(OPEN, [FLOW])), OPEN, CLOSED))
    assert one.outcome is simulate.Outcome.BREAKS
    assert one.blamed == (agents.DENY.ref,)
    assert one.formerly == "nothing isolates it for ingress"
    assert one.side is not None
    assert one.side.direction is net.Direction.INGRESS


def test_a_rule_that_is_taken_away_is_what_used_to_allow() -> None:
    rule = resources.PolicyRule()
    allowing = dataclasses.replace(agents.DENY, ingress=(rule,))
    base = simulate.changed(OPEN, snapshot.build((allowing,)))
    one = only(simulate.simulate(told(*recording.judged(base, [FLOW])), base, CLOSED))
    assert one.formerly == "NetworkPolicy x/deny ingress[0] allowed it"
    assert one.blamed == (agents.DENY.ref,)


def test_an_end_that_was_not_recorded_is_judged_by_the_present_policies() -> None:
    egress, ingress = recording.judged(OPEN, [FLOW])
    assert only(simulate.simulate(told(egress), CLOSED, OPEN)).outcome is simulate.Outcome.OPENS
    assert only(simulate.simulate(told(egress), OPEN, CLOSED)).outcome is simulate.Outcome.BREAKS
    assert only(simulate.simulate(told(ingress), CLOSED, OPEN)).outcome is simulate.Outcome.PASSES


def test_what_the_present_policies_already_deny_is_outdated_and_not_the_new_ones_fault() -> None:
    report = simulate.simulate(told(*recording.judged(OPEN, [FLOW])), CLOSED, CLOSED)
    assert only(report).outcome is simulate.Outcome.OUTDATED
    assert "no rule allows it" in only(report).formerly


def test_what_passes_for_an_audit_alone_breaks() -> None:
    audited = [
        dataclasses.replace(one, verdict=verdict.Verdict.AUDIT) if one.policies else one
        for one in recording.judged(CLOSED, [FLOW])
    ]
    one = only(simulate.simulate(told(*audited), CLOSED, CLOSED))
    assert one.outcome is simulate.Outcome.BREAKS
    assert one.formerly == "an audit let it pass"


def test_the_last_verdict_counts_and_drops_of_no_policy_and_replies_do_not() -> None:
    egress, ingress = recording.judged(OPEN, [FLOW])
    dropped = dataclasses.replace(ingress, verdict=verdict.Verdict.DROPPED, reason=verdict.Reason.POLICY_DENIED)
    later = dataclasses.replace(ingress, time_ns=ingress.time_ns + 5)
    held = dataclasses.replace(dropped, reason=verdict.Reason.ENDPOINT_HELD, time_ns=ingress.time_ns + 9)
    reply = dataclasses.replace(dropped, reply=True, time_ns=ingress.time_ns + 9)
    found = told(egress, dropped, later, held, reply)
    assert found.talks[0].passed
    assert (found.coverage.records, found.coverage.replies, found.coverage.not_by_policy) == (3, 1, 1)
    assert (found.coverage.first_ns, found.coverage.last_ns) == (egress.time_ns, later.time_ns)
    assert not told(egress, dropped).talks[0].passed


def test_verdicts_that_were_kept_back_are_counted_with_the_one_that_tells_of_them() -> None:
    egress, ingress = recording.judged(OPEN, [FLOW])
    found = told(egress, dataclasses.replace(ingress, repeats=2882))
    assert found.talks[0].count == 2884
    assert (found.coverage.records, found.coverage.kept_back) == (2884, 2882)
    held = dataclasses.replace(ingress, repeats=9, reason=verdict.Reason.ENDPOINT_HELD)
    reply = dataclasses.replace(ingress, repeats=4, reply=True)
    assert (told(held, reply).coverage.not_by_policy, told(held, reply).coverage.replies) == (10, 5)


def test_a_pod_that_is_gone_is_stood_in_for_by_its_workload_and_else_is_not_guessed() -> None:
    twin = agents.pod("a", ipaddress.ip_address("10.0.0.9"))
    twin = dataclasses.replace(twin, name="a-2", labels=labels.Labels({"app": "a", "pod-template-hash": "2"}))
    found = told(*recording.judged(OPEN, [FLOW]))
    rolled = snapshot.build((B, twin))
    report = simulate.simulate(found, rolled, simulate.changed(rolled, snapshot.build((agents.DENY,))))
    assert only(report).outcome is simulate.Outcome.BREAKS
    assert report.stand_ins == 1
    one = only(simulate.simulate(found, snapshot.build((B,)), CLOSED))
    assert one.outcome is simulate.Outcome.UNRESOLVED
    assert one.why == "pod x/a is gone, and no pod of x has its labels"


def test_an_address_that_became_a_pods_and_one_nobody_knew_are_not_guessed() -> None:
    (ingress,) = recording.judged(OPEN, [dataclasses.replace(FLOW, source=None)])
    assert "is now x/a's" in only(simulate.simulate(told(ingress), OPEN, CLOSED)).why
    address = ipaddress.ip_address("10.9.9.9")
    unknown = dataclasses.replace(ingress.source, address=address, identity=identity.UNMANAGED)
    lost = dataclasses.replace(ingress, source=unknown)
    assert "nobody knew" in only(simulate.simulate(told(lost), OPEN, CLOSED)).why
    strange = dataclasses.replace(lost, protocol=47)
    assert "protocol 47" in only(simulate.simulate(told(strange), OPEN, CLOSED)).why


def test_a_dialled_service_breaks_where_every_backend_is_denied() -> None:
    service = resources.Service(
        namespace="x",
        name="b",
        cluster_addresses=(ipaddress.ip_address("10.96.0.1"),),
        ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target=8080),),
        selector=labels.Labels({"app": "b"}),
    )
    base = snapshot.build((resources.Namespace(name="x"), A, B, service))
    egress = recording.judged(OPEN, [FLOW])[0]
    ref = resources.ObjectRef("Service", "x", "b")
    end = records.End(address=service.cluster_addresses[0], port=80, service=ref)
    dialled = told(dataclasses.replace(egress, destination=end))
    closed = simulate.changed(base, snapshot.build((agents.DENY,)))
    assert only(simulate.simulate(dialled, base, closed)).outcome is simulate.Outcome.BREAKS
    assert only(simulate.simulate(dialled, base, base)).outcome is simulate.Outcome.PASSES
    assert "has no backends now" in only(simulate.simulate(dialled, OPEN, OPEN)).why


def test_policies_are_added_replaced_and_deleted_by_name() -> None:
    wider = dataclasses.replace(agents.DENY, ingress=(resources.PolicyRule(),))
    assert simulate.changed(CLOSED, snapshot.build((wider,))).policies == {agents.DENY.ref: wider}
    assert simulate.changed(CLOSED, snapshot.build(()), [agents.DENY.ref]).policies == {}
    with pytest.raises(errors.InvalidInput, match="there is NetworkPolicy x/deny"):
        simulate.changed(CLOSED, snapshot.build(()), [resources.ObjectRef("NetworkPolicy", "x", "other")])
    relabelled = snapshot.build((resources.Namespace(name="x", labels=labels.Labels({"a": "b", "c": "d"})),))
    assert simulate.changed(OPEN, relabelled).namespaces["x"].labels["a"] == "b"
    assert simulate.changed(OPEN, snapshot.build((agents.DENY,))).namespaces == OPEN.namespaces
