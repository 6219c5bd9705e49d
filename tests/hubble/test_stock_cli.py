"""Hubble's own command line reads this agent; the program is built from its source and knows nothing of us.

Its flags, one by one; what it prints in each form, and over TLS, is in test_stock_forms.

Needs it (scripts/hubble finds or builds it) and skips without.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent.api.flow import flow_pb2
from agent.hubble import flows
from agent.model import verdict
from tests.hubble import naive, printed, stock, variety

pytestmark = pytest.mark.slow  # each test starts a program of 70 MB

RECORDS = variety.flows()
MESSAGES = tuple(flows.flow(record, version="7") for record in RECORDS)


@pytest.fixture(scope="module")
def cli(hubble: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[stock.Cli]:
    directory = tmp_path_factory.mktemp("hubble")
    with stock.Cli(hubble, directory / "state" / "hubble.sock", directory).served() as started:
        started.verdicts.publish([record.event for record in RECORDS])
        yield started


def test_agent_events_are_observed(cli: stock.Cli) -> None:
    assert "AGENT_STARTED" in cli("observe", "agent-events", "--last", "1", "-o", "json")


def test_the_api_describes_itself(cli: stock.Cli) -> None:
    described = [json.loads(line) for line in cli("reflect").splitlines()]
    assert {"observer.Observer", "peer.Peer"} <= {
        f"{file['package']}.{service['name']}" for file in described for service in file.get("service", ())
    }


def test_json_says_all_that_a_flow_does(cli: stock.Cli) -> None:
    assert printed.read(cli("observe", "--all", "-o", "json"), "json") == printed.expected(MESSAGES, "json")


def test_the_policies_that_deny_by_default_are_printed(cli: stock.Cli) -> None:
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
    cli: stock.Cli, words: Sequence[str], allow: Sequence[dict[str, Any]], deny: Sequence[dict[str, Any]]
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


def test_last_first_since_and_until(cli: stock.Cli) -> None:
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
    with stock.Cli(hubble, tmp_path / "state" / "hubble.sock", tmp_path).served() as cli:
        cli.verdicts.publish([record.event for record in RECORDS[:5]])
        with cli.running("observe", "--follow", "--last", "2", "-o", "json") as process:
            assert process.stdout is not None
            assert [stock.serial(json.loads(process.stdout.readline())) for _ in range(2)] == [3, 4]
            cli.verdicts.publish([record.event for record in RECORDS[5:8]])
            assert [stock.serial(json.loads(process.stdout.readline())) for _ in range(3)] == [5, 6, 7]
            cli.verdicts.tell_lost(verdict.Lost(count=9, where="ring"))
            lost = json.loads(process.stdout.readline())
            assert (lost["lost_events"]["source"], lost["lost_events"]["num_events_lost"]) == (
                "PERF_EVENT_RING_BUFFER",
                "9",
            )
            assert (lost["node_name"], "time" in lost) == ("n1", True)


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
    cli: stock.Cli, words: Sequence[str], number: int
) -> None:
    done = cli.run("observe", *words)
    assert done.returncode != 0
    assert f"field {number}" in done.stderr
