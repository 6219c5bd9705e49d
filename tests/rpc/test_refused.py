"""Every call of agent.proto, asked what is malformed or hostile: refused with field, value and remedy, never ignored.

The first half goes over the calls by their descriptors, so that a call which is added is asked as well.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest
from click import testing
from google.protobuf import descriptor, message_factory

from agent import errors, logs
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.cli import main, output
from agent.model import verdict
from agent.observer import stream
from agent.rpc import client, getters, refusals, requests, sockets
from tests.support import agents, served

METHODS = {one.name: one for one in pb.DESCRIPTOR.services_by_name["Agent"].methods}
TEXTS = [
    (method.name, field)
    for method in METHODS.values()
    for field in method.input_type.fields
    if field.type == descriptor.FieldDescriptor.TYPE_STRING
]
BESIDE: Mapping[str, Any] = {
    "TraceFlow": pb.TraceFlowRequest(source="x/a", destination="x/b", port="80/TCP"),
    "DumpMap": pb.DumpMapRequest(table="policy"),
    "ExplainName": pb.ExplainNameRequest(pod="x/a", name="a.example.com"),
}
"""What else a question needs to have; of a field that is there twice, the last counts."""
CALLED: Mapping[tuple[str, str], str] = {
    ("GetEndpoint", "name"): "pod",
    ("GetPolicy", "name"): "policy",
    ("DumpMap", "endpoint"): "pod",
    ("TraceFlow", "source"): "--from",
    ("TraceFlow", "destination"): "--to",
}
"""As whoever looks for a name calls the field: names may be odd, if only something has them."""
UNKNOWN = 4000
VARINT, LENGTH = 0, 2
METADATA_MOST = 8192
"""Bytes of all metadata that gRPC lets through for sure."""
HOSTILE = ("\x1b[31mx", "x\x00", "x\n", "x\x7f", "x\x9b1m", "x\u202ey", "x\u2028")
SECONDS = 10


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def text_field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | LENGTH) + varint(len(content)) + content


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refused:
    """How a call was refused."""

    code: grpc.StatusCode
    text: str
    refusal: pb.Refusal
    size: int
    """Of the metadata, as it is sent: bytes by base64, text by percent."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A served agent, and its socket for those who write messages themselves."""

    path: pathlib.Path
    channel: grpc.Channel

    def ask(self, name: str, content: bytes) -> list[Any]:
        method = METHODS[name]
        kind = message_factory.GetMessageClass(method.output_type)
        where = f"/{method.containing_service.full_name}/{name}"
        if method.server_streaming:
            return list(self.channel.unary_stream(where, None, kind.FromString)(content, timeout=SECONDS))
        return [self.channel.unary_unary(where, None, kind.FromString)(content, timeout=SECONDS)]

    def refused(self, name: str, content: bytes) -> Refused:
        with pytest.raises(grpc.RpcError) as raised:
            self.ask(name, content)
        error: Any = raised.value
        trailing = {key: value for key, value in error.trailing_metadata() if key == refusals.KEY}
        coded = sum(1 if 0x20 <= byte < 0x7F and byte != ord("%") else 3 for byte in error.details().encode())
        return Refused(
            code=error.code(),
            text=error.details(),
            refusal=pb.Refusal.FromString(trailing.get(refusals.KEY, b"")),
            size=coded + sum(len(value) * 4 // 3 for value in trailing.values()),
        )


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    path = tmp_path_factory.mktemp("state") / "agent.sock"
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish([agents.flow()])
    process = getters.Process(set_log_level=logs.Threshold("info").change)
    with (
        served.agent(path, served.Node(served.enforcement()), process=process, verdicts=verdicts),
        grpc.insecure_channel(sockets.target(path)) as channel,
    ):
        yield Asked(path, channel)


def check(found: Refused, field: str, value: str = "") -> None:
    assert found.code is grpc.StatusCode.INVALID_ARGUMENT, found.text
    assert found.refusal.field == field
    assert value in found.refusal.value
    assert len(found.refusal.value.encode()) <= refusals.VALUE_MOST
    assert found.refusal.remedy
    assert found.text.isprintable()
    assert found.text.startswith(f"{field}: ")
    assert refusals.printable(found.refusal.remedy) in found.text
    assert found.size < METADATA_MOST


# By descriptors.


@pytest.mark.parametrize("name", METHODS)
def test_a_field_that_the_agent_does_not_know_is_refused_and_never_ignored(asked: Asked, name: str) -> None:
    kind = METHODS[name].input_type.name
    for extra, value in ((varint(UNKNOWN << 3 | VARINT) + b"\x07", "7"), (text_field(UNKNOWN, b"\x1b["), "\\x1b[")):
        check(asked.refused(name, extra), f"{kind} field {UNKNOWN}", value)
    check(asked.refused(name, text_field(UNKNOWN, b"\xff" * 100_000)), f"{kind} field {UNKNOWN}", "\\xff")


@pytest.mark.parametrize("name", METHODS)
def test_what_is_no_message_at_all_is_refused(asked: Asked, name: str) -> None:
    for content in (b"\xff", b"\x0a\x05x", b"\x00" * 9):
        check(asked.refused(name, content), "request")


@pytest.mark.parametrize(("name", "field"), TEXTS, ids=lambda one: getattr(one, "name", one))
def test_a_text_that_can_be_no_name_is_refused(asked: Asked, name: str, field: descriptor.FieldDescriptor) -> None:
    beside = BESIDE[name].SerializeToString() if name in BESIDE else b""
    called = CALLED.get((name, field.name), field.name)
    for text in HOSTILE:
        check(asked.refused(name, beside + text_field(field.number, text.encode())), called, text)
    for letter in ("a", "%", "\\", "\u4e00", "\U0001f600", "\x1b", "\U000e0001"):
        long = letter * (requests.TEXT_MOST + 1)
        check(asked.refused(name, text_field(field.number, long.encode())), field.name, letter)
    check(asked.refused(name, text_field(field.number, b"a\xff")), "request", "a\\xff")


def test_every_call_that_takes_a_text_is_among_them() -> None:
    assert {name for name, _ in TEXTS} == {
        *("WatchVerdicts", "GetEndpoint", "GetPolicy", "GetAddress", "SetLogLevel", "SetAudit", "TraceFlow"),
        *("DumpMap", "ListLearned", "ExplainName"),
    }


# By what the words mean.

TRACE = {"source": "x/a", "destination": "x/b", "port": "80/TCP"}
MALFORMED: tuple[tuple[str, Any, str, str], ...] = (
    *(("WatchVerdicts", pb.WatchVerdictsRequest(verdict=one), "verdict", one) for one in ("dropped", "MOON", "2")),
    ("WatchVerdicts", pb.WatchVerdictsRequest(namespace="x/a"), "namespace", "x/a"),
    ("WatchVerdicts", pb.WatchVerdictsRequest(pod="x/a", follow=True), "pod", "x/a"),
    *(("GetEndpoint", pb.GetEndpointRequest(name=one), "pod", one) for one in ("", "/", "x/", "/a", "x/a/b", "//a")),
    *(
        ("GetPolicy", pb.GetPolicyRequest(name=one), "policy", one)
        for one in ("", "/", "x/", "/x/to-b", "//p", "a/b/c/d")
    ),
    *(
        ("GetAddress", pb.GetAddressRequest(address=one), "address", one)
        for one in ("", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.2/32", "0x7f000001", "fe80::1%eth0", "::1::")
    ),
    *(("SetLogLevel", pb.SetLogLevelRequest(level=one), "log-level", one) for one in ("", "loud", "DEBUG", "debug ")),
    *(
        ("SetAudit", pb.SetAuditRequest(namespace=one, enable=True), "namespace", one)
        for one in ("", "X", "x/deny", "x/", "*", "-x", "x" * 64)
    ),
    ("SetAudit", pb.SetAuditRequest(policy="deny", enable=True), "namespace", ""),
    *(
        ("SetAudit", pb.SetAuditRequest(namespace="x", policy=one, enable=True), "policy", one)
        for one in ("D", "../y", "a/b", "*", " ")
    ),
    *(
        ("TraceFlow", pb.TraceFlowRequest(**(TRACE | {"source": one})), "--from", one)
        for one in ("", "x", "x/nobody", "fe80::1%lo", "host/", "service/x/web")
    ),
    *(
        ("TraceFlow", pb.TraceFlowRequest(**(TRACE | {"destination": one})), "--to", one)
        for one in ("", "x/nobody", "service/x/", "service/", "fe80::2%lo", "10.0.0")
    ),
    *(
        ("TraceFlow", pb.TraceFlowRequest(**(TRACE | {"port": one})), "--port", one)
        for one in ("", "0/TCP", "65536/TCP", "-1", "80/ABC", "80/", "/TCP", "80/ICMP", "٨٠/TCP", "99999999/UDP")
    ),
    *(("DumpMap", pb.DumpMapRequest(table=one), "MAP", one) for one in ("", "nothing", "POLICY", "policy ")),
    *(("DumpMap", pb.DumpMapRequest(table="policy", endpoint=one), "pod", one) for one in ("x/", "/", "x/a/b")),
)


@pytest.mark.parametrize(("name", "request_", "field", "value"), MALFORMED)
def test_what_means_nothing_is_refused_by_its_field(
    asked: Asked, name: str, request_: Any, field: str, value: str
) -> None:
    found = asked.refused(name, request_.SerializeToString())
    check(found, field)
    assert found.refusal.value == value


@pytest.mark.parametrize(
    ("name", "request_", "field"),
    [
        ("GetEndpoint", pb.GetEndpointRequest(name="x/nobody"), "pod"),
        ("GetPolicy", pb.GetPolicyRequest(name="nothing"), "policy"),
        ("GetIdentity", pb.GetIdentityRequest(id=2**32 - 1), "identity"),
        ("DumpMap", pb.DumpMapRequest(table="policy", endpoint="x/nobody"), "pod"),
    ],
)
def test_what_is_not_there_is_told_from_what_is_wrong(asked: Asked, name: str, request_: Any, field: str) -> None:
    found = asked.refused(name, request_.SerializeToString())
    assert (found.code, found.refusal.field) == (grpc.StatusCode.NOT_FOUND, field)
    assert "agentctl" in found.refusal.remedy


def test_after_all_that_nothing_is_in_audit_and_everything_is_answered(asked: Asked) -> None:
    (audit,) = asked.ask("ListAudit", b"")
    assert not audit.entries
    content = pb.SetAuditRequest(namespace="x", policy="deny", enable=True).SerializeToString()
    asked.refused("SetAudit", content + text_field(UNKNOWN, b"only on tuesdays"))
    assert not asked.ask("ListAudit", b"")[0].entries
    for name, method in METHODS.items():
        if not method.input_type.fields:
            assert asked.ask(name, b"")


def test_filters_narrow_and_the_largest_numbers_are_numbers(asked: Asked) -> None:
    def rows(**filters: Any) -> set[str]:
        batches = asked.ask("DumpMap", pb.DumpMapRequest(table="policy", **filters).SerializeToString())
        return {row.key for batch in batches for row in batch.rows}

    everything, of_a, of_b = rows(), rows(endpoint="x/a"), rows(endpoint="x/b")
    number = served.enforcement().state.endpoints
    of_set = {one.pod: one.ingress_set or one.egress_set for one in number.values()}
    assert of_a | of_b <= everything
    assert of_a
    assert rows(policy_set=2**32 - 1) == set()
    assert rows(endpoint="x/a", policy_set=of_set["b"]) == of_a & rows(policy_set=of_set["b"]) == set()
    for limit in (2**63 - 2, 2**63 - 1, 2**64 - 1):
        assert rows(limit=limit) == everything
    assert len(asked.ask("WatchVerdicts", pb.WatchVerdictsRequest(last=2**32 - 1).SerializeToString())) == 1
    assert asked.ask("WatchVerdicts", pb.WatchVerdictsRequest(verdict="ERROR").SerializeToString()) == []
    assert asked.ask("WatchVerdicts", pb.WatchVerdictsRequest(namespace="nowhere").SerializeToString()) == []


def test_a_request_larger_than_any_is_refused_as_wrong_and_not_as_too_many_callers(asked: Asked) -> None:
    with client.AgentClient(asked.path) as agent, pytest.raises(errors.InvalidInput, match="4 MiB"):
        agent.address("a" * (5 << 20))


def test_a_refused_watcher_learns_field_and_remedy(asked: Asked) -> None:
    with client.AgentClient(asked.path) as agent, pytest.raises(errors.InvalidInput) as raised:
        list(agent.watch_verdicts(follow=True, wanted=verdict.Filter(pod="x/a")))
    assert (raised.value.field, raised.value.value) == ("pod", "x/a")


# What the shell learns.

COMMANDS: tuple[tuple[str, tuple[str, ...], output.ExitCode], ...] = (
    ("pod: ''", ("endpoint", "get", ""), output.ExitCode.USAGE),
    ("pod: 'x\\x1b[31m'", ("endpoint", "get", "x\x1b[31m"), output.ExitCode.USAGE),
    ("pod: 'x/nobody'", ("endpoint", "get", "x/nobody"), output.ExitCode.FAILURE),
    ("policy: '/x/p'", ("policy", "get", "/x/p"), output.ExitCode.USAGE),
    ("policy: 'none'", ("policy", "get", "none"), output.ExitCode.FAILURE),
    ("identity: '77777'", ("identity", "get", "77777"), output.ExitCode.FAILURE),
    ("address: '10.0.0.256'", ("ip", "get", "10.0.0.256"), output.ExitCode.USAGE),
    ("address: 'aaaa", ("ip", "get", "a" * 100_000), output.ExitCode.USAGE),
    ("--port: '0'", ("trace", "--from", "x/a", "--to", "x/b", "--port", "0"), output.ExitCode.USAGE),
    ("--to: 'x/c'", ("trace", "--from", "x/a", "--to", "x/c", "--port", "80"), output.ExitCode.USAGE),
    ("MAP: 'none'", ("bpf", "dump", "none"), output.ExitCode.USAGE),
    ("pod: 'x/c'", ("bpf", "dump", "policy", "--pod", "x/c"), output.ExitCode.FAILURE),
    ("CHAIN|MAP", ("ipt", "show", "none"), output.ExitCode.USAGE),
    ("--namespace: 'X'", ("audit", "enable", "-n", "X"), output.ExitCode.USAGE),
)


@pytest.mark.parametrize(("said", "words", "code"), COMMANDS)
def test_the_shell_learns_whether_the_words_were_wrong(
    asked: Asked, said: str, words: tuple[str, ...], code: output.ExitCode
) -> None:
    ended = testing.CliRunner().invoke(main.root, [*words, "--socket", str(asked.path)])
    assert ended.exit_code == code, ended.output
    assert any(one in ended.output for one in said.split("|"))
    assert ended.output.rstrip("\n").isprintable()
    assert len(ended.output) < METADATA_MOST


def test_the_shell_learns_that_nothing_is_enforced_yet_or_nobody_answers(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.sock"
    ask = ("trace", "--from", "x/a", "--to", "x/b", "--port", "80", "--socket", str(path))
    with served.agent(path, served.Node(None)):
        ended = testing.CliRunner().invoke(main.root, ask)
        assert (ended.exit_code, "agentctl status" in ended.output) == (output.ExitCode.FAILURE, True)
        wrong = testing.CliRunner().invoke(main.root, [*ask[:6], "x", *ask[7:]])
        assert wrong.exit_code == output.ExitCode.USAGE
    assert testing.CliRunner().invoke(main.root, ask).exit_code == output.ExitCode.UNREACHABLE
