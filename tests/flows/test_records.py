"""Recordings: what an agent prints is read back as it was, and nothing a stranger writes does more than be refused."""

from __future__ import annotations

import ipaddress
import json
import time
from typing import Any

import hypothesis
import pytest
from google.protobuf import json_format
from hypothesis import strategies

from agent import errors
from agent.api.observer import observer_pb2
from agent.flows import records, talks
from agent.graph import seen
from agent.hubble import flows as wire
from agent.hubble import records as verdicts
from agent.model import labels, net, resources, verdict
from tests.hubble import variety

RECORDED = variety.flows(150)


def line(document: Any) -> bytes:
    return json.dumps(document).encode()


def recording(record: verdicts.Record) -> bytes:
    """Return what `observe -o json` prints of a verdict."""
    response = observer_pb2.GetFlowsResponse(flow=wire.flow(record, version="7"), node_name=record.event.node)
    response.time.FromNanoseconds(record.event.time_ns)
    return line(json_format.MessageToDict(response, preserving_proto_field_name=True))


def document(**changed: Any) -> dict[str, Any]:
    flow = {
        "time": "2026-11-21T14:16:42.133Z",
        "verdict": "DROPPED",
        "IP": {"source": "10.0.0.2", "destination": "10.0.0.3", "ipVersion": "IPv4"},
        "l4": {"TCP": {"source_port": 34000, "destination_port": 80}},
        "source": {"identity": 300, "namespace": "x", "pod_name": "web-1", "labels": ["k8s:app=web"]},
        "destination": {"identity": 301, "namespace": "x", "pod_name": "db-1", "labels": ["k8s:app=db"]},
        "traffic_direction": "EGRESS",
        "drop_reason_desc": "POLICY_DENIED",
        **changed,
    }
    return {"flow": flow, "node_name": "n1", "time": flow["time"]}


def one(**changed: Any) -> records.Record:
    (found,) = records.read([line(document(**changed))])
    return found


def test_what_an_agent_prints_is_read_back_as_it_was() -> None:
    found = list(records.read(map(recording, RECORDED)))
    assert len(found) == len(RECORDED)
    for read, written in zip(found, (one.event for one in RECORDED), strict=True):
        assert (read.time_ns, read.node, read.verdict) == (written.time_ns, written.node, written.verdict)
        assert (read.direction, read.reason, read.rule) == (written.direction, written.reason, written.rule)
        for end, original in ((read.source, written.source), (read.destination, written.destination)):
            assert (end.address, end.identity, end.namespace) == (
                original.address,
                original.identity,
                original.namespace,
            )
            assert (end.pod, end.labels) == (original.pod, original.labels)
        assert read.repeats == written.repeats
        if written.rule is not None:
            assert read.policies == (written.rule.policy,)
        elif written.verdict is not verdict.Verdict.FORWARDED:
            assert read.policies == written.isolating


def test_a_record_says_how_many_like_it_were_kept_back() -> None:
    assert one().repeats == 0
    assert one(aggregate={"egress_flow_count": 2883}).repeats == 2882
    assert one(aggregate={"ingress_flow_count": 7, "egress_flow_count": 3}).repeats == 2, "those of its own direction"
    assert one(aggregate={"ingress_flow_count": 7}).repeats == one(aggregate={}).repeats == 0


def test_a_record_says_who_whom_where_and_why() -> None:
    found = one(egress_denied_by=[{"name": "deny", "namespace": "x", "kind": "NetworkPolicy"}])
    assert (found.source.pod, found.source.port, found.destination.port) == ("web-1", 34000, 80)
    assert found.source.labels == labels.Labels({"app": "web"})
    assert found.protocol == net.Protocol.TCP.value
    assert found.reason is verdict.Reason.POLICY_DENIED
    assert found.policies == (resources.ObjectRef("NetworkPolicy", "x", "deny"),)
    assert found.time_ns == 1795270602_133000000


def test_policies_of_the_other_direction_say_nothing_of_this_verdict() -> None:
    found = one(ingress_allowed_by=[{"name": "open", "namespace": "x"}], egress_allowed_by=[{"name": "open"}])
    assert found.policies == ()


def test_what_is_derived_never_passes_for_a_label_of_the_pod() -> None:
    texts = ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=x", "k8s:io.cilium.k8s.policy.cluster=c", "reserved:world"]
    found = one(source={"labels": texts, "pod_name": "web-1", "namespace": "x"}).source
    assert found.labels == labels.Labels({"app": "web"})
    assert found.reserved == {"world"}


def test_names_services_and_workloads_are_read_where_they_are_given() -> None:
    found = one(
        source={"pod_name": "a-b", "namespace": "x", "workloads": [{"name": "a", "kind": "Deployment"}]},
        destination_names=["api.example.com"],
        destination_service={"name": "dns", "namespace": "kube-system"},
    )
    assert found.source.workload == "a"
    assert found.destination.names == ("api.example.com",)
    assert found.destination.service == resources.ObjectRef("Service", "kube-system", "dns")


def test_an_ipv4_address_in_ipv6_is_the_ipv4_address() -> None:
    assert one(IP={"source": "::ffff:10.0.0.2", "destination": "10.0.0.3"}).source.address == ipaddress.ip_address(
        "10.0.0.2"
    )


