"""`agentctl observe`: live and from a recording, with Hubble's flags; what strangers wrote stays text."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
import pytest
import yaml
from click import testing

from agent import errors
from agent.api.flow import flow_pb2
from agent.cli import flow_filters, flow_lines, jsonpath, main, observe
from agent.flows import records
from agent.model import verdict
from agent.observer import stream
from tests.flows import recording
from tests.hubble import stock, test_stock_cli, variety
from tests.support import agents, served

COUNT = 120
FLOWS = variety.flows(COUNT)
HOSTILE = "cu\x1b[31mrl\r\n\u202e\x7f"
NOW_NS = 1_795_270_602_000_000_000


@pytest.fixture(scope="module", name="file")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("flows") / "flows.json"
    path.write_bytes(b"".join(recording.line(one) + b"\n" for one in FLOWS))
    return path


@pytest.fixture(scope="module", name="socket")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Serve the same flows as an agent does; gives the agent's own socket, which nobody asks."""
    directory = tmp_path_factory.mktemp("state")
    with stock.Cli(pathlib.Path("hubble"), directory / "state" / "hubble.sock", directory).served() as agent:
        agent.verdicts.publish([record.event for record in FLOWS])
        yield directory / "state" / "agent.sock"


def run(*words: str, code: int = 0, stdin: bytes | None = None) -> str:
    result = testing.CliRunner().invoke(main.root, ["observe", *words], input=stdin)
    assert result.exit_code == code, result.output
    return result.output


def serials(printed: str) -> list[int]:
    return [int(json.loads(line)["flow"]["uuid"].rpartition("-")[2], 16) for line in printed.splitlines()]


@pytest.mark.parametrize(("words", "allow", "deny"), test_stock_cli.FILTERS[:24], ids=lambda value: str(value)[:40])
def test_flags_make_the_filters_that_hubbles_make(
    words: Sequence[str], allow: Sequence[dict[str, Any]], deny: Sequence[dict[str, Any]]
) -> None:
    if {"-A", "-6", "lone"} & set(words):
        pytest.skip("not a flag here, or the agent adds the namespace")
    assert made(words) == [[flow_pb2.FlowFilter(**one) for one in some] for some in (allow, deny)]


MORE: tuple[tuple[Sequence[str], Sequence[dict[str, Any]], Sequence[dict[str, Any]]], ...] = (
    (
        ["--pod", "a/b", "--port", "80"],
        [
            {"source_pod": ["a/b"], "source_port": ["80"]},
            {"destination_pod": ["a/b"], "destination_port": ["80"]},
        ],
        [],
    ),
    (["--namespace", "x", "--pod", "y"], [{"source_pod": ["x/y"]}, {"destination_pod": ["x/y"]}], []),
    (
        ["--from-namespace", "x", "--from-pod", "y", "--to-pod", "z"],
        [{"source_pod": ["x/y"], "destination_pod": ["z"]}],
        [],
    ),
    (
        ["--label", "app=x", "--ip", "1.2.3.4", "--to-port", "80"],
        [
            {"source_ip": ["1.2.3.4"], "source_label": ["app=x"], "destination_port": ["80"]},
            {"destination_ip": ["1.2.3.4"], "destination_label": ["app=x"], "destination_port": ["80"]},
        ],
        [],
    ),
    (
        ["--verdict", "FORWARDED", "--not", "--pod", "a/b", "--port", "80"],
        [
            {"verdict": ["FORWARDED"], "source_port": ["80"]},
            {"verdict": ["FORWARDED"], "destination_port": ["80"]},
        ],
        [{"source_pod": ["a/b"]}, {"destination_pod": ["a/b"]}],
    ),
    (
        ["--namespace", "x", "--not", "--from-ip", "10.0.0.1", "--not", "--to-ip", "10.0.0.2"],
        [{"source_pod": ["x/"]}, {"destination_pod": ["x/"]}],
        [{"source_ip": ["10.0.0.1"], "destination_ip": ["10.0.0.2"]}],
    ),
    (["--pod", "a", "--pod", "b"], [{"source_pod": ["a", "b"]}, {"destination_pod": ["a", "b"]}], []),
    (["--identity", "world"], [{"source_identity": [2]}, {"destination_identity": [2]}], []),
)


