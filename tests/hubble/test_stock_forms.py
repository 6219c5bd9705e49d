"""Every question that Hubble's own command line is known for, in every form it prints, on the socket and over TLS.

What it prints is compared, flow by flow and whole, with what was offered. Needs it (scripts/hubble finds or builds it)
and skips without.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import pathlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent.api.flow import flow_pb2
from agent.hubble import flows, server
from agent.model import resources, verdict
from tests.hubble import certificates, naive, printed, serving, stock, variety
from tests.support import served

pytestmark = pytest.mark.slow  # each test starts a program of 70 MB

COUNT = 60
NAME = "api.example.com"
OTHER = resources.Node(name="n3", addresses=(ipaddress.ip_address("192.0.2.3"),))


def _offered(number: int, event: verdict.VerdictEvent) -> verdict.VerdictEvent:
    """Put some of the denials in audit."""
    in_audit = event.reason is verdict.Reason.POLICY_DENIED and number % 3 == 0
    return dataclasses.replace(event, verdict=verdict.Verdict.AUDIT) if in_audit else event


RECORDS = tuple(
    dataclasses.replace(record, event=_offered(record.serial, record.event)) for record in variety.flows(COUNT)
)
OFFERED = tuple(flows.flow(record, version="7") for record in RECORDS)
HALF = 40
MOMENT = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(variety.BEGAN_NS // 10**9)) + ".400Z"
"""When the flow numbered HALF came."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Flags, and which of the flows they ask for."""

    words: tuple[str, ...] = ()
    filters: tuple[Mapping[str, Any], ...] = ()
    start: int = 0

    def answer(self) -> list[flow_pb2.Flow]:
        """Return the flows asked for, by a naive filter."""
        wanted = [flow_pb2.FlowFilter(**one) for one in self.filters]
        stored = OFFERED[self.start :]
        return [flow for flow in stored if not wanted or any(naive.admits(one, flow) for one in wanted)]


def every(*words: str, filters: tuple[Mapping[str, Any], ...]) -> Question:
    return Question(words=("--all", *words), filters=filters)


def either(field: str, value: str) -> tuple[Mapping[str, Any], ...]:
    return {f"source_{field}": [value]}, {f"destination_{field}": [value]}


QUESTIONS = {
    "no flag": Question(start=-20),
    "--last": Question(words=("--last", "3"), start=-3),
    "--since": Question(words=("--since", MOMENT), start=HALF),
    "--verdict": every("--verdict", "AUDIT", filters=({"verdict": ["AUDIT"]},)),
    "--pod": every("--pod", "x/web", filters=either("pod", "x/web")),
    "--namespace": every("--namespace", "y", filters=either("pod", "y/")),
    "--label": every("--label", "app=db", filters=either("label", "app=db")),
    "--ip": every("--ip", "2001:db8::/32", filters=either("ip", "2001:db8::/32")),
    "--port": every("--port", "443", filters=either("port", "443")),
    "--protocol": every("--protocol", "udp", filters=({"protocol": ["udp"]},)),
    "--to-fqdn": every("--to-fqdn", NAME, filters=({"destination_fqdn": [NAME]},)),
}
WAYS = ("unix", "mTLS")


class Pki:
    """An authority, and the files it signed for an agent and for who asks it."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Make them."""
        authority = certificates.Authority(directory / "authority")
        self.agent, own = authority.sign(directory / "agent"), authority.sign(directory / "own", name="collector")
        self.trust = ("--tls-ca-cert-files", str(authority.certificate), "--tls-server-name", certificates.SERVER_NAME)
        self.proof = ("--tls-client-cert-file", str(own.certificate), "--tls-client-key-file", str(own.key))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """One agent, and the command line pointed at it each way."""

    ways: Mapping[str, stock.Cli]
    stranger: stock.Cli
    """It trusts the agent, and has no certificate of its own."""
    port: int


@contextlib.contextmanager
def answering(program: pathlib.Path, directory: pathlib.Path, pki: Pki) -> Iterator[Agent]:
    """Answer on a socket and, to those who prove who they are, on TCP."""
    # On any address: one that listens on loopback alone sends no peer there.
    tcp = server.Tcp(address=ipaddress.ip_address("0.0.0.0"), port=serving.free_port(), files=pki.agent)
    node = serving.Node()
    node.enforcement = served.enforcement(OTHER)
    with stock.Cli(program, directory / "s" / "hubble.sock", directory, tcp=tcp, node=node).served() as local:
        ways = {"unix": local, "mTLS": local.remote(*pki.trust, *pki.proof)}
        yield Agent(ways=ways, stranger=local.remote(*pki.trust), port=tcp.port)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def agent(hubble: pathlib.Path, pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """Serve what is offered."""
    with answering(hubble, tmp_path_factory.mktemp("hubble"), pki) as serves:
        serves.ways["unix"].verdicts.publish([record.event for record in RECORDS])
        yield serves


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", printed.FORMS)
@pytest.mark.parametrize("asked", QUESTIONS)
def test_each_question_is_answered_whole(agent: Agent, asked: str, form: str, way: str) -> None:
    question = QUESTIONS[asked]
    answer = question.answer()
    assert 0 < len(answer) < COUNT
    said = agent.ways[way]("observe", *question.words, "-o", form)
    assert said.replace("\n", "").isprintable()
    assert printed.read(said, form) == printed.expected(answer, form)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", sorted(set(printed.FORMS) - {"table"}))
def test_what_comes_is_followed_in_every_form(
    hubble: pathlib.Path, pki: Pki, tmp_path: pathlib.Path, form: str, way: str
) -> None:
    events = [record.event for record in RECORDS]
    with answering(hubble, tmp_path, pki) as agent:
        agent.ways["unix"].verdicts.publish(events[:5])
        with agent.ways[way].running("observe", "--follow", "--last", "2", "-o", form) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(printed.lines(2, form))]
            agent.ways["unix"].verdicts.publish(events[5:8])
            said += [process.stdout.readline() for _ in range(printed.lines(5, form) - len(said))]
    assert printed.read("".join(said), form) == printed.expected(OFFERED[3:8], form)


