"""A flow is traced by policies, compiled state and what is loaded, and no difference is told of a change under way."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import itertools
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from agent import desired, errors, reconciler
from agent import snapshot as snapshot_
from agent.datapath import memory, plan, tracing
from agent.model import audit, endpoint, resources, verdict
from agent.observer import stream
from agent.policy import asked, compiler
from agent.rpc import agent_server, client, kernel, paths, service, traces
from tests.rpc import test_agent_server
from tests.states import pictures
from tests.support import agents

Answer = TypeVar("Answer")
NODE = pictures.NODE
PORT = "80/TCP"
MAP_ROWS = 1203


def enforcement(
    known: snapshot_.Snapshot, generation: int = 1, in_audit: audit.Audit = audit.NOTHING
) -> reconciler.Enforcement:
    sandboxes = tuple(
        endpoint.Sandbox(
            namespace=pod.namespace, pod=pod.name, uid=pod.uid, netns_cookie=place, veth_ifindex=place,
            ingress_ifindex=place, addresses=pod.addresses,
        )
        for place, pod in enumerate(known.pods.values(), 1000)
        if pod.node == NODE
    )  # fmt: skip
    view = endpoint.NodeView(name=NODE, sandboxes=sandboxes, audit=in_audit, learns_names=True, filters_queries=True)
    compiled = compiler.compile_node(known, view)
    return reconciler.Enforcement(
        inputs=reconciler.Inputs(audit=in_audit),
        state=compiled.state,
        snapshot=known,
        problems=(),
        generation=generation,
        unix_ns=1,
    )


def cluster(*policies: resources.Resource) -> snapshot_.Snapshot:
    names = tuple(resources.Namespace(name=name) for name in ("x", "y"))
    return snapshot_.build((*names, *pictures.NODES, *pictures.PODS, pictures.SERVICE, *policies))


CLOSED = pictures.policy("closed", pictures.rule(pictures.block("10.0.1.2/31")))
"""The pods of x that have these addresses may exchange with each other, and with nobody else."""


@dataclasses.dataclass
class Agent:
    """An agent whose datapath is tables in memory."""

    enforcement: reconciler.Enforcement | None
    datapath: memory.MemoryDatapath

    @classmethod
    def of(cls, known: snapshot_.Snapshot, in_audit: audit.Audit = audit.NOTHING) -> Agent:
        now = enforcement(known, in_audit=in_audit)
        datapath = memory.MemoryDatapath()
        applied = datapath.apply(now.state)
        return cls(dataclasses.replace(now, generation=applied.generation), datapath)

    def kernel(self, *events: verdict.VerdictEvent) -> kernel.Kernel:
        verdicts = stream.Stream(clock=agents.ManualClock())
        verdicts.publish(events)
        return kernel.Kernel(node=NODE, mode="memory", datapath=self.datapath, loop=self, stream=verdicts)

    def trace(self, source: str, destination: str, port: str = PORT, asks: str = "") -> traces.FlowTrace:
        (found,) = asyncio.run(self.kernel().trace(source, destination, port, asks)).flows
        return found


@pytest.fixture
def agent() -> Agent:
    return Agent.of(cluster(CLOSED))


def test_an_allowed_flow_is_allowed_by_all_three(agent: Agent) -> None:
    flow = agent.trace("x/a", "x/b")
    assert flow.allowed
    assert flow.disagreements == ()
    assert (flow.path, flow.egress.judged_here, flow.ingress.judged_here) == ("forward", True, True)
    assert [(layer.layer.name, layer.hook) for layer in flow.layers] == [("SOCKET", "connect"), ("PACKET", "forward")]
    assert "NetworkPolicy x/closed" in flow.layers[0].loaded.why


def test_a_denied_flow_is_denied_by_all_three_and_names_who_isolates(agent: Agent) -> None:
    flow = agent.trace("x/a", "y/a")
    assert not flow.allowed
    assert flow.disagreements == ()
    assert flow.egress.isolating == (CLOSED.ref,)
    assert "NetworkPolicy x/closed" in flow.layers[1].loaded.why


IN_AUDIT = audit.Audit(commands=frozenset({audit.Target("x")}))


@pytest.mark.parametrize(("destination", "denies"), [("y/a", True), ("x/b", False), ("10.96.0.1", False)])
def test_what_is_in_audit_passes_by_all_three_and_tells_what_it_would_deny(destination: str, *, denies: bool) -> None:
    """Rule A51."""
    agent = Agent.of(cluster(CLOSED), IN_AUDIT)
    flow = asyncio.run(agent.kernel().trace("x/a", destination, PORT)).flows[0]
    assert flow.allowed
    assert flow.disagreements == ()
    assert not any(layer.differences for layer in flow.layers)
    assert bool(flow.egress.would_deny) is denies
    packet = flow.layers[-1].loaded
    assert ("in audit" in packet.why) is denies
    if denies:
        assert "NetworkPolicy x/closed" in flow.egress.would_deny
        assert "NetworkPolicy x/closed" in packet.why


def test_the_sets_in_audit_have_the_names_of_their_policies() -> None:
    agent = Agent.of(cluster(CLOSED), IN_AUDIT)
    looked = [one for layer in agent.trace("x/a", "y/a").layers for one in layer.loaded.lookups]
    (subject,) = {one.value for one in looked if one.table == "endpoints" and "(x/a)" in one.key}
    assert "egress: not isolated" in subject
    assert "in audit set" in subject
    assert "NetworkPolicy x/closed" in subject


def test_a_row_of_a_set_in_audit_that_was_tampered_with_is_a_disagreement() -> None:
    agent = Agent.of(cluster(CLOSED), IN_AUDIT)
    agent.datapath.tables = dataclasses.replace(agent.datapath.tables, policy={})
    flow = agent.trace("x/a", "x/b")
    assert flow.allowed
    assert {one.table for layer in flow.layers for one in layer.differences} == {"policy"}


def test_a_row_that_was_tampered_with_is_a_disagreement_that_names_it(agent: Agent) -> None:
    tables = agent.datapath.tables
    agent.datapath.tables = dataclasses.replace(tables, policy={})
    flow = agent.trace("x/a", "x/b")
    assert not flow.allowed
    assert all(kernel.KERNEL in line for line in flow.disagreements)
    assert {one.table for layer in flow.layers for one in layer.differences} == {"policy"}


def test_a_row_that_differs_without_another_verdict_is_told_too(agent: Agent) -> None:
    tables = agent.datapath.tables
    rows = {key: dataclasses.replace(row, rule=row.rule + 1) for key, row in tables.policy.items()}
    agent.datapath.tables = dataclasses.replace(tables, policy=rows)
    flow = agent.trace("x/a", "x/b")
    assert flow.allowed
    assert "the verdict is the same" in flow.disagreements[0]


def test_a_compiler_that_is_wrong_is_told_apart_from_a_kernel_that_is(agent: Agent) -> None:
    assert agent.enforcement is not None
    sets = {number: dataclasses.replace(found, rows={}) for number, found in agent.enforcement.state.sets.items()}
    state = dataclasses.replace(agent.enforcement.state, sets=sets)
    applied = agent.datapath.apply(state)
    agent.enforcement = dataclasses.replace(agent.enforcement, state=state, generation=applied.generation)
    flow = agent.trace("x/a", "x/b")
    assert all(kernel.MODEL in line for line in flow.disagreements)
    assert not any(layer.differences for layer in flow.layers)


def test_what_changes_while_it_is_read_is_read_again(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    before, read = agent.datapath.tables, agent.datapath.loaded
    reads = itertools.count()

    def loaded() -> tracing.Loaded:
        under_way = next(reads) == 0
        tables = dataclasses.replace(before, generation=before.generation + 1, policy={}) if under_way else before
        agent.datapath.tables = tables
        return read()

    monkeypatch.setattr(agent.datapath, "loaded", loaded)
    assert agent.trace("x/a", "x/b").disagreements == ()
    assert next(reads) == 2


def test_a_held_endpoint_is_denied_without_a_disagreement_for_policies_do_not_know_holds(agent: Agent) -> None:
    assert agent.enforcement is not None
    state = agent.enforcement.state
    held = {number: dataclasses.replace(item, held=True) for number, item in state.endpoints.items()}
    state = dataclasses.replace(state, endpoints=held)
    applied = agent.datapath.apply(state)
    agent.enforcement = dataclasses.replace(agent.enforcement, state=state, generation=applied.generation)
    flow = agent.trace("x/a", "x/b")
    assert not flow.allowed
    assert flow.disagreements == ()
    assert flow.layers[1].loaded.reason == "endpoint_held"


@pytest.mark.parametrize(
    ("source", "destination", "path"),
    [
        ("x/a", "node/node-1", "local_in"),
        ("node/node-1", "x/a", ""),
        ("192.0.2.9", "node/node-1", ""),
        ("y/b", "192.0.2.2", ""),
        ("y/b", "x/a", "forward"),
        ("x/a", "x/a", ""),
    ],
)
def test_a_flow_is_judged_where_it_comes_by(agent: Agent, source: str, destination: str, path: str) -> None:
    assert agent.trace(source, destination).path == path


def test_a_service_is_traced_once_an_endpoint_with_what_was_dialled(agent: Agent) -> None:
    for name in ("service/x/web", "10.96.0.1"):
        flow = agent.trace("y/a", name)
        assert flow.dialled == "10.96.0.1:80"
        assert flow.service == resources.ObjectRef("Service", "x", "web")
        assert flow.destination == "x/b"
        assert flow.disagreements == ()


def test_the_last_verdicts_of_a_flow_are_told_with_it() -> None:
    agent = Agent.of(cluster(CLOSED))
    a, b = (pod.addresses[0] for pod in pictures.PODS[:2])
    base = agents.flow()
    event = dataclasses.replace(
        base,
        source=dataclasses.replace(base.source, address=a),
        destination=dataclasses.replace(base.destination, address=b),
    )
    (flow,) = asyncio.run(agent.kernel(agents.flow(), event).trace("x/a", "x/b", PORT)).flows
    assert flow.verdicts == (event,)


@pytest.mark.parametrize(
    ("source", "destination", "port", "field"),
    [
        ("x/nobody", "x/b", PORT, "--from"),
        ("x/a", "x/nobody", PORT, "--to"),
        ("x/a", "service/x/nothing", PORT, "--to"),
        ("x/a", "service/x/web", "81/TCP", "--to"),
        ("x/a", "2001:db8::1", PORT, "--to"),
        ("x/a", "x/b", "80/ABC", "--port"),
    ],
)
def test_who_does_not_exist_is_named(agent: Agent, source: str, destination: str, port: str, field: str) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        agent.trace(source, destination, port)
    assert raised.value.field == field


def test_before_the_first_policy_there_is_nothing_to_trace(agent: Agent) -> None:
    agent.enforcement = None
    with pytest.raises(errors.DatapathError, match="nothing is enforced"):
        agent.trace("x/a", "x/b")


def test_a_port_is_shown_as_it_is_read() -> None:
    for text in ("443/TCP", "53/UDP", "ICMP"):
        assert asked.shown(asked.port(text)) == text


def test_of_two_that_claim_an_address_the_greater_number_counts() -> None:
    address = ipaddress.ip_address("10.0.1.2")
    item = next(iter(enforcement(cluster()).state.endpoints.values()))
    endpoints = {number: dataclasses.replace(item, id=number, addresses=(address,)) for number in (3, 9, 5)}
    found = paths.endpoint_at(desired.DesiredState(endpoints=endpoints), address)
    assert found is not None
    assert found.id == 9


# Over the wire.


@pytest.fixture
def ask(tmp_path: pathlib.Path, agent: Agent) -> Iterator[Callable[[Callable[[client.AgentClient], Answer]], Answer]]:
    path, verdicts = tmp_path / "agent.sock", stream.Stream(clock=agents.ManualClock())
    serving, stopped, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        node = test_agent_server.Node(agent.enforcement)
        api = service.AgentService(node=node, stream=verdicts, kernel=agent.kernel())
        async with agent_server.serving(api, path):
            serving.set()
            await stopped.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert serving.wait(10)

    def asking(question: Callable[[client.AgentClient], Answer]) -> Answer:
        with client.AgentClient(path) as one:
            return question(one)

    yield asking
    loop.call_soon_threadsafe(stopped.set)
    thread.join()
    loop.close()


Ask = Callable[[Callable[[client.AgentClient], Answer]], Answer]


def test_over_the_wire_nothing_of_a_trace_is_lost(agent: Agent, ask: Ask[traces.Traced]) -> None:
    sent = asyncio.run(agent.kernel().trace("y/a", "service/x/web", PORT))
    assert ask(lambda one: one.trace("y/a", "service/x/web", PORT)) == sent


def test_over_the_wire_wrong_input_keeps_field_value_and_remedy(ask: Ask[object]) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        ask(lambda one: one.trace("x/nobody", "x/b", PORT))
    assert (raised.value.field, raised.value.value) == ("--from", "x/nobody")
    assert "x/a" in raised.value.remedy
    with pytest.raises(errors.InvalidInput, match="MAP"):
        ask(lambda one: list(one.rows("nothing")))


def test_tables_and_programs_are_listed(agent: Agent, ask: Ask[traces.Tables]) -> None:
    found = ask(lambda one: one.tables())
    assert found.mode == "memory"
    held = {one.name: one.entries for one in found.inventory.tables}
    assert held["endpoints"] == len(agent.datapath.tables.endpoints)
    assert set(held) == {table.value for table in plan.Table}


def test_rows_come_in_batches_up_to_the_limit(agent: Agent, ask: Ask[tuple[list[tracing.Row], bool]]) -> None:
    many = {ipaddress.ip_address(number): (2, 2) for number in range(1, MAP_ROWS + 1)}
    agent.datapath.tables = dataclasses.replace(agent.datapath.tables, ipcache_host=many)

    def rows(limit: int) -> tuple[list[tracing.Row], bool]:
        def gather(one: client.AgentClient) -> tuple[list[tracing.Row], bool]:
            found, got = one.rows("ipcache_host", limit=limit), []
            while True:
                try:
                    got.append(next(found))
                except StopIteration as ended:
                    return got, ended.value

        return ask(gather)

    for limit, count, more in ((0, MAP_ROWS, False), (500, 500, True), (600, 600, True), (MAP_ROWS, MAP_ROWS, False)):
        got, there_are_more = rows(limit)
        assert (len(got), there_are_more) == (count, more), limit
    assert rows(1)[0] == [tracing.Row("0.0.0.1", "identity 2 (world)")]


def test_rows_of_one_endpoint_or_set(agent: Agent, ask: Ask[list[tracing.Row]]) -> None:
    assert agent.enforcement is not None
    found = ask(lambda one: list(one.rows("ep_by_ip", endpoint="x/a")))
    assert [row.key for row in found] == ["10.0.1.2"]
    number = next(item for item in agent.enforcement.state.endpoints.values() if item.pod == "a").egress_set
    rows = ask(lambda one: list(one.rows("policy", policy_set=number)))
    assert rows
    assert all(row.key.startswith(f"set {number}, egress") for row in rows)
    with pytest.raises(errors.NotFound, match="pod"):
        ask(lambda one: list(one.rows("policy", endpoint="x/nobody")))