def made(words: Sequence[str]) -> list[list[flow_pb2.FlowFilter]]:
    """Return the two lists of filters that flags make."""
    context = observe.observe.make_context("observe", list(words))
    flags = {flag.replace("-", "_") for flag in flow_filters.every_flag()}
    values = {name: given for name, given in context.params.items() if name.removeprefix("not_") in flags}
    request = flow_filters.request(
        values, last=None, first=None, everything=True, follow=False, since="", until="", now_ns=NOW_NS
    )
    return [list(request.whitelist), list(request.blacklist)]


@pytest.mark.parametrize(("words", "allow", "deny"), MORE, ids=lambda value: str(value)[:40])
def test_flags_that_stand_together_make_the_filters_that_hubbles_make(
    words: Sequence[str], allow: Sequence[dict[str, Any]], deny: Sequence[dict[str, Any]]
) -> None:
    assert made(words) == [[flow_pb2.FlowFilter(**one) for one in some] for some in (allow, deny)]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--last", "3"],
        ["--first", "3", "--verdict", "dropped"],
        ["--all", "--pod", "x/web", "--not", "--verdict", "DROPPED"],
        ["--since", "2023-11-14T22:13:20.500Z", "--until", "2023-11-14T22:13:21Z"],
    ],
    ids=" ".join,
)
def test_a_recording_answers_as_the_agent_does(words: list[str], socket: pathlib.Path, file: pathlib.Path) -> None:
    whole = words or ["--all"]
    live = run(*whole, "-o", "json", "--socket", str(socket))
    replayed = run(*whole, "-o", "json", "--input-file", str(file))
    assert serials(live) == serials(replayed)
    assert serials(live)
    assert [_without_numbers(line) for line in live.splitlines()] == [
        _without_numbers(line) for line in replayed.splitlines()
    ]
    assert run(*whole, "--input-file", "-", "-o", "json", stdin=file.read_bytes()) == replayed


def _without_numbers(line: str) -> dict[str, Any]:
    """Return a flow without what each life of an agent numbers anew."""
    document: dict[str, Any] = json.loads(line)
    document["flow"].pop("uuid")
    return document


def test_twenty_are_shown_unless_told_and_a_recording_is_shown_whole(socket: pathlib.Path, file: pathlib.Path) -> None:
    assert len(run("--socket", str(socket)).splitlines()) == 20
    assert len(run("--input-file", str(file)).splitlines()) == COUNT


@pytest.mark.parametrize("form", ["compact", "dict", "table"])
def test_every_form_says_who_whom_what_and_by_which_policy(form: str, file: pathlib.Path) -> None:
    said = run("--input-file", str(file), "-o", form)
    assert said.replace("\n", "").isprintable()
    for word in ("n1", "x/web-1 (300)", "DROPPED", "FORWARDED", "egress", "isolated by NetworkPolicy x/deny-all"):
        assert word in said
    assert "api.example.com" in said


def test_what_is_printed_as_json_or_yaml_is_the_recording(file: pathlib.Path) -> None:
    printed = run("--input-file", str(file), "-o", "json")
    assert [json.loads(one) for one in printed.splitlines()] == [
        json.loads(one) for one in file.read_text().splitlines()
    ]
    documents = yaml.safe_load_all(run("--input-file", str(file), "-o", "yaml", "--first", "2"))
    assert list(documents) == [json.loads(one) for one in file.read_text().splitlines()[:2]]


POD_TO_POD = "jsonpath={.flow.source.pod_name} -> {.flow.destination.pod_name}: {.flow.verdict}"


