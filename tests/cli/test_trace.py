"""`agentctl trace`, `bpf` and `ipt`: what is printed, and what the shell learns."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Generator, Iterator

import pytest
from click import testing

from agent.cli import bpf, main, output, trace
from agent.datapath import tracing
from agent.model import net, resources, verdict
from agent.rpc import client, traces
from tests.support import agents

HOSTILE = "\x1b[31m"
ANSWER = tracing.Answer(
    allowed=True,
    reason="rule_allowed",
    why="by NetworkPolicy x/p egress[0]",
    lookups=(
        tracing.Looked(table="ep_by_ip4", key="10.0.0.2", entry="10.0.0.2", value=f"endpoint 1 (x/{HOSTILE})"),
        tracing.Looked(table="ipcache_cidr4", key="10.0.0.3", entry="10.0.0.0/8", value="identity 300"),
    ),
)
DENIED = dataclasses.replace(ANSWER, allowed=False, reason="policy_denied", why="set 5 isolates")
DIFFERENCE = tracing.Difference(table="policy", row="set 5", expected="allow", found="no entry")
PROGRAM = tracing.Program(
    name="nw_connect4", type="cgroup_sock_addr", id=7, tag="ab12", instructions=900, attached="cgroup /x", pin="/p"
)
POLICY_MAP = tracing.TableUse(kind=tracing.Kind.MAP, name="policy", type="lpm_trie", entries=256, capacity=1024)
RING = tracing.TableUse(kind=tracing.Kind.MAP, name="events", type="ringbuf", entries=4096, capacity=4096)
CHAIN = tracing.TableUse(kind=tracing.Kind.CHAIN, name="NW-FORWARD", type="filter", family=4, entries=7)


def side(direction: net.Direction, *, allowed: bool = True) -> traces.Side:
    return traces.Side(
        direction=direction,
        allowed=allowed,
        subject=resources.ObjectRef("Pod", "x", "a"),
        rule=None,
        isolating=(),
        because=f"because of {HOSTILE}",
        judged_here=direction is net.Direction.EGRESS,
    )


def traced(
    *, allowed: bool = True, disagreements: tuple[str, ...] = (), differences: tuple[tracing.Difference, ...] = ()
) -> traces.Traced:
    flow = traces.FlowTrace(
        source="x/a",
        destination="x/b",
        source_address=agents.CLIENT,
        destination_address=agents.SERVER,
        protocol=6,
        port=443,
        dialled="10.96.0.1:443",
        service=resources.ObjectRef("Service", "x", "web"),
        egress=side(net.Direction.EGRESS),
        ingress=side(net.Direction.INGRESS, allowed=allowed),
        path="forward",
        path_why="forwarded by node n1",
        layers=(
            tracing.Layer(
                layer=verdict.Layer.PACKET,
                hook="forward",
                compiled=ANSWER,
                loaded=ANSWER if allowed else DENIED,
                differences=differences,
            ),
        ),
        disagreements=disagreements,
        allowed=allowed,
        verdicts=(agents.flow(),),
    )
    return traces.Traced(node="n1", mode="socket+nfbpf", generation=3, flows=(flow,))


class Answering:
    """A client of an agent that answers with what it was given."""

    def __init__(self, found: traces.Traced | None = None, tables: tuple[tracing.TableUse, ...] = ()) -> None:
        """Answer with a trace, and with tables and one program."""
        self.found, self.held = found, tables
        self.asked: dict[str, object] = {}

    def trace(self, source: str, destination: str, port: str, asks: str = "") -> traces.Traced:
        assert (source, destination, port) == ("x/a", "service/x/web", "443/tcp")
        self.asked = {"asks": asks}
        assert self.found is not None
        return self.found

    def tables(self) -> traces.Tables:
        programs = (PROGRAM,) if POLICY_MAP in self.held else ()
        return traces.Tables(mode="some", inventory=tracing.Inventory(programs=programs, tables=self.held))

    def rows(self, table: str, **asked: object) -> Generator[tracing.Row, None, bool]:
        self.asked = {"table": table, **asked}
        yield tracing.Row(f"set 5 {HOSTILE}", "allow")
        return True


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    agent = Answering()

    @contextlib.contextmanager
    def opened(_socket: object) -> Iterator[Answering]:
        yield agent

    monkeypatch.setattr(client, "AgentClient", opened)
    return agent


def run(*words: str) -> testing.Result:
    return testing.CliRunner().invoke(main.root, [*words, "--socket", "/nowhere"])


ASK = ("trace", "--from", "x/a", "--to", "service/x/web", "--port", "443/tcp")


@pytest.mark.parametrize(
    ("found", "code", "word"),
    [
        (traced(), output.ExitCode.OK, "ALLOWED"),
        (traced(allowed=False), output.ExitCode.DISAGREEMENT, "DENIED"),
        (
            traced(allowed=False, disagreements=("model and kernel disagree",), differences=(DIFFERENCE,)),
            output.ExitCode.FAILURE,
            "DISAGREEMENT",
        ),
    ],
)
def test_the_shell_learns_the_verdict(
    answering: Answering, found: traces.Traced, code: output.ExitCode, word: str
) -> None:
    answering.found = found
    ended = run(*ASK)
    assert ended.exit_code == code
    assert ended.output.startswith(f"{word} x/a (10.0.0.2) -> x/b (10.0.0.3) 443/TCP by Service x/web at 10.96.0.1:443")


def test_what_is_in_audit_is_allowed_and_says_what_would_be_denied(answering: Answering) -> None:
    (flow,) = traced().flows
    would = dataclasses.replace(flow.ingress, would_deny=f"isolated by {HOSTILE}")
    answering.found = dataclasses.replace(traced(), flows=(dataclasses.replace(flow, ingress=would),))
    ended = run(*ASK)
    assert ended.exit_code == output.ExitCode.OK
    assert ended.output.startswith("ALLOWED IN AUDIT x/a (10.0.0.2) -> x/b")
    assert "in audit, would be denied: isolated by \\x1b[31m\n" in ended.output


def test_a_query_is_told_with_what_the_policies_say_of_it(answering: Answering) -> None:
    """Rule E17."""
    (flow,) = traced(allowed=False).flows
    query = traces.QueryTrace(name="api.example.com", allowed=False, because=f"DNS queries for {HOSTILE} alone")
    answering.found = dataclasses.replace(traced(), flows=(dataclasses.replace(flow, query=query),))
    ended = run(*ASK, "--asks", "api.example.com")
    assert answering.asked == {"asks": "api.example.com"}
    assert ended.exit_code == output.ExitCode.DISAGREEMENT
    assert " 443/TCP asking for api.example.com by Service x/web" in ended.output
    assert "policy   query   denied: DNS queries for \\x1b[31m alone\n" in ended.output
    would = dataclasses.replace(query, allowed=True, would_refuse=True)
    (flow,) = traced().flows
    answering.found = dataclasses.replace(traced(), flows=(dataclasses.replace(flow, query=would),))
    ended = run(*ASK, "--asks", "api.example.com")
    assert ended.output.startswith("ALLOWED IN AUDIT x/a")
    assert "in audit, would be refused\n" in ended.output


def test_a_trace_has_no_names(answering: Answering) -> None:
    answering.found = traced()
    ended = run(*ASK, "-o", "name")
    assert ended.exit_code == output.ExitCode.USAGE
    assert "'name'" in ended.output


def test_names_are_what_dump_and_show_take(answering: Answering) -> None:
    answering.held = (POLICY_MAP, RING)
    assert run("bpf", "maps", "-o", "name").output == "policy\nevents\n"
    assert run("bpf", "progs", "-o", "name").output == "nw_connect4\n"
    answering.held = (CHAIN,)
    assert run("ipt", "show", "-o", "name").output == "NW-FORWARD\n"


def test_a_difference_names_map_and_row(answering: Answering) -> None:
    answering.found = traced(allowed=False, disagreements=("model and kernel disagree",), differences=(DIFFERENCE,))
    text = run(*ASK).output
    assert "! model and kernel disagree\n" in text
    assert "  ! policy [set 5]\n      expected allow\n      found    no entry\n" in text


def test_each_look_up_says_what_was_asked_and_which_entry_answered(answering: Answering) -> None:
    answering.found = traced()
    text = run(*ASK).output
    assert "    ipcache_cidr4 [10.0.0.3] by 10.0.0.0/8 = identity 300\n" in text
    assert "last verdicts\n" in text
    assert "[not judged here]" in text


def test_no_control_character_is_printed(answering: Answering) -> None:
    answering.found = traced()
    for more in ((), ("-o", "json"), ("-o", "yaml")):
        assert HOSTILE not in run(*ASK, *more).output
    assert HOSTILE not in run("bpf", "dump", "policy").output


def test_as_json_the_trace_is_whole(answering: Answering) -> None:
    answering.found = traced(differences=(DIFFERENCE,), disagreements=("model and kernel disagree",))
    told = json.loads(run(*ASK, "-o", "json").output)
    (flow,) = told["flows"]
    assert (told["node"], flow["path"], flow["disagreements"]) == ("n1", "forward", ["model and kernel disagree"])
    (layer,) = flow["layers"]
    assert layer["differences"] == [{"table": "policy", "row": "set 5", "expected": "allow", "found": "no entry"}]
    assert layer["loaded"]["lookups"][0]["table"] == "ep_by_ip4"


def test_maps_are_listed_with_how_full_they_are(answering: Answering) -> None:
    answering.held = (POLICY_MAP, RING, CHAIN)
    lines = run("bpf", "maps").output.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["policy", "lpm_trie", "256", "1024", "25.0", "%"],
        ["events", "ringbuf", "4096", "4096", "-"],
    ]
    assert "nw_connect4  cgroup_sock_addr  cgroup /x" in run("bpf", "progs").output


def test_an_engine_says_what_it_has_not(answering: Answering) -> None:
    answering.held = (CHAIN,)
    for verb in ("maps", "progs"):
        ended = run("bpf", verb)
        assert ended.exit_code == output.ExitCode.FAILURE
        assert "has no BPF in the kernel" in ended.output
    assert "NW-FORWARD" in run("ipt", "show").output
    answering.held = (POLICY_MAP,)
    assert "has no rules of iptables" in run("ipt", "show").output


def test_a_dump_says_that_there_is_more(answering: Answering) -> None:
    ended = run("bpf", "dump", "policy", "--pod", "x/a", "--set", "5", "--limit", "1")
    assert answering.asked == {"table": "policy", "endpoint": "x/a", "policy_set": 5, "limit": 1}
    assert "the first 1 rows; --limit 0 shows all" in ended.output
    run("ipt", "show", "--pod", "x/a")
    assert answering.asked == {"table": "", "endpoint": "x/a", "policy_set": 0, "limit": bpf.ROWS_SHOWN}


def test_a_flow_without_ports_is_named_by_its_protocol(answering: Answering) -> None:
    found = traced()
    flow = dataclasses.replace(found.flows[0], port=0, protocol=1)
    assert next(trace.lines(dataclasses.replace(found, flows=(flow,)))).find(" ICMP by ") > 0
    assert answering.found is None
