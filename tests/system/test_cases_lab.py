"""Every truth table through real sockets, agents and the kernel, by every engine, on both kinds of node network.

And what the agents tell of it: for every pair that a table blocks, the policies that the evaluator blames.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

from agent import errors, patience
from agent.lab import exchange, lab
from agent.model import net, resources, verdict
from agent.policy import evaluator
from tests.support import cases, flows, simulated
from tests.system import attribution, conftest, engines, telling

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
COMPARED, REPEATED = "verdicts compared", "connections made once more for a verdict"
"""What a test records."""


Asked = Mapping[attribution.Asked, Sequence[exchange.ProbeRequest]]
"""Who was asked for, and how to ask again."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A connection to make, and what the table says of it."""

    request: exchange.ProbeRequest
    allowed: bool
    audited: bool


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
    combination: engines.Combination,
    case: cases.Case,
    labs: conftest.Labs,
    request: pytest.FixtureRequest,
) -> None:
    running = labs.running(list(case.fixture), combination)
    counted: collections.Counter[str] = collections.Counter()
    for number, step in enumerate(case.steps):
        try:
            running.apply(step.documents())
        except errors.LabError:
            labs.close()  # the next table starts with agents that live
            raise
        expected = [one for check in step.checks for one in _expected(running, check)]
        heard = Heard(running=running, agents=labs.telling(), counted=counted)
        moment = heard.agents.moment()
        wrong = _wrong(running, expected) or heard.untold(moment, _asked_of_pairs(running, expected))
        if step.services and not wrong:
            moment = heard.agents.moment()
            wrong = [text for check in step.services for text in _service(running, check)]
            wrong = wrong or heard.untold(moment, _asked_of_services(running, step.services))
        assert not wrong, f"step {number + 1} of {case.path}:\n  " + "\n  ".join(wrong)
    request.node.user_properties.extend(counted.items())


def test_the_selection_runs_every_table_by_an_iptables_engine_and_every_engine_runs_some() -> None:
    chosen = [selection(case) for case in CASES]
    assert all(engines.NFBPF_ROUTED in one and one & set(engines.PAIRWISE) for one in chosen)
    assert set().union(*chosen) == set(engines.SELECTED)


def _expected(running: lab.Lab, check: cases.Check) -> Iterator[Expected]:
    for family in net.Family if check.family is None else [check.family]:
        for (source, target), allowed in check.expected.items():
            both = running.plan.addresses(source), running.plan.addresses(target)
            if all(any(net.family_of(address) is family for address in addresses) for addresses in both):
                request = exchange.ProbeRequest(
                    source=source, destination=target, port=check.port, protocol=check.protocol, family=family
                )
                yield Expected(request=request, allowed=allowed, audited=(source, target) in check.audited)


