"""Recordings of real traffic: advice lets exactly that pass, and simulation finds exactly what policies then deny.

The demo's cluster in the lab, real agents and connections; flows are what the agents tell of them.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator, Sequence

import pytest
import yaml
from click import testing

from agent.api.observer import observer_pb2
from agent.cli import main, output
from agent.flows import records
from agent.hubble import client
from agent.lab import demo, exchange, lab, plan
from tests.flows import demo as documents
from tests.system import conftest

pytestmark = pytest.mark.root

TIMEOUT_S = 1.0
PATIENCE_S = 10.0
SERVICE = "Service shop/backend"
OUTCOMES = dict[tuple[str, str, int], bool]


@pytest.fixture(scope="module", name="shop")
def demo_in_a_lab() -> Iterator[lab.Lab]:
    with lab.Lab(name=conftest.lab_name("streams")) as built:
        built.up(list(demo.scenario().cluster))
        yield built


def requests(of: plan.LabPlan) -> list[exchange.ProbeRequest]:
    """Everybody dials every pod where it listens, and pods the Service's address too."""
    direct = [
        exchange.ProbeRequest(source=source, destination=pod.party, port=port, protocol=protocol)
        for source in (*of.hosts, *of.pods)
        for pod in of.pods.values()
        for port, protocol in pod.ports
        if source != pod.party
    ]
    service = of.snapshot.services["shop", "backend"]
    through = [
        exchange.ProbeRequest(source=source, destination=SERVICE, port=80, address=service.cluster_addresses[0])
        for source in of.pods
        if source != "shop/backend"
    ]
    return direct + through


def probed(shop: lab.Lab) -> OUTCOMES:
    results = shop.probe(requests(shop.plan), TIMEOUT_S)
    return {(one.request.source, one.request.destination, one.request.port): one.allowed for one in results}


def recorded(shop: lab.Lab, since_ns: int, probes: OUTCOMES) -> bytes:
    """Return what all agents tell of one round; waits until every probe is in it, by what it led to."""
    deadline = time.monotonic() + PATIENCE_S
    asked = observer_pb2.GetFlowsRequest()
    asked.since.FromNanoseconds(since_ns)
    while True:
        lines: list[records.Line] = []
        for node in shop.plan.nodes:
            with client.FlowClient(client.beside(shop.paths.agent_socket(node))) as agent:
                lines += agent.flows(asked)
        ends = {_ends(line.item) for line in lines if isinstance(line.item, records.Record)}
        missing = {probe for probe in probes if probe not in ends and probe[1] != SERVICE}
        if not missing:
            return b"".join(output.to_json(line.document).encode() + b"\n" for line in lines)
        assert time.monotonic() < deadline, missing
        time.sleep(0.1)


def _ends(record: records.Record) -> tuple[str, str, int]:
    return _party(record.source), _party(record.destination), record.destination.port


def _party(end: records.End) -> str:
    if end.pod:
        return f"{end.namespace}/{end.pod}"
    return str(end.service) if end.service is not None else f"host/{next(iter(end.names), '')}"


def agentctl(*words: object, codes: Sequence[int] = (0,)) -> str:
    result = testing.CliRunner().invoke(main.root, [str(word) for word in words])
    assert result.exit_code in codes, result.output
    return result.stdout


def test_simulation_of_recorded_traffic_finds_what_the_policies_then_deny(
    shop: lab.Lab, tmp_path: pathlib.Path
) -> None:
    shop.apply(list(demo.scenario().cluster))
    since_ns = time.time_ns()
    before = probed(shop)
    assert all(before.values())
    (tmp_path / "flows.json").write_bytes(recorded(shop, since_ns, before))
    new = documents.write(tmp_path / "new", documents.policies())
    words = ("simulate", "-f", new, "--flows", tmp_path / "flows.json", "-o", "yaml")
    from_agent = agentctl(*words, "--socket", shop.paths.agent_socket("node-1"), codes=(3,))
    from_files = agentctl(*words, "--base", shop.paths.manifests, codes=(3,))
    assert from_agent == from_files
    shop.apply([*demo.scenario().cluster, *documents.policies()])
    after = probed(shop)
    report = yaml.safe_load(from_agent)
    broken = {
        (_written(one["source"], shop), _written(one["destination"], shop), one["port"]) for one in report["breaks"]
    }
    # What dials a Service is told of by its backends' verdicts: an allowed one has none of its own.
    assert broken == {probe for probe, allowed in after.items() if not allowed and probe[1] != SERVICE}
    assert report["unresolved"] == report["outdated"] == report["opens"] == []


def _written(name: str, shop: lab.Lab) -> str:
    """Return a party by what a report calls it."""
    addresses = {str(host.addresses[0]): host.party for host in shop.plan.hosts.values()}
    for service in shop.plan.snapshot.services.values():
        addresses[str(service.cluster_addresses[0])] = SERVICE
    return addresses.get(name, name)


def test_policies_advised_from_recorded_traffic_let_exactly_that_pass(shop: lab.Lab, tmp_path: pathlib.Path) -> None:
    shop.apply([*demo.scenario().cluster, *documents.policies()])
    since_ns = time.time_ns()
    before = probed(shop)
    assert set(before.values()) == {True, False}
    (tmp_path / "flows.json").write_bytes(recorded(shop, since_ns, before))
    advised = [one for one in yaml.safe_load_all(agentctl("advise", "--flows", tmp_path / "flows.json")) if one]
    assert {one["kind"] for one in advised} == {"NetworkPolicy"}
    shop.apply([*demo.scenario().cluster, *advised])
    assert probed(shop) == before
