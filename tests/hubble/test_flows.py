"""What a verdict says on the wire."""

from __future__ import annotations

import dataclasses

import pytest

from agent.api.flow import flow_pb2 as pb
from agent.api.observer import observer_pb2
from agent.flows import records as recorded
from agent.hubble import client, flows, records, words
from agent.model import net, resources, verdict
from tests.hubble import variety
from tests.support import agents


def message(**changes: object) -> pb.Flow:
    return flows.flow(records.Record(agents.flow(**changes), 5, variety.RUN), version="7")


def attributed(flow: pb.Flow) -> dict[str, list[tuple[str, str, str, str]]]:
    """Return which policies stand in which field."""
    return {
        field.name: [(one.kind, one.namespace, one.name, one.labels[0]) for one in several]
        for field, several in flow.ListFields()
        if field.name.endswith(("allowed_by", "denied_by"))
    }


def test_a_default_deny_is_attributed_to_the_policies_that_isolate() -> None:
    isolating = variety.POLICIES
    told = [(ref.kind, ref.namespace, ref.name, "nodewall:default-deny") for ref in isolating]
    assert attributed(message(isolating=isolating)) == {"ingress_denied_by": told}
    assert attributed(message(isolating=isolating, direction=net.Direction.EGRESS)) == {"egress_denied_by": told}


@pytest.mark.parametrize(
    ("what", "reason", "field"),
    [
        (verdict.Verdict.FORWARDED, verdict.Reason.RULE_ALLOWED, "ingress_allowed_by"),
        (verdict.Verdict.DROPPED, verdict.Reason.POLICY_DENY, "ingress_denied_by"),
        (verdict.Verdict.AUDIT, verdict.Reason.POLICY_DENY, "ingress_denied_by"),
    ],
)
def test_a_rule_is_attributed_to_its_policy_with_its_index(
    what: verdict.Verdict, reason: verdict.Reason, field: str
) -> None:
    flow = message(verdict=what, reason=reason, rule=agents.RULE, isolating=())
    assert attributed(flow) == {field: [("NetworkPolicy", "x", "deny", "nodewall:rule=ingress[0]")]}
    assert "NetworkPolicy x/deny ingress[0]" in flow.Summary


def test_what_no_policy_decided_is_attributed_to_none() -> None:
    allowed = message(
        verdict=verdict.Verdict.FORWARDED, reason=verdict.Reason.NOT_ISOLATED, isolating=(), match=verdict.Match.ALL
    )
    assert attributed(allowed) == {}
    assert (allowed.event_type.type, allowed.policy_match_type) == (5, 4)
    spoofed = message(reason=verdict.Reason.SOURCE_SPOOFED, isolating=())
    assert (spoofed.event_type.type, spoofed.event_type.sub_type) == (1, 132)
    assert attributed(spoofed) == {}


def test_every_reason_to_drop_has_a_number_and_a_name_of_hubbles() -> None:
    for reason in verdict.Reason:
        allowed = reason in (verdict.Reason.RULE_ALLOWED, verdict.Reason.NOT_ISOLATED)
        flow = message(reason=reason, isolating=())
        assert bool(flow.drop_reason) is not allowed
        assert flow.drop_reason == flow.drop_reason_desc
        assert pb.DropReason.Name(flow.drop_reason_desc)


@pytest.mark.parametrize("reason", [verdict.Reason.POLICY_DENIED, verdict.Reason.POLICY_DENY, verdict.Reason.MALFORMED])
def test_what_passes_for_an_audit_is_a_policys_verdict_and_no_drop(reason: verdict.Reason) -> None:
    """Rule A51: who counts drops by reason or kind of event must not count what passed; nor does Cilium's audit."""
    flow = message(verdict=verdict.Verdict.AUDIT, reason=reason)
    assert (flow.drop_reason, flow.drop_reason_desc) == (0, 0)
    assert (flow.event_type.type, flow.event_type.sub_type) == (records.POLICY_VERDICT, 0)
    assert flow.Summary.startswith(reason.name.lower().replace("_", " "))
    assert attributed(flow).keys() == {"ingress_denied_by"}


