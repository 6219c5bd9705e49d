"""Every truth table through real sockets, agents and the kernel, by every engine, on both kinds of node network."""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Iterator

import pytest

from agent import errors, patience
from agent.lab import exchange, lab
from agent.model import net
from tests.support import cases
from tests.system import conftest, engines

PATIENCE_S = (0.2, 0.6, 3.0)
"""How long to wait for answers; whom a time-out is too short for is asked again with the next. Where nobody is
expected to answer, nothing tells how fast the machine is: there the second is the first."""
STEADY = 2
"""Silence says "denied" if the time-out is this many times as long as the slowest answer that came beside it."""
SERVICE_PATIENCE_S = (0.5, 3.0)
"""Likewise."""
BEFORE_RESENT_S = 0.9
"""TCP repeats an unanswered SYN after a second, and a Service draws a backend anew for it: who waits for long meets an
allowed one in the end. However slow the machine is, it has to be asked for less to see that backends differ."""
TRIES = 12
"""Connections to a Service: that all of them meet one of two backends happens once in 2048."""
TABLES_A_LAB = 20
"""A lab takes seconds to build: where few tables share one, they share the combination too."""
BRIDGE_SHARE = 5
"""One table in so many is run by nfbpf on a bridge, if only a selection is run."""
Expected = tuple[exchange.ProbeRequest, bool]


def _fixture(case: cases.Case) -> str:
    return json.dumps(case.fixture, sort_keys=True, default=str)


def machines(case: cases.Case) -> str:
    """Return a text that is equal for tables of which one lab can run all: pods and Services come and go in it."""
    return json.dumps([one for one in case.fixture if one["kind"] == "Node"], sort_keys=True, default=str)


CASES = sorted(
    (case for case in map(cases.load, cases.paths()) if not case.needs),
    key=lambda case: (machines(case), _fixture(case), case.id),
)
SHARERS = collections.Counter(map(_fixture, CASES))


def selection(case: cases.Case) -> set[engines.Combination]:
    """Return where `make test` runs a table: by nfbpf, and by one iptables engine."""
    fixture = _fixture(case)
    width = 1 + SHARERS[fixture] // TABLES_A_LAB
    place = engines.number(fixture, len(engines.PAIRWISE)) + engines.number(case.id, width)
    chosen = {engines.NFBPF_ROUTED, engines.PAIRWISE[place % len(engines.PAIRWISE)]}
    if engines.number(f"{case.id} on a bridge", BRIDGE_SHARE) == 0:
        chosen.add(engines.NFBPF_BRIDGE)
    return chosen


def _parameters() -> Iterator[object]:
    """Yield the tables of one lab after the other; those that name SCTP are run on other kernels by `make test-vm`."""
    known = [(case, selection(case), "SCTP" in case.path.read_text()) for case in CASES]
    for combination in engines.COMBINATIONS:
        for case, selected, names_sctp in known:
            marks = [*engines.marks(selected=combination in selected), *([pytest.mark.sctp] if names_sctp else [])]
            yield pytest.param(combination, case, marks=marks, id=f"{combination.name}-{case.id}")


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(("combination", "case"), list(_parameters()))
def test_connections_are_as_the_table_says(
    combination: engines.Combination, case: cases.Case, labs: conftest.Labs
) -> None:
    running = labs.running(list(case.fixture), combination)
    for number, step in enumerate(case.steps):
        try:
            running.apply(step.documents())
        except errors.LabError:
            labs.close()  # the next table starts with agents that live
            raise
        expected = [one for check in step.checks for one in _expected(running, check)]
        wrong = _wrong(running, expected) + [text for check in step.services for text in _service(running, check)]
        assert not wrong, f"step {number + 1} of {case.path}:\n  " + "\n  ".join(wrong)


def test_the_selection_runs_every_table_by_an_iptables_engine_and_every_engine_runs_some() -> None:
    chosen = [selection(case) for case in CASES]
    assert all(engines.NFBPF_ROUTED in one and one & set(engines.PAIRWISE) for one in chosen)
    assert set().union(*chosen) == set(engines.SELECTED)


def _expected(running: lab.Lab, check: cases.Check) -> Iterator[Expected]:
    for family in net.Family if check.family is None else [check.family]:
        for (source, target), allowed in check.expected.items():
            both = running.plan.addresses(source), running.plan.addresses(target)
            if all(any(net.family_of(address) is family for address in addresses) for addresses in both):
                yield _request(source, target, check.port, check.protocol, family), allowed


def _request(source: str, target: str, port: int, protocol: net.Protocol, family: net.Family) -> exchange.ProbeRequest:
    return exchange.ProbeRequest(source=source, destination=target, port=port, protocol=protocol, family=family)


def _wrong(running: lab.Lab, expected: list[Expected]) -> list[str]:
    """Say what differs from the table: who was reached and must not be, and who was not however long one waited."""
    doubtful = expected
    reached: list[str] = []
    late: list[str] = []
    for timeout_s in PATIENCE_S if any(allowed for _request, allowed in expected) else PATIENCE_S[1:]:
        results = running.probe([request for request, _allowed in doubtful], timeout_s)
        pairs = list(zip(doubtful, results, strict=True))
        reached += [_shown(result, allowed) for (_request, allowed), result in pairs if result.allowed and not allowed]
        late = [_shown(result, allowed) for (_request, allowed), result in pairs if allowed and not result.allowed]
        hasty = timeout_s < STEADY * max((result.milliseconds / 1e3 for result in results if result.allowed), default=0)
        doubtful = [one for one, result in pairs if not result.allowed and (one[1] or hasty)]
        if reached or not doubtful:
            break
        if late:
            time.sleep(timeout_s)  # a rejection comes at once, and would come again before anything has changed
    return reached + late


def _service(running: lab.Lab, check: cases.ServiceCheck) -> Iterator[str]:
    service = running.plan.snapshot.services[check.namespace, check.service]
    for address in service.cluster_addresses:
        for source, outcome in check.reached.items():
            request = exchange.ProbeRequest(
                source=source,
                destination=f"service {check.namespace}/{check.service}",
                port=check.port,
                protocol=check.protocol,
                family=net.family_of(address),
                address=address,
            )
            brief = (BEFORE_RESENT_S / patience.seconds(1.0),) if outcome == "mixed" else ()
            for timeout_s in (*brief, *SERVICE_PATIENCE_S):
                met = running.probe([request] * TRIES, timeout_s)
                seen = _seen(met)
                if outcome in seen:
                    break
            else:
                errnos = sorted({result.error for result in met})
                yield f"{source} -> {address} port {check.port}: {outcome} expected, {sorted(seen)} measured ({errnos})"


def _seen(met: list[exchange.ProbeResult]) -> set[str]:
    """Return what a table may call these outcomes."""
    seen = {"refused"} if all(result.error == "ECONNREFUSED" for result in met) else set()
    allowed = {result.allowed for result in met}
    return seen | ({"all"} if allowed == {True} else {"none"} if allowed == {False} else {"mixed"})


def _shown(result: exchange.ProbeResult, allowed: bool) -> str:  # noqa: FBT001 - what the table says
    request = result.request
    measured = f"reached {result.answered_by}" if result.allowed else result.error
    where = f"{request.source} -> {request.destination} ({result.address}) {request.port}/{request.protocol.name}"
    return f"{where}: {'open' if allowed else 'blocked'} expected, {measured} in {result.milliseconds:.0f} ms"
