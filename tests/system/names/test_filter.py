"""Names that may be asked for: the well-known policy verbatim over its own zone, and what no query gets round (E17)."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from agent.lab import resolve
from agent.model import net
from tests.support import cases, traffic
from tests.system import stress
from tests.system.names import dns, zones
from tests.system.names import stage as stage_

pytestmark = pytest.mark.root

(PATH,) = (cases.DIRECTORY / "seeds").glob("*-cilium-egress-dns.yaml")
RULE = "spec.egress[0].toPorts[0].rules.dns"
RESPONSE, NOTIFY, QUESTIONS_AT, FLAGS_AT = 0x8000, 4 << 11, 4, 2
SILENCE = "time-out"


def _seed() -> tuple[resolve.Document, dict[str, dict[str, Any]]]:
    """Return the policy, and what is said of each name of its zone."""
    (step,) = yaml.safe_load(PATH.read_text())["steps"]
    (policy,) = step["policies"]
    return policy, step["zone"]


def _asking(*names: str, protocol: str = "UDP") -> resolve.Document:
    """Return a policy that lets the client ask kube-dns for these names and reach `*.one.test` by name."""
    policy = stage_.cilium(stage_.by_name("*.one.test"))
    (entry,) = policy["spec"]["egress"][0]["toPorts"]
    entry["ports"] = [{"port": "53", "protocol": protocol}]
    entry["rules"] = {"dns": [{"matchPattern" if "*" in one else "matchName": one} for one in names]}
    return policy


@pytest.fixture(scope="module")
def frontend(stage: stage_.Stage) -> Iterator[traffic.PodProcess]:
    with traffic.PodProcess(stage.lab, stage_.FRONTEND, stage_.APPLICATION) as process:
        yield process


def test_the_seed_as_it_stands_answers_the_names_of_its_rule_and_opens_those_of_the_other(
    stage: stage_.Stage, frontend: traffic.PodProcess
) -> None:
    """Must-show 4: names outside of rules.dns are refused, names inside resolve, and only toFQDNs' are reachable."""
    policy, zone = _seed()
    stage.apply(policy)
    assert [problem.path for problem in stage.agent.status().problems] == [RULE]
    told = {name: stage.ask(name, by=frontend) for name in zone}
    assert {name: _resolves(answer) for name, answer in told.items()} == {
        name: said.get("resolves", True) for name, said in zone.items()
    }
    assert {answer["code"] for answer in told.values() if not answer["addresses"]} == {dns.REFUSED}
    seen = {name: {stage.reach(address, by=frontend) for address in said["A"]} == {"ok"} for name, said in zone.items()}
    assert seen == {name: said["reachable"] for name, said in zone.items()}


def _resolves(answer: Mapping[str, Any]) -> bool:
    return answer["code"] == dns.NO_ERROR and bool(answer["addresses"])


def test_streams_are_denied_where_names_are_restricted(stage: stage_.Stage, frontend: traffic.PodProcess) -> None:
    policy, _ = _seed()
    stage.apply(policy)
    assert frontend.ask(do="ask", resolver=stage.resolver, name="cilium.io", tcp=True)["failed"]


@pytest.mark.parametrize("family", list(net.Family))
def test_names_are_restricted_at_every_address_of_the_resolver_and_for_every_type(
    stage: stage_.Stage, family: net.Family
) -> None:
    stage.apply(_asking("*.one.test"))
    for resolver in (stage.service(family), stage.address(stage_.KUBE_DNS, family)):
        for type_ in (dns.A, dns.AAAA, dns.HTTPS):
            assert stage.ask("api.one.test", resolver=resolver, type=type_)["code"] == dns.NO_ERROR
            assert stage.ask("db.test", resolver=resolver, type=type_)["code"] == dns.REFUSED