def test_a_refused_query_is_a_flow_of_the_seventh_layer() -> None:
    """Rule E17: what Hubble's own DNS proxy would tell of it."""
    query = verdict.Query(name="evil.example.org.", type="AAAA", admitted_by="CiliumNetworkPolicy x/dns egress[0]")
    flow = message(reason=verdict.Reason.POLICY_DENIED, direction=net.Direction.EGRESS, query=query)
    assert flow.Type == pb.L7
    assert flow.l7.type == pb.REQUEST
    assert (flow.l7.dns.query, list(flow.l7.dns.qtypes)) == ("evil.example.org.", ["AAAA"])
    assert (flow.verdict, flow.drop_reason, flow.event_type.type) == (pb.DROPPED, 133, records.ACCESS_LOG)
    assert attributed(flow).keys() == {"egress_denied_by"}
    assert "asked DNS for evil.example.org. AAAA, which CiliumNetworkPolicy x/dns egress[0] does not" in flow.Summary


def test_each_end_is_named_by_what_it_is() -> None:
    source, destination = variety.IPV4_ENDS[0], variety.other("203.0.113.7", 2, "Host", "api.example.com")
    flow = message(source=source, destination=destination, direction=net.Direction.EGRESS)
    assert (flow.source.namespace, flow.source.pod_name, flow.source.identity) == ("x", "web-1", 300)
    assert list(flow.source.labels) == ["k8s:app=web", "k8s:tier=front", "k8s:io.kubernetes.pod.namespace=x"]
    assert list(flow.destination_names) == ["api.example.com"]
    assert list(flow.destination.labels) == ["reserved:world"]
    assert (flow.IP.source, flow.IP.destination, flow.IP.ipVersion) == ("10.0.0.2", "203.0.113.7", pb.IPv4)
    told = dataclasses.replace(destination, names=("www.example.net", "api.example.com"))
    assert list(message(destination=told).destination_names) == ["api.example.com", "www.example.net"]
    service = message(destination=variety.other("10.96.0.10", 2, "Service", "dns", "kube-system"))
    assert (service.destination_service.namespace, service.destination_service.name) == ("kube-system", "dns")
    assert not service.destination.labels


def test_a_pod_cannot_write_the_label_that_tells_its_namespace() -> None:
    forged = variety.pod("x", "p", "10.0.0.9", 300, **{records.NAMESPACE_LABEL: "kube-system"})
    assert list(message(source=forged).source.labels) == ["k8s:io.kubernetes.pod.namespace=x"]


@pytest.mark.parametrize(
    ("protocol", "name"),
    [(6, "TCP"), (17, "UDP"), (136, "UDP"), (132, "SCTP"), (1, "ICMPv4"), (58, "ICMPv6"), (47, None)],
)
def test_protocols_stand_where_hubble_has_them(protocol: int, name: str | None) -> None:
    assert message(protocol=protocol).l4.WhichOneof("protocol") == name


def test_a_reader_is_told_that_this_is_no_reply_as_else_it_does_not_know() -> None:
    flow = message()
    assert flow.HasField("is_reply")
    assert not flow.is_reply.value


def test_no_control_character_of_a_process_or_label_reaches_a_terminal() -> None:
    process = verdict.Process(pid=4, command="a\x1b]0;x\x07\n\udcff")
    end = variety.pod("x", "p", "10.0.0.9", 300, evil="\x1b[2J\u202e\u0085")
    flow = message(process=process, source=end)
    sent = pb.Flow.FromString(flow.SerializeToString())
    assert sent.Summary.isprintable()
    assert all(label.isprintable() for label in sent.source.labels)


