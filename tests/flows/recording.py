"""Recordings of traffic that the evaluator judged: what agents would have told of it."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from google.protobuf import json_format

from agent import snapshot
from agent.api.observer import observer_pb2
from agent.flows import records, workloads
from agent.hubble import flows as wire
from agent.hubble import records as verdicts
from agent.model import identity, net, resources, verdict
from agent.policy import evaluator
from tests.support import cases
from tests.support import flows as support

BEGAN_NS = 1_795_000_000_000_000_000
STEP_NS = 1_000_000


def line(record: verdicts.Record) -> bytes:
    """Return what `observe -o json` prints of a verdict."""
    response = observer_pb2.GetFlowsResponse(flow=wire.flow(record, version="7"), node_name=record.event.node)
    response.time.FromNanoseconds(record.event.time_ns)
    return json.dumps(json_format.MessageToDict(response, preserving_proto_field_name=True)).encode()


def judged(cluster: snapshot.Snapshot, flows: Iterable[evaluator.Flow]) -> list[records.Record]:
    """Return the verdicts on flows that the policies of `cluster` give, STEP_NS apart."""
    found: list[records.Record] = []
    for flow in flows:
        decision = evaluator.evaluate(cluster, flow)
        for side, party in ((decision.egress, flow.source), (decision.ingress, flow.destination)):
            if isinstance(party, resources.Pod) and party.has_identity:
                found.append(_record(flow, side, party.node or "n1", BEGAN_NS + len(found) * STEP_NS))
                if not side.allowed:
                    break
    return found


def _record(flow: evaluator.Flow, side: evaluator.Side, node: str, time_ns: int) -> records.Record:
    policies = (side.rule.policy,) if side.rule is not None else () if side.allowed else side.isolating
    reason = verdict.Reason.RULE_ALLOWED if side.rule is not None else verdict.Reason.NOT_ISOLATED
    return records.Record(
        time_ns=time_ns,
        node=node,
        verdict=verdict.Verdict.FORWARDED if side.allowed else verdict.Verdict.DROPPED,
        direction=side.direction,
        protocol=flow.protocol.value,
        source=_end(flow.source, flow.source_address, 40000, node),
        destination=_end(flow.destination, flow.destination_address, flow.port, node),
        policies=policies,
        rule=side.rule,
        reason=reason if side.allowed else verdict.Reason.POLICY_DENIED,
    )


def _end(party: evaluator.Party, address: net.Address, port: int, node: str) -> records.End:
    if isinstance(party, resources.Pod) and party.has_identity:
        return records.End(
            address=address,
            port=port,
            identity=300,
            namespace=party.namespace,
            pod=party.name,
            labels=party.labels,
            workload=workloads.name(party.name, party.labels),
        )
    if isinstance(party, resources.Pod | resources.Node):
        name = party.node if isinstance(party, resources.Pod) else party.name
        word = verdicts.HOST if name == node else verdicts.REMOTE_NODE
        return records.End(address=address, port=port, identity=identity.HOST, reserved=frozenset({word}))
    names = (party.name,) if isinstance(party, resources.Host) else ()
    return records.End(
        address=address, port=port, identity=identity.WORLD, reserved=frozenset({verdicts.WORLD}), names=names
    )


def flows_of(cluster: snapshot.Snapshot, step: cases.Step) -> Iterator[tuple[bool, evaluator.Flow]]:
    """Yield every flow a table's step is about, and whether it must pass; not those that no agent would see."""
    for check in step.checks:
        for pair, expected in check.expected.items():
            for flow in support.flows(cluster, pair, check):
                if _seen(flow.source) and _seen(flow.destination) and flow.source != flow.destination:
                    yield expected, flow


def _seen(party: evaluator.Party) -> bool:
    return not isinstance(party, resources.Pod) or party.has_identity or party.host_network


def enforced() -> list[pathlib.Path]:
    """Return the tables but those of audit: a recording is judged as if every policy were enforced."""
    return [path for path in cases.paths() if path.parent.name != "audit" and not cases.load(path).needs]


def tables(paths: Sequence[pathlib.Path], *, every: int) -> list[Any]:
    """Return tables as parameters of a test; of those that come every time only each so many, the others are slow."""
    return [
        pytest.param(
            path,
            id=str(path.relative_to(cases.DIRECTORY).with_suffix("")),
            marks=[] if number % every == 0 else [pytest.mark.slow],
        )
        for number, path in enumerate(paths)
    ]
