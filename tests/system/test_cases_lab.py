"""Every truth table through real sockets, agents and the kernel, on both kinds of node network."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agent import errors
from agent.lab import exchange, lab, plan
from agent.model import net
from tests.support import cases
from tests.system import conftest

TIMEOUT_S = 0.5
SECOND_TIMEOUT_S = 3.0
TRIES = 12
"""Connections to a Service: that all of them meet one of two backends happens once in 2048."""
CASES = sorted(
    (case for case in map(cases.load, cases.paths()) if not case.needs),
    key=lambda case: (json.dumps(case.fixture, sort_keys=True, default=str), case.id),
)
Expected = tuple[exchange.ProbeRequest, bool]


def _marks(case: cases.Case) -> list[pytest.MarkDecorator]:
    """Mark the tables that name SCTP, in a policy or a check: `make test-vm` runs those with real sockets."""
    return [pytest.mark.sctp] if "SCTP" in case.path.read_text() else []


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, marks=_marks(case), id=case.id) for case in CASES])
@pytest.mark.parametrize("topology", [plan.Topology.ROUTED, plan.Topology.BRIDGE], ids=lambda topology: topology.value)
def test_connections_are_as_the_table_says(case: cases.Case, topology: plan.Topology, labs: conftest.Labs) -> None:
    running = labs.running(list(case.fixture), topology)
    for number, step in enumerate(case.steps):
        try:
            running.apply(step.documents())
        except errors.LabError:
            labs.close()  # the next table starts with agents that live
            raise
        expected = [one for check in step.checks for one in _expected(running, check)]
        wrong = _wrong(running, expected) + [text for check in step.services for text in _service(running, check)]
        assert not wrong, f"step {number + 1} of {case.path}:\n  " + "\n  ".join(wrong)


def _expected(running: lab.Lab, check: cases.Check) -> Iterator[Expected]:
    for family in net.Family if check.family is None else [check.family]:
        for (source, target), allowed in check.expected.items():
            both = running.plan.addresses(source), running.plan.addresses(target)
            if all(any(net.family_of(address) is family for address in addresses) for addresses in both):
                yield _request(source, target, check.port, check.protocol, family), allowed


def _request(source: str, target: str, port: int, protocol: net.Protocol, family: net.Family) -> exchange.ProbeRequest:
    return exchange.ProbeRequest(source=source, destination=target, port=port, protocol=protocol, family=family)


def _wrong(running: lab.Lab, expected: list[Expected]) -> list[str]:
    """Say what differs, after a second and longer look at it."""
    doubtful = expected
    found: list[str] = []
    for timeout_s in (TIMEOUT_S, SECOND_TIMEOUT_S):
        results = running.probe([request for request, _allowed in doubtful], timeout_s)
        pairs = list(zip(doubtful, results, strict=True))
        doubtful = [one for one, result in pairs if result.allowed != one[1]]
        found = [_shown(result, allowed) for (_request, allowed), result in pairs if result.allowed != allowed]
        if not doubtful:
            break
    return found


def _service(running: lab.Lab, check: cases.ServiceCheck) -> Iterator[str]:
    service = running.plan.snapshot.services[check.namespace, check.service]
    for address in service.cluster_addresses:
        family = net.family_of(address)
        requests = [
            exchange.ProbeRequest(
                source=source,
                destination=f"service {check.namespace}/{check.service}",
                port=check.port,
                protocol=check.protocol,
                family=family,
                address=address,
            )
            for source in check.reached
            for _ in range(TRIES)
        ]
        results = running.probe(requests, TIMEOUT_S)
        for source, outcome in check.reached.items():
            met = [result for result in results if result.request.source == source]
            seen = {"refused"} if all(result.error == "ECONNREFUSED" for result in met) else set()
            allowed = {result.allowed for result in met}
            seen |= {"all"} if allowed == {True} else {"none"} if allowed == {False} else {"mixed"}
            if outcome not in seen:
                errnos = sorted({result.error for result in met})
                yield f"{source} -> {address} port {check.port}: {outcome} expected, {sorted(seen)} measured ({errnos})"


def _shown(result: exchange.ProbeResult, allowed: bool) -> str:  # noqa: FBT001 - what the table says
    request = result.request
    measured = f"reached {result.answered_by}" if result.allowed else result.error
    where = f"{request.source} -> {request.destination} ({result.address}) {request.port}/{request.protocol.name}"
    return f"{where}: {'open' if allowed else 'blocked'} expected, {measured} in {result.milliseconds:.0f} ms"