def test_a_refused_dns_query_is_read_and_tells_nothing_of_who_may_talk() -> None:
    """Rule E17: neither advice nor a simulation takes it for a denied flow."""
    flow = document()["flow"] | {"Type": "L7", "verdict": "DROPPED", "l7": {"dns": {"query": "evil.example.org."}}}
    reader = records.Reader([line({"flow": flow})])
    (found,) = reader.records()
    assert (found.query, found.verdict) == ("evil.example.org.", verdict.Verdict.DROPPED)
    told = talks.gather([found], reader)
    assert (told.talks, told.coverage.others, told.coverage.records) == ((), 1, 0)
    assert seen.of_record(found) is None


def test_a_bare_flow_is_read_as_older_versions_print_it() -> None:
    flow = document()["flow"]
    (found,) = records.read([line({**flow, "node_name": "n2"})])
    assert found.node == "n2"


def test_what_is_no_verdict_of_a_policy_is_counted_and_lost_ones_are_too() -> None:
    lines = [
        line(document(verdict="TRACED")),
        line(document(Type="L7")),
        line(document(traffic_direction="TRAFFIC_DIRECTION_UNKNOWN")),
        line({"node_status": {"state_change": "NODE_CONNECTED"}}),
        b"\n",
        line({"lost_events": {"source": "HUBBLE_RING_BUFFER", "num_events_lost": "12"}, "node_name": "n1"}),
        line(document(verdict="REDIRECTED")),
    ]
    reader = records.Reader(lines)
    assert [found.verdict for found in reader.records()] == [verdict.Verdict.FORWARDED]
    assert (reader.others, reader.lost, reader.malformed) == (4, 12, 0)


def test_a_line_is_given_with_its_document_whole() -> None:
    (found,) = records.Reader([line(document(unheard_of=1))])
    assert found.document["flow"]["unheard_of"] == 1


MALFORMED = {
    "no JSON": (b"{", "no JSON"),
    "not UTF-8": (b'{"flow": "\xff"}', "no JSON"),
    "no object": (b"[]", "a list, not an object"),
    "no flow": (b'{"a": 1}', "no flow"),
    "too long": (b'{"flow": "' + b"a" * 2**20 + b'"}', "longer than"),
    "too deep": (b'{"flow": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "too many digits": (b'{"flow": ' + b"9" * 5000 + b"}", "no JSON"),
    "flow is a text": (b'{"flow": "x"}', "flow is a text, not an object"),
    "no time": (line(document(time="yesterday")), "flow.time is no moment"),
    "no such day": (line(document(time="2026-02-31T00:00:00Z")), "no moment of the calendar"),
    "a port too large": (line(document(l4={"TCP": {"source_port": 70000}})), "flow.l4.TCP.source_port"),
    "a port that is true": (line(document(l4={"TCP": {"source_port": True}})), "flow.l4.TCP.source_port"),
    "no address": (line(document(IP={"source": "nowhere"})), "flow.IP.source is no address"),
    "labels are no list": (line(document(source={"labels": "k8s:a=b"})), "flow.source.labels is a text"),
    "a label is a number": (line(document(source={"labels": [1]})), "flow.source.labels[0] is a number"),
    "half a surrogate": (line(document(source={"pod_name": "\ud800"})), "half a surrogate"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_line_is_an_error_that_names_it(name: str) -> None:
    raw, why = MALFORMED[name]
    with pytest.raises(errors.InvalidInput) as raised:
        list(records.read([line(document()), raw]))
    assert raised.value.field == "line 2 of the flows"
    assert why in raised.value.remedy
    assert len(str(raised.value)) < 500
    assert str(raised.value).isprintable()


def test_malformed_lines_can_be_passed_over_and_are_counted() -> None:
    raw = [case for case, _ in MALFORMED.values()]
    reader = records.Reader([*raw, line(document())], skip_malformed=True)
    assert len(list(reader)) == 1
    assert reader.malformed == len(raw)


NAMES = [
    "flow",
    "verdict",
    "IP",
    "l4",
    "TCP",
    "source",
    "destination",
    "labels",
    "time",
    "traffic_direction",
    "Summary",
]
JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.sampled_from(NAMES) | strategies.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@hypothesis.given(strategies.sampled_from(sorted(document()["flow"])), JSON, JSON)
@hypothesis.settings(max_examples=30, deadline=None)
def test_no_json_does_more_than_be_refused(member: str, value: Any, whole: Any) -> None:
    raw = [line(document(**{member: value})), line({"flow": whole}), line(whole)]
    reader = records.Reader(raw, skip_malformed=True)
    assert len(list(reader)) + reader.malformed + reader.others <= len(raw)


@hypothesis.given(strategies.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(raw: bytes) -> None:
    list(records.Reader(raw.splitlines(), skip_malformed=True))


def test_a_line_of_a_thousand_labels_is_read_in_a_moment() -> None:
    texts = [f"k8s:{'a' * 50}{number}=b" for number in range(4000)]
    began = time.monotonic()
    assert len(one(source={"labels": texts}).source.labels) == len(texts)
    assert time.monotonic() - began < 1