def test_no_table_is_made_of_what_does_not_end(agent: Agent) -> None:
    done = agent.ways["unix"].run("observe", "--follow", "-o", "table")
    assert (done.returncode, "not compatible with follow" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("flag", "pattern", "name"),
    [
        ("--to-fqdn", "*.example.com", NAME),
        ("--to-fqdn", "API.example.com.", NAME),
        ("--to-fqdn", "example.com", None),
        ("--to-fqdn", "*.example.org", None),
        ("--to-fqdn", "n1", "n1"),
        ("--from-fqdn", NAME, NAME),
        ("--fqdn", NAME, NAME),
    ],
)
def test_a_name_finds_the_flows_that_carry_it_and_no_other(
    agent: Agent, flag: str, pattern: str, name: str | None
) -> None:
    sides = {"--to-fqdn": ("destination",), "--from-fqdn": ("source",)}.get(flag, ("source", "destination"))
    carrying = [flow for flow in OFFERED if any(name in getattr(flow, f"{side}_names") for side in sides)]
    assert (0 < len(carrying) < COUNT) is (name is not None)
    said = agent.ways["unix"]("observe", "--all", flag, pattern, "-o", "json")
    assert printed.read(said, "json") == printed.expected(carrying, "json")


@pytest.mark.parametrize("way", WAYS)
def test_status_says_how_many_flows_there_are(agent: Agent, way: str) -> None:
    cli = agent.ways[way]
    health, current, rate, nodes = cli("status").splitlines()
    assert health == f"Healthcheck (via {cli.target}): Ok"
    assert current == "Current/Max Flows: 60/4,096 (1.46%)"
    assert re.fullmatch(r"Flows/s: \d+\.\d\d", rate)
    assert nodes == "Connected Nodes: 1/1"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_this_node_is_listed_with_where_it_answers(agent: Agent, form: str, way: str) -> None:
    said = agent.ways[way]("list", "nodes", "-o", form)
    where = f"192.0.2.1:{agent.port}"
    if form == "json":
        (node,) = json.loads(said)
        assert int(node.pop("uptime_ns")) > 0
        assert node == {
            "name": "n1",
            "version": "7",
            "address": where,
            "state": "NODE_CONNECTED",
            "tls": {"enabled": True, "server_name": certificates.SERVER_NAME},
            "num_flows": "60",
            "max_flows": "4096",
            "seen_flows": "60",
        }
        return
    heading, line = (re.split(" {3,}", one) for one in said.splitlines())
    told = dict(zip(heading, line, strict=True))
    assert (told["NAME"], told["STATUS"], told["CURRENT/MAX-FLOWS"]) == ("n1", "Connected", "60/4096 (  1.46%)")
    if form == "wide":
        assert (told["VERSION"], told["ADDRESS"], told["TLS"]) == ("7", where, "Enabled")


NAMESPACES = ("default", "x", "y")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", ["table", "wide", "json"])
def test_namespaces_of_the_stored_flows_are_listed(agent: Agent, form: str, way: str) -> None:
    said = agent.ways[way]("list", "namespaces", "-o", form)
    match form:
        case "table":
            assert said.split() == ["NAMESPACE", *NAMESPACES]
        case "wide":
            lines = [line.split() for line in said.splitlines()]
            assert lines == [["NAMESPACE", "CLUSTER"], *([name, "default"] for name in NAMESPACES)]
        case _:
            assert json.loads(said) == [{"cluster": "default", "namespace": name} for name in NAMESPACES]


@pytest.mark.parametrize("way", WAYS)
def test_peers_are_watched(agent: Agent, way: str) -> None:
    with agent.ways[way].running("watch", "peers") as process:
        assert process.stdout is not None
        lines = {process.stdout.readline().rstrip() for _ in range(2)}
    server_name = "default.hubble-grpc.cilium.io"
    assert lines == {
        f"PEER_ADDED   192.0.2.{number}:{agent.port} n{number} (TLS.ServerName: n{number}.{server_name})"
        for number in (1, 3)
    }


def test_who_shows_no_certificate_is_told_nothing(agent: Agent) -> None:
    done = agent.stranger.run("observe", "--all")
    assert (done.returncode, done.stdout) == (1, "")