def test_a_summary_is_bounded_and_the_policies_are_all_there() -> None:
    refs = tuple(resources.ObjectRef("NetworkPolicy", "n" * 63, f"{number:03}-{'p' * 249}") for number in range(200))
    event = agents.flow(isolating=refs)
    flow = message(isolating=refs)
    assert len(words.summary(event)) == words.SUMMARY_MOST
    assert flow.Summary.startswith("policy denied; isolated by NetworkPolicy nnn")
    assert "...; at the packet layer" in flow.Summary
    assert [policy.name for policy in flow.ingress_denied_by] == [ref.name for ref in refs]
    line = client.line_of(event)
    assert line is not None
    assert isinstance(line.item, recorded.Record)
    assert line.item.policies == refs


def test_names_that_kubernetes_would_not_have_taken_are_cut() -> None:
    long = "x" * 20_000
    ref = resources.ObjectRef(long, long, long)
    end = dataclasses.replace(variety.pod(long, long, "10.0.0.9", 300, **{long: long}), owner=ref)
    service = verdict.FlowEnd(
        identity=2, address=end.address, port=80, owner=resources.ObjectRef("Service", long, long)
    )
    event = agents.flow(source=end, destination=service, isolating=(ref,), node=long)
    line = client.line_of(event)
    assert line is not None
    assert isinstance(line.item, recorded.Record)
    assert line.item.source.pod == "x" * (words.NAME_MOST - 3) + "..."


def test_numbers_tell_flows_of_every_life_of_every_agent_apart() -> None:
    runs = [records.run_number(node, began) for node in ("n1", "n2") for began in (1, 2)]
    some = {records.Record(agents.flow(), serial, run).uuid for run in runs for serial in (0, 1, 2**48, 2**62 - 1)}
    assert len(some) == 16
    assert all([len(part) for part in uuid.split("-")] == [8, 4, 4, 4, 12] for uuid in some)
    assert all((uuid[14], uuid[19] in "89ab") == ("8", True) for uuid in some)


@pytest.mark.parametrize(
    ("where", "source"),
    [("ring", "PERF_EVENT_RING_BUFFER"), ("queue", "OBSERVER_EVENTS_QUEUE"), ("client", "HUBBLE_RING_BUFFER")],
)
def test_losses_say_where_how_many_and_when(where: str, source: str) -> None:
    told = flows.lost(verdict.Lost(count=3, where=where), node="n1", first_ns=10**9, last_ns=2 * 10**9 + 5)
    answer = observer_pb2.GetFlowsResponse.FromString(told)
    lost = answer.lost_events
    assert (pb.LostEventSource.Name(lost.source), lost.num_events_lost) == (source, 3)
    assert (lost.first.seconds, lost.last.seconds, lost.last.nanos) == (1, 2, 5)
    assert (answer.node_name, answer.time) == ("n1", lost.last)


def test_a_flow_that_was_led_to_a_backend_names_the_service_it_asked_for() -> None:
    dialled = variety.other("10.96.0.11", 2, "Service", "web", "x")
    flow = message(
        dialled=dataclasses.replace(dialled, port=80), joined=True, process=verdict.Process(pid=9, command="curl")
    )
    assert (flow.destination_service.namespace, flow.destination_service.name) == ("x", "web")
    assert flow.IP.destination == str(agents.SERVER)
    assert flow.Summary.endswith("for curl[9]; dialled 10.96.0.11:80")


@pytest.mark.parametrize("direction", net.Direction)
def test_verdicts_that_were_kept_back_are_counted_in_the_aggregate(direction: net.Direction) -> None:
    flow = message(direction=direction, repeats=6)
    counts = (flow.aggregate.ingress_flow_count, flow.aggregate.egress_flow_count)
    assert counts == ((7, 0) if direction is net.Direction.INGRESS else (0, 7))
    assert flow.Summary.endswith("6 like it kept back")
    assert not message().HasField("aggregate")


@pytest.mark.parametrize("match", verdict.Match)
def test_the_shape_of_the_row_is_hubbles_match_type(match: verdict.Match) -> None:
    assert message(match=match).policy_match_type == match.value
