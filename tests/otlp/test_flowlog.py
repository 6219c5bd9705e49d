"""A verdict as a log record: every field, under OpenTelemetry's names, with nothing in it that a terminal obeys."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent.hubble import records
from agent.model import net, resources, verdict
from agent.otlp import flowlog, losses
from tests.support import agents

RUN = records.run_number("n1", 7)


def of(**changes: object) -> flowlog.Log:
    return flowlog.of_flow(records.Record(agents.flow(**changes), 3, RUN))


def test_a_denied_flow_says_who_was_refused_what_and_why() -> None:
    log = of()
    assert log.event == "nodewall.flow"
    assert log.severity is flowlog.Severity.WARN
    assert log.time_ns == 1_700_000_000_123_000_000
    assert log.body == (
        "DROPPED ingress x/a (10.0.0.2:40000) -> x/b (10.0.0.3:80)/TCP: "
        "policy denied; isolated by NetworkPolicy x/deny; at the packet layer"
    )
    assert log.attributes == {
        "log.record.uid": records.Record(agents.flow(), 3, RUN).uuid,
        "network.transport": "tcp",
        "network.type": "ipv4",
        "source.address": "10.0.0.2",
        "source.port": 40000,
        "destination.address": "10.0.0.3",
        "destination.port": 80,
        "k8s.namespace.name": "x",
        "k8s.pod.name": "b",
        "nodewall.verdict": "dropped",
        "nodewall.reason": "policy_denied",
        "nodewall.direction": "ingress",
        "nodewall.layer": "packet",
        "nodewall.policies": ("NetworkPolicy x/deny",),
        "nodewall.source.identity": 300,
        "nodewall.source.namespace": "x",
        "nodewall.source.pod": "a",
        "nodewall.destination.identity": 301,
        "nodewall.destination.namespace": "x",
        "nodewall.destination.pod": "b",
    }


def test_the_names_by_which_the_pod_knew_the_address_are_a_list() -> None:
    """Requirement F16."""
    named = dataclasses.replace(agents.flow().destination, names=("api.example.com", "x" * 2000))
    names = of(destination=named).attributes["nodewall.destination.names"]
    assert isinstance(names, tuple)
    assert names[0] == "api.example.com"
    assert len(names[1]) == flowlog.TEXT_MOST


def test_an_allowed_call_says_its_rule_its_process_and_the_service_it_dialled() -> None:
    web = resources.ObjectRef("Service", "x", "web")
    dialled = verdict.FlowEnd(address=ipaddress.ip_address("fd00::5"), port=443, identity=0, owner=web)
    log = of(
        verdict=verdict.Verdict.FORWARDED,
        reason=verdict.Reason.RULE_ALLOWED,
        direction=net.Direction.EGRESS,
        layer=verdict.Layer.SOCKET,
        rule=agents.RULE,
        isolating=(),
        process=verdict.Process(pid=42, command="curl"),
        dialled=dialled,
        repeats=4,
    )
    assert log.severity is flowlog.Severity.INFO
    found = dict(log.attributes)
    assert (found["k8s.pod.name"], found["nodewall.direction"]) == ("a", "egress")
    assert (found["process.pid"], found["process.executable.name"]) == (42, "curl")
    assert found["nodewall.rule"] == "NetworkPolicy x/deny ingress[0]"
    assert found["nodewall.policies"] == ("NetworkPolicy x/deny",)
    assert (found["nodewall.dialled.address"], found["nodewall.dialled.port"]) == ("fd00::5", 443)
    assert found["nodewall.dialled.service.name"] == "web"
    assert found["nodewall.dialled.service.namespace"] == "x"
    assert found["nodewall.repeats"] == 4
    assert log.body.endswith("at the socket layer; for curl[42]; dialled [fd00::5]:443; 4 like it kept back")


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        (verdict.Verdict.FORWARDED, flowlog.Severity.INFO),
        (verdict.Verdict.DROPPED, flowlog.Severity.WARN),
        (verdict.Verdict.AUDIT, flowlog.Severity.WARN),
        (verdict.Verdict.ERROR, flowlog.Severity.ERROR),
    ],
)
def test_every_verdict_has_a_severity_and_what_was_not_forwarded_counts_as_denied(
    kind: verdict.Verdict, severity: flowlog.Severity
) -> None:
    assert of(verdict=kind).severity is severity
    assert (kind in flowlog.DENIED) is (kind is not verdict.Verdict.FORWARDED)


@pytest.mark.parametrize(
    ("number", "name"), [(6, "tcp"), (17, "udp"), (132, "sctp"), (1, "icmp"), (58, "icmpv6"), (99, "99")]
)
def test_a_protocol_without_a_name_is_its_number(number: int, name: str) -> None:
    assert of(protocol=number).attributes["network.transport"] == name


def test_what_has_no_port_and_no_pod_says_none() -> None:
    outside = verdict.FlowEnd(
        address=ipaddress.ip_address("fd00::9"), port=0, identity=2, owner=resources.ObjectRef("Node", "", "n2")
    )
    log = of(source=outside, destination=dataclasses.replace(outside, owner=None), protocol=58, isolating=())
    found = log.attributes
    assert found["network.type"] == "ipv6"
    assert found["nodewall.source.owner"] == "Node n2"
    absent = {"source.port", "destination.port", "k8s.pod.name", "k8s.namespace.name", "nodewall.policies"}
    assert not absent & found.keys()
    assert "Node n2 ([fd00::9]) -> [fd00::9]/ICMPV6:" in log.body


def test_no_control_character_and_no_change_of_direction_is_in_any_text() -> None:
    hostile = "a\x1b[31m\n\u202eb\ud800"
    end = dataclasses.replace(agents.flow().source, pod=hostile, namespace=hostile)
    log = of(
        source=end,
        destination=end,
        dialled=dataclasses.replace(end, owner=resources.ObjectRef("Service", hostile, hostile)),
        process=verdict.Process(pid=1, command=hostile),
        isolating=(resources.ObjectRef("NetworkPolicy", hostile, hostile),),
    )
    for value in (log.body, *log.attributes.values()):
        for text in value if isinstance(value, tuple) else (str(value),):
            assert text.isprintable()
            text.encode()


def test_a_record_is_bounded_however_long_names_are_and_however_many_policies_isolate() -> None:
    long = "n" * 5000
    refs = tuple(resources.ObjectRef("NetworkPolicy", "x", f"{number}{long}") for number in range(100))
    end = dataclasses.replace(agents.flow().source, pod=long)
    log = of(source=end, isolating=refs)
    assert len(log.body) == flowlog.TEXT_MOST
    assert log.body.endswith("...")
    policies = log.attributes["nodewall.policies"]
    assert isinstance(policies, tuple)
    assert len(policies) == flowlog.POLICIES_MOST
    assert log.attributes["nodewall.policies.count"] == 100
    assert max(map(len, policies)) == flowlog.TEXT_MOST


def test_losses_are_told_with_their_number_reason_and_time() -> None:
    log = flowlog.of_loss(losses.Loss(why=losses.Why.FULL, count=7, first_ns=5, last_ns=9))
    assert (log.event, log.severity, log.time_ns) == ("nodewall.flow.lost", flowlog.Severity.WARN, 9)
    assert log.body == "7 flows lost: full"
    assert log.attributes == {
        "nodewall.lost.count": 7,
        "nodewall.lost.reason": "full",
        "nodewall.lost.first_unix_nano": 5,
    }


def test_losses_of_one_reason_are_one() -> None:
    one = losses.Loss(why=losses.Why.FULL, count=7, first_ns=5, last_ns=9)
    other = losses.of_reader(verdict.Lost(count=2, where="client"), first_ns=1, last_ns=2)
    found = losses.added({}, one, other, dataclasses.replace(one, count=1, first_ns=3, last_ns=20))
    assert found[losses.Why.FULL] == losses.Loss(why=losses.Why.FULL, count=8, first_ns=3, last_ns=20)
    assert found[losses.Why.BEHIND].count == 2
    assert losses.added({}, dataclasses.replace(one, count=0)) == {}


def test_every_place_where_verdicts_are_lost_has_a_reason() -> None:
    assert set(losses.OF_READER) == {"ring", "queue", "client"}