def test_a_jsonpath_prints_each_flow_in_a_line_of_its_own(file: pathlib.Path, socket: pathlib.Path) -> None:
    flows = [json.loads(line)["flow"] for line in file.read_text().splitlines()]
    expected = [
        f"{flow['source'].get('pod_name', '')} -> {flow['destination'].get('pod_name', '')}: {flow['verdict']}"
        for flow in flows
    ]
    assert run("--input-file", str(file), "-o", POD_TO_POD).splitlines() == expected
    assert run("--all", "-o", POD_TO_POD, "--socket", str(socket)).splitlines() == expected
    ended = run("--input-file", str(file), "-o", POD_TO_POD + '{"\\n"}', "--first", "2")
    assert ended.splitlines() == expected[:2], "who ends the line as kubectl needs it gets no empty one"
    nowhere = run("--input-file", str(file), "-o", "jsonpath={.nowhere}", "--first", "3")
    assert nowhere == "\n" * 3, "a flow that has not what is asked for keeps its line"


def test_a_line_names_the_rule_and_the_process_and_can_do_nothing() -> None:
    event = next(one.event for one in FLOWS if one.event.reason is verdict.Reason.RULE_ALLOWED)
    hostile = dataclasses.replace(
        event,
        node=HOSTILE,
        process=verdict.Process(pid=7, command=HOSTILE),
        source=dataclasses.replace(event.source, namespace=HOSTILE, pod=HOSTILE),
    )
    (line,) = records.Reader([recording.line(dataclasses.replace(FLOWS[0], event=hostile))])
    for form in ("compact", "dict", "json", "yaml", jsonpath.parse("{..*}")):
        said = click.unstyle(observe.printed(line, form, policies=True))
        assert said.replace("\n", "").isprintable()
    assert isinstance(line.item, records.Record)
    assert "by NetworkPolicy x/" in flow_lines.why(line.item, policies=True)
    assert "[7]" in flow_lines.why(line.item)


def test_colour_is_for_terminals(file: pathlib.Path) -> None:
    assert "\x1b" not in run("--input-file", str(file))
    said = testing.CliRunner().invoke(main.root, ["observe", "--input-file", str(file), "--last", "1"], color=True)
    assert re.search("\x1b\\[3[12]m", said.output)


def test_lost_verdicts_are_a_line_of_their_own() -> None:
    lost = records.Line(records.Lost(count=3, node="n1"), {"lost_events": {"num_events_lost": "3"}})
    assert click.unstyle(observe.printed(lost, "compact")) == "... 3 verdicts lost on n1"
    assert "LOST: 3 on n1" in observe.printed(lost, "dict")
    assert json.loads(observe.printed(lost, "json")) == lost.document