@pytest.mark.parametrize("connected", [True, False])
def test_case_and_size_of_a_query_change_nothing(stage: stage_.Stage, connected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Requirement F1, and EDNS."""
    stage.apply(_asking("api.one.test", "s3*.infix.test"))
    for name in ("api.one.test", "s3-eu.infix.test", "s3.infix.test"):
        assert _resolves(stage.ask(name, mixed_case=True, size=1232, connected=connected))
    for name in ("two.labels.one.test", "xs3.infix.test", "s3.b.infix.test"):
        answer = stage.ask(name, mixed_case=True, size=1232, connected=connected)
        assert (answer["code"], answer["addresses"]) == (dns.REFUSED, [])


def test_a_refused_query_is_a_verdict_with_the_question_and_the_policy(stage: stage_.Stage) -> None:
    stage.apply(_asking("*.one.test"))
    since_ns = time.time_ns()
    assert stage.ask("db.test")["code"] == dns.REFUSED
    (event, *_) = stage.told(stage.resolver, since_ns)
    assert event.query is not None
    assert (event.query.name, event.query.type) == ("db.test.", "A")
    assert "x/names" in event.query.admitted_by
    assert (event.source.pod, event.destination.port, event.direction) == ("client", 53, net.Direction.EGRESS)
    assert [ref.name for ref in event.isolating] == ["names"]


def test_pods_that_no_such_rule_selects_ask_as_before(stage: stage_.Stage) -> None:
    stage.apply(_seed()[0])
    assert _resolves(stage.ask("db.test"))


def test_names_follow_the_policy(stage: stage_.Stage) -> None:
    """More names, other names, no policy at all."""
    for names, admitted in (
        (("api.one.test",), {"api.one.test"}),
        (("api.one.test", "db.test"), {"api.one.test", "db.test"}),
        (("db.test",), {"db.test"}),
        (("db.test", "*"), {"api.one.test", "db.test", "other.test"}),
    ):
        stage.apply(_asking(*names))
        asked = ("api.one.test", "db.test", "other.test")
        assert {name for name in asked if _resolves(stage.ask(name))} == admitted
    stage.apply()
    assert _resolves(stage.ask("other.test"))


def test_whatever_is_no_query_with_one_question_gets_no_answer(stage: stage_.Stage) -> None:
    stage.apply(_asking("api.one.test"))
    query = dns.query("api.one.test", dns.A, number=7)
    assert _sent(stage, query) != SILENCE
    (flags,) = struct.unpack_from(">H", query, FLAGS_AT)
    for message in (
        _with(query, FLAGS_AT, flags | RESPONSE),
        _with(query, FLAGS_AT, flags | NOTIFY),
        _with(query, QUESTIONS_AT, 2) + query[12:],
        _with(query, QUESTIONS_AT, 0),
        b"\0" * 12,
        b"not DNS",
        b"x",
    ):
        assert _sent(stage, message) == SILENCE, message


def test_a_refusal_repeats_the_question(stage: stage_.Stage) -> None:
    stage.apply(_asking("api.one.test"))
    query = dns.query("Db.Test", dns.A, number=4711)
    reply = bytes.fromhex(_sent(stage, query))
    assert dns.read(reply).code == dns.REFUSED
    assert (reply[:2], reply[12:]) == (query[:2], query[12:])


def test_without_an_agent_names_are_restricted_as_before(stage: stage_.Stage) -> None:
    """Requirement F24: whether a name may be asked for is the kernel's to say."""
    stage.apply(_asking("*.one.test"))
    stress.end_agents(stage.lab, stage_.NODE)
    try:
        assert _resolves(stage.ask("api.one.test"))
        assert stage.ask("db.test")["code"] == dns.REFUSED
        assert stage.visit("api.one.test") == {"ok"}
    finally:
        stress.start_agents(stage.lab, stage_.NODE, flags=stage_.FLAGS)
        stage.apply()


def test_the_zone_has_what_these_tests_ask_for() -> None:
    names = {one.name for one in zones.NAMES}
    assert {"api.one.test", "two.labels.one.test", "db.test", "other.test", "s3.b.infix.test"} <= names


def _with(message: bytes, at: int, value: int) -> bytes:
    """Replace a number of two bytes."""
    return message[:at] + struct.pack(">H", value) + message[at + 2 :]


def _sent(stage: stage_.Stage, message: bytes) -> str:
    """Send the resolver a datagram; return what comes back, in hexadecimal, or SILENCE."""
    reply: str = stage.client.ask(do="send", resolver=stage.resolver, message=message.hex())["reply"]
    return reply
