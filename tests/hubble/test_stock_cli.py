"""Hubble's own command line reads this agent; the program is built from its source and knows nothing of us.

Needs it (scripts/hubble finds or builds it) and skips without.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent import clock
from agent.api.flow import flow_pb2
from agent.hubble import agent_events, flows, server
from agent.model import verdict
from agent.observer import stream
from tests.hubble import certificates, naive, serving, variety

pytestmark = pytest.mark.slow  # each test starts a program of 70 MB

RECORDS = variety.flows()
MESSAGES = tuple(flows.flow(record, version="7") for record in RECORDS)
PATIENCE_S = 30


class Cli:
    """The command line, and the agent it is pointed at; that runs in a thread of its own."""

    def __init__(
        self, program: pathlib.Path, socket: pathlib.Path, home: pathlib.Path, tcp: server.Tcp | None = None
    ) -> None:
        """Nothing runs yet; see `served`. With `tcp` the command line asks there, else on the socket."""
        self._command = [str(program), "--server", f"unix://{socket}" if tcp is None else f"tls://{tcp.target}"]
        self._tcp = tcp
        self._environment = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home)}
        self._socket = socket
        self.verdicts = stream.Stream(clock=clock.SystemClock())

    @contextlib.contextmanager
    def served(self) -> Iterator[Cli]:
        """Serve what is published, inside the context."""
        ready, loop, end = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

        async def serve() -> None:
            node, now = serving.Node(), clock.SystemClock()
            async with server.serving(
                self.verdicts,
                node,
                events=agent_events.AgentEvents(node, name=variety.NODE, clock=now),
                name=variety.NODE,
                version="7",
                socket=self._socket,
                clock=now,
                tcp=self._tcp,
            ):
                ready.set()
                await end.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            assert ready.wait(PATIENCE_S)
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()
            loop.close()

    def __call__(self, *words: str) -> str:
        """Run it and return what it prints; fails where it complains."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words],
            env=self._environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Run it while the context lasts."""
        with subprocess.Popen(
            [*self._command, *words],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.terminate()

    def seen(self, *words: str) -> list[int]:
        """Return the numbers of the flows that `observe` prints."""
        return [_serial(json.loads(line)) for line in self("observe", "-o", "json", *words).splitlines()]


def _serial(answer: dict[str, Any]) -> int:
    return int(answer["flow"]["uuid"].rpartition("-")[2], 16)


@pytest.fixture(scope="module")
def cli(hubble: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    directory = tmp_path_factory.mktemp("hubble")
    with Cli(hubble, directory / "state" / "hubble.sock", directory).served() as started:
        started.verdicts.publish([record.event for record in RECORDS])
        yield started


def test_status_says_how_many_flows_there_are(cli: Cli) -> None:
    said = cli("status")
    assert "Ok" in said
    assert "Current/Max Flows: 400/4,096" in said
    assert "Connected Nodes: 1/1" in said


def test_nodes_and_namespaces_are_listed(cli: Cli) -> None:
    assert [line.split()[:2] for line in cli("list", "nodes").splitlines()[1:]] == [["n1", "Connected"]]
    assert [line.strip() for line in cli("list", "namespaces").splitlines()[1:]] == ["default", "x", "y"]


def test_peers_are_watched(cli: Cli) -> None:
    with cli.running("watch", "peers") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
    assert "PEER_ADDED" in line
    assert "n1" in line


def test_agent_events_are_observed(cli: Cli) -> None:
    assert "AGENT_STARTED" in cli("observe", "agent-events", "--last", "1", "-o", "json")


def test_the_api_describes_itself(cli: Cli) -> None:
    described = [json.loads(line) for line in cli("reflect").splitlines()]
    assert {"observer.Observer", "peer.Peer"} <= {
        f"{file['package']}.{service['name']}" for file in described for service in file.get("service", ())
    }


def test_json_says_all_that_a_flow_does(cli: Cli) -> None:
    told = [json.loads(line) for line in cli("observe", "--all", "-o", "json").splitlines()]
    assert [_serial(answer) for answer in told] == list(range(400))
    for answer, message in zip(told, MESSAGES, strict=True):
        flow = answer["flow"]
        assert {name for name in flow if name != "time"} == {
            field.name for field, _ in message.ListFields() if field.name != "time"
        }
        assert flow["Summary"] == message.Summary
        assert flow.get("verdict") == flow_pb2.Verdict.Name(message.verdict)
        for name in ("egress_denied_by", "ingress_denied_by", "egress_allowed_by", "ingress_allowed_by"):
            assert [one["name"] for one in flow.get(name, ())] == [one.name for one in getattr(message, name)]


@pytest.mark.parametrize("form", ["compact", "dict", "table", "json", "jsonpb"])
def test_every_form_names_the_pods_and_the_verdict_and_no_control_character(cli: Cli, form: str) -> None:
    said = cli("observe", "--all", "-o", form, "--print-node-name", "--color", "never")
    assert said.replace("\n", "").isprintable()
    assert "n1" in said
    assert "web-1" in said
    if not form.startswith("json"):
        assert "DENIED" in said
        assert "ALLOWED" in said
        assert "EGRESS" in said
        assert "api.example.com" in said


def test_the_policies_that_deny_by_default_are_printed(cli: Cli) -> None:
    uuids = [json.loads(line)["flow"]["uuid"] for line in cli("observe", "--all", "-o", "json").splitlines()]
    denied = next(record for record in RECORDS if record.event.isolating)
    said = cli("observe", "--print-policy-names", "--uuid", uuids[denied.serial], "--color", "never")
    for ref in denied.event.isolating:
        assert ref.name in said.partition("DENIED BY")[2]
    allowed = next(record for record in RECORDS if record.event.reason is verdict.Reason.RULE_ALLOWED)
    said = cli("observe", "--print-policy-names", "--uuid", uuids[allowed.serial], "--color", "never")
    assert "ALLOWED BY web" in said


FILTERS: tuple[tuple[Sequence[str], Sequence[dict[str, Any]], Sequence[dict[str, Any]]], ...] = (
    (["--verdict", "DROPPED"], [{"verdict": ["DROPPED"]}], []),
    (["--pod", "x/web"], [{"source_pod": ["x/web"]}, {"destination_pod": ["x/web"]}], []),
    (["--pod", "lone"], [{"source_pod": ["default/lone"]}, {"destination_pod": ["default/lone"]}], []),
    (["--from-pod", "x/web-1", "--to-pod", "y/"], [{"source_pod": ["x/web-1"], "destination_pod": ["y/"]}], []),
    (["--namespace", "x"], [{"source_pod": ["x/"]}, {"destination_pod": ["x/"]}], []),
    (["--from-namespace", "y"], [{"source_pod": ["y/"]}], []),
    (["-A"], [{"source_pod": ["/"]}, {"destination_pod": ["/"]}], []),
    (["--label", "app=web"], [{"source_label": ["app=web"]}, {"destination_label": ["app=web"]}], []),
    (["--to-label", "reserved:world"], [{"destination_label": ["reserved:world"]}], []),
    (["--ip", "10.0.0.0/24"], [{"source_ip": ["10.0.0.0/24"]}, {"destination_ip": ["10.0.0.0/24"]}], []),
    (["--to-ip", "203.0.113.7"], [{"destination_ip": ["203.0.113.7"]}], []),
    (["--port", "53"], [{"source_port": ["53"]}, {"destination_port": ["53"]}], []),
    (["--to-port", "443"], [{"destination_port": ["443"]}], []),
    (["--protocol", "udp"], [{"protocol": ["udp"]}], []),
    (["--protocol", "icmp"], [{"protocol": ["icmp"]}], []),
    (["--to-fqdn", "*.example.com"], [{"destination_fqdn": ["*.example.com"]}], []),
    (
        ["--service", "kube-system/dns"],
        [{"source_service": ["kube-system/dns"]}, {"destination_service": ["kube-system/dns"]}],
        [],
    ),
    (["--to-identity", "300"], [{"destination_identity": [300]}], []),
    (["--type", "policy-verdict"], [{"event_type": [{"type": 5}]}], []),
    (["--type", "drop"], [{"event_type": [{"type": 1}]}], []),
    (["-6"], [{"ip_version": ["IPv6"]}], []),
    (["--node-name", "n*"], [{"node_name": ["n*"]}], []),
    (["--traffic-direction", "ingress"], [{"traffic_direction": ["INGRESS"]}], []),
    (["--drop-reason-desc", "POLICY_DENIED"], [{"drop_reason_desc": ["POLICY_DENIED"]}], []),
    (["--from-cluster", "default"], [{"source_cluster_name": ["default"]}], []),
    (["--not", "--verdict", "DROPPED"], [], [{"verdict": ["DROPPED"]}]),
    (
        ["--verdict", "DROPPED", "--not", "--port", "53"],
        [{"verdict": ["DROPPED"]}],
        [{"source_port": ["53"]}, {"destination_port": ["53"]}],
    ),
)


@pytest.mark.parametrize(("words", "allow", "deny"), FILTERS, ids=lambda value: " ".join(map(str, value))[:40])
def test_each_filter_of_the_command_line_admits_what_a_naive_one_admits(
    cli: Cli, words: Sequence[str], allow: Sequence[dict[str, Any]], deny: Sequence[dict[str, Any]]
) -> None:
    allowed, denied = ([flow_pb2.FlowFilter(**one) for one in some] for some in (allow, deny))
    expected = [
        number
        for number, flow in enumerate(MESSAGES)
        if not allowed or any(naive.admits(one, flow) for one in allowed)
        if not any(naive.admits(one, flow) for one in denied)
    ]
    assert expected
    assert cli.seen("--all", *words) == expected


def test_last_first_since_and_until(cli: Cli) -> None:
    assert cli.seen() == list(range(380, 400))
    assert cli.seen("--last", "3") == [397, 398, 399]
    assert cli.seen("--first", "3") == [0, 1, 2]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(variety.BEGAN_NS // 10**9 + 2))
    assert cli.seen("--since", moment) == list(range(200, 400))
    assert cli.seen("--until", moment, "--since", "2000-01-01") == list(range(201))
    assert (
        cli.seen("--last", "2", "--verdict", "FORWARDED")
        == [number for number, flow in enumerate(MESSAGES) if flow.verdict == flow_pb2.FORWARDED][-2:]
    )


def test_following_prints_what_comes_and_what_was_lost(hubble: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with Cli(hubble, tmp_path / "state" / "hubble.sock", tmp_path).served() as cli:
        cli.verdicts.publish([record.event for record in RECORDS[:5]])
        with cli.running("observe", "--follow", "--last", "2", "-o", "json") as process:
            assert process.stdout is not None
            assert [_serial(json.loads(process.stdout.readline())) for _ in range(2)] == [3, 4]
            cli.verdicts.publish([record.event for record in RECORDS[5:8]])
            assert [_serial(json.loads(process.stdout.readline())) for _ in range(3)] == [5, 6, 7]
            cli.verdicts.tell_lost(verdict.Lost(count=9, where="ring"))
            lost = json.loads(process.stdout.readline())
            assert (lost["lost_events"]["source"], lost["lost_events"]["num_events_lost"]) == (
                "PERF_EVENT_RING_BUFFER",
                "9",
            )
            assert (lost["node_name"], "time" in lost) == ("n1", True)


def test_the_same_is_read_over_mutual_tls(hubble: pathlib.Path, tmp_path: pathlib.Path) -> None:
    authority = certificates.Authority(tmp_path / "ca")
    files, own = authority.sign(tmp_path / "server"), authority.sign(tmp_path / "client", name="collector")
    tcp = server.Tcp(address=serving.LOOPBACK, port=serving.free_port(), files=files)
    trusted = ["--tls-ca-cert-files", str(authority.certificate), "--tls-server-name", certificates.SERVER_NAME]
    proof = ["--tls-client-cert-file", str(own.certificate), "--tls-client-key-file", str(own.key)]
    with Cli(hubble, tmp_path / "hubble.sock", tmp_path, tcp).served() as cli:
        cli.verdicts.publish([record.event for record in RECORDS])
        assert "400/4,096" in cli("status", *trusted, *proof)
        assert cli.seen("--last", "3", *trusted, *proof) == [397, 398, 399]
        assert "n1" in cli("list", "nodes", *trusted, *proof)
        assert "x" in cli("list", "namespaces", *trusted, *proof).split()
        with cli.running("watch", "peers", *trusted, *proof) as process:
            assert process.stdout is not None
            assert "PEER_ADDED" in process.stdout.readline()
        assert cli.run("status", *trusted).returncode != 0


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["--http-status", "404"], 9),
        (["--tcp-flags", "syn"], 23),
        (["--workload", "x/y"], 26),
        (["--encrypted"], 40),
        (["--cel-expression", "true"], 999),
    ],
)
def test_a_filter_this_agent_cannot_answer_is_refused_by_name_and_number(
    cli: Cli, words: Sequence[str], number: int
) -> None:
    done = cli.run("observe", *words)
    assert done.returncode != 0
    assert f"field {number}" in done.stderr