def test_malformed_lines_are_an_error_or_counted(file: pathlib.Path) -> None:
    broken = file.read_bytes() + b"{\n" + b"a" * (2 << 20) + b"\n"
    assert "line 121 of the flows" in run("--input-file", "-", code=2, stdin=broken)
    said = run("--input-file", "-", "--skip-malformed", stdin=broken)
    assert "2 lines of - could not be read" in said
    assert len(said.splitlines()) == COUNT + 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--last", "1", "--all"], "give one of"),
        (["--first", "1", "--follow"], "leave it out to follow"),
        (["-o", "table", "--follow"], "leave it out to follow"),
        (["-o", "wide"], "jsonpath=EXPR"),
        (["-o", "jsonpath=.flow"], "write it as kubectl does"),
        (["-o", "jsonpath={.flow"], "a { is not closed"),
        (["--not"], "--not reverses the next filter"),
        (["--not", "--last", "1"], "--not reverses the next filter"),
        (["--pod", "a", "--from-pod", "b"], "means either end already"),
        (["--namespace", "x", "--pod", "y/a"], "--namespace says x"),
        (["--verdict", "maybe"], "write one of FORWARDED"),
        (["--type", "elephant"], "write one of drop"),
        (["--identity", "nobody"], "write a number"),
        (["--port", "x"], "write a port number"),
        (["--since", "yesterday"], "write how long ago"),
        (["--input-file", "/nowhere"], "cannot be opened"),
        (["--input-file", "/"], "it cannot be"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_are_usage(words: list[str], why: str, file: pathlib.Path) -> None:
    given = words if "--input-file" in words or "--follow" in words else [*words, "--input-file", str(file)]
    assert why in run(*given, code=2)


def test_a_request_the_agent_refuses_is_usage_and_none_that_answers_is_a_failure(socket: pathlib.Path) -> None:
    assert "label selector" in run("--label", "a b c", "--socket", str(socket), code=2)
    assert "no agent answers" in run("--socket", "/nowhere/agent.sock", code=4)


@pytest.mark.parametrize(
    ("text", "ago_s"), [("5m", 300), ("1h30m", 5400), ("2d", 172800), ("500ms", 0.5), ("2026-11-21T14:16:42Z", 0)]
)
def test_moments_are_durations_or_dates(text: str, ago_s: float) -> None:
    assert flow_filters.moment(text, NOW_NS, field="--since") == NOW_NS - int(ago_s * 10**9)


def test_a_date_without_a_zone_is_utc() -> None:
    assert flow_filters.moment("1970-01-02", 0, field="--since") == 86400 * 10**9
    with pytest.raises(errors.InvalidInput, match="--until"):
        flow_filters.moment("99999h99999h9999999999h", 0, field="--until")


@pytest.fixture(scope="module", name="agent_socket")
def telling_by_layer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """Serve the same verdicts over the agent's own socket, which alone tells what each layer said."""
    verdicts = stream.Stream(clock=agents.ManualClock())
    verdicts.publish([record.event for record in FLOWS])
    directory = tmp_path_factory.mktemp("raw")
    with served.agent(directory / "agent.sock", served.Node(None), verdicts=verdicts) as path:
        yield path


@pytest.mark.parametrize("words", [["--all"], ["--last", "7"], ["--first", "7"], ["--all", "--verdict", "DROPPED"]])
def test_raw_verdicts_are_narrowed_as_others_are(
    words: list[str], agent_socket: pathlib.Path, socket: pathlib.Path
) -> None:
    raw = [json.loads(line) for line in run("--raw", "--socket", str(agent_socket), *words, "-o", "json").splitlines()]
    told = [json.loads(line) for line in run("--socket", str(socket), *words, "-o", "json").splitlines()]
    assert [plain(one["flow"]) for one in raw] == [plain(one["flow"]) for one in told]
    assert raw


def plain(flow: dict[str, Any]) -> dict[str, Any]:
    """Return a flow without its number and who emits it: the agent's own stream has neither."""
    return {name: value for name, value in flow.items() if name not in {"uuid", "emitter"}}


@pytest.mark.parametrize(("words", "count"), [((), 0), (("--last", "3"), 3), (("--since", "2020-01-01"), COUNT)])
def test_raw_verdicts_are_followed_from_where_it_is_asked(
    words: tuple[str, ...], count: int, agent_socket: pathlib.Path
) -> None:
    """As the flows of the other socket are: without a number or a moment, from now on."""
    values: dict[str, Any] = {"last": None, "since": ""}
    values |= {"last": 3} if "--last" in words else {"since": words[1]} if words else {}
    asked = flow_filters.request(
        {}, **values, first=None, everything=False, follow=True, until="", now_ns=time.time_ns()
    )
    found: list[object] = []
    lines = observe.live(agent_socket, asked, raw=True)
    reader = threading.Thread(target=lambda: found.extend(itertools.islice(lines, count)), daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive()
    assert len(found) == count


def test_raw_is_no_question_to_a_recording(file: pathlib.Path) -> None:
    assert "a recording has what was recorded" in run("--raw", "--input-file", str(file), code=2)