def _wrong(running: lab.Lab, expected: list[Expected]) -> list[str]:
    """Say what differs from the table: who was reached and must not be, and who was not however long one waited."""
    doubtful = expected
    reached: list[str] = []
    late: list[str] = []
    for timeout_s in PATIENCE_S if any(one.allowed for one in expected) else PATIENCE_S[1:]:
        results = running.probe([one.request for one in doubtful], timeout_s)
        pairs = list(zip(doubtful, results, strict=True))
        reached += [_shown(result, one.allowed) for one, result in pairs if result.allowed and not one.allowed]
        late = [_shown(result, one.allowed) for one, result in pairs if one.allowed and not result.allowed]
        hasty = timeout_s < STEADY * max((result.milliseconds / 1e3 for result in results if result.allowed), default=0)
        doubtful = [one for one, result in pairs if not result.allowed and (one.allowed or hasty)]
        if reached or not doubtful:
            break
        if late:
            time.sleep(timeout_s)  # a rejection comes at once, and would come again before anything has changed
    return reached + late


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What the agents of a lab tell of the connections of one step."""

    running: lab.Lab
    agents: telling.Telling
    counted: collections.Counter[str]

    def untold(self, moment: telling.Moment, asked: Asked) -> list[str]:
        """Say whose denial was not told since, and what was told in another way than the evaluator explains it."""

        def ask_again(silent: Sequence[attribution.Asked]) -> None:
            self.running.probe([request for one in silent for request in asked[one]], PATIENCE_S[0])

        settled = self.agents.compared(tuple(asked), moment, self._kinds(), ask_again)
        self.counted[COMPARED] += len(settled.found.agreed)
        self.counted[REPEATED] += settled.repeated
        return list(settled.found.wrong) or [f"nothing was told of {one}" for one in settled.found.silent]

    def _kinds(self) -> tuple[verdict.Verdict, ...]:
        """Return what is asked of the agents: where nothing is in audit, nothing can be told as AUDIT."""
        annotated = (document["metadata"].get("annotations") or {} for document in self.running.documents)
        audits = any("nodewall.io/audit" in one for one in annotated)
        return (verdict.Verdict.DROPPED, verdict.Verdict.AUDIT) if audits else (verdict.Verdict.DROPPED,)


def _asked_of_pairs(running: lab.Lab, expected: list[Expected]) -> Asked:
    """Return what is to be told of each pair: of all that the table blocks or audits something is, of others not."""
    asked = {_asked(running, one.request): (one.request,) for one in expected}
    owed = [one.request for one in expected if not one.allowed or one.audited]
    assert [requests[0] for one, requests in asked.items() if one.choices] == owed
    return asked


def _asked_of_services(running: lab.Lab, checks: tuple[cases.ServiceCheck, ...]) -> Asked:
    """Likewise of those who dial Services: of all that do not reach every backend, or are in audit, something is."""
    asked: dict[attribution.Asked, tuple[exchange.ProbeRequest, ...]] = {}
    for check in checks:
        for source, outcome in check.reached.items():
            found = [_asked_of_service(running, check, request) for request in _dialling(running, check, source)]
            owed = outcome in {"none", "mixed"} or source in check.audited
            assert all(one.choices for one in found) or not owed
            asked |= zip(found, ((request,) * TRIES for request in _dialling(running, check, source)), strict=True)
    return asked


def _asked(running: lab.Lab, request: exchange.ProbeRequest) -> attribution.Asked:
    cluster = running.plan.snapshot
    source, destination = (
        next(address for address in running.plan.addresses(party) if net.family_of(address) is request.family)
        for party in (request.source, request.destination)
    )
    flow = evaluator.Flow(
        source=flows.party(cluster, request.source),
        destination=flows.party(cluster, request.destination),
        source_address=source,
        destination_address=destination,
        protocol=request.protocol,
        port=request.port,
    )
    name = f"{request.source} -> {request.destination} ({destination}) {request.port}/{request.protocol.name}"
    return attribution.of_pair(name, cluster, flow, simulated.HONOURED)


def _service(running: lab.Lab, check: cases.ServiceCheck) -> Iterator[str]:
    for source, outcome in check.reached.items():
        for request in _dialling(running, check, source):
            brief = (BEFORE_RESENT_S / patience.seconds(1.0),) if outcome == "mixed" else ()
            for timeout_s in (*brief, *SERVICE_PATIENCE_S):
                met = running.probe([request] * TRIES, timeout_s)
                seen = _seen(met)
                if outcome in seen:
                    break
            else:
                errnos = sorted({result.error for result in met})
                measured = f"{sorted(seen)} measured ({errnos})"
                yield f"{source} -> {request.address} port {check.port}: {outcome} expected, {measured}"


def _dialling(running: lab.Lab, check: cases.ServiceCheck, source: str) -> Iterator[exchange.ProbeRequest]:
    """Yield a call to each of a Service's addresses."""
    for address in running.plan.snapshot.services[check.namespace, check.service].cluster_addresses:
        yield exchange.ProbeRequest(
            source=source,
            destination=f"service {check.namespace}/{check.service}",
            port=check.port,
            protocol=check.protocol,
            family=net.family_of(address),
            address=address,
        )


def _asked_of_service(running: lab.Lab, check: cases.ServiceCheck, request: exchange.ProbeRequest) -> attribution.Asked:
    cluster = running.plan.snapshot
    assert request.address is not None
    source, frontend = flows.party(cluster, request.source), (request.address, request.port)
    dialled, *to_backends = (
        flows.flow_to(cluster, source, where, check.protocol)
        for where in (frontend, *flows.backends(cluster, check))
        if net.family_of(where[0]) is request.family
    )
    service = resources.ObjectRef("Service", check.namespace, check.service)
    name = f"{request.source} -> {request.destination} ({request.address}) {request.port}/{request.protocol.name}"
    call = attribution.Dialled(service=service, flow=dialled)
    return attribution.of_service(name, cluster, call, to_backends, simulated.HONOURED)


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
