"""The demo's cluster, policies and traffic, as files and flows."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable

import yaml

from agent import snapshot
from agent.flows import records
from agent.lab import demo, resolve
from agent.model import net, resources
from agent.policy import evaluator, reachability


def cluster() -> list[demo.Document]:
    """Return the manifests without policies, with the addresses a lab gives."""
    return resolve.resolve(list(demo.scenario().cluster), families=(net.Family.IPV4,))


def unresolved() -> list[demo.Document]:
    """Return the manifests without policies, as people write them: pods have no address."""
    return list(demo.scenario().cluster)


def policies() -> list[demo.Document]:
    """Return every policy of the demo."""
    return [policy for step in demo.scenario().steps for policy in step.policies]


def write(directory: pathlib.Path, documents: Iterable[demo.Document]) -> pathlib.Path:
    """Write manifests to a directory."""
    directory.mkdir()
    (directory / "all.yaml").write_text(yaml.safe_dump_all(documents))
    return directory


def traffic(of: snapshot.Snapshot) -> list[evaluator.Flow]:
    """Return everybody dialling every pod on every port that somebody listens on."""
    ends = reachability.ends(of)
    return [
        flow
        for source in ends.values()
        for destination in ends.values()
        if source is not destination and isinstance(destination, resources.Pod)
        for port in reachability.declared(of)
        for flow in reachability.flows(source, destination, port)
    ]


def lines(recorded: Iterable[records.Record]) -> bytes:
    """Return a recording, as `observe -o json` prints it."""
    return b"".join(json.dumps(document(one)).encode() + b"\n" for one in recorded)


def document(one: records.Record) -> dict[str, object]:
    """Return Hubble's JSON of a record."""
    moment = f"2026-11-21T14:16:{one.time_ns // 10**6 % 60000 / 1000:06.3f}Z"
    word = "allowed" if one.verdict.name == "FORWARDED" else "denied"
    by = [{"name": ref.name, "namespace": ref.namespace, "kind": ref.kind} for ref in one.policies]
    transport = net.Protocol(one.protocol).name
    flow = {
        "time": moment,
        "verdict": one.verdict.name,
        "IP": {"source": str(one.source.address), "destination": str(one.destination.address)},
        "l4": {transport: {"source_port": one.source.port, "destination_port": one.destination.port}},
        "source": _end(one.source),
        "destination": _end(one.destination),
        "source_names": list(one.source.names),
        "destination_names": list(one.destination.names),
        "traffic_direction": one.direction.name,
        f"{one.direction.name.lower()}_{word}_by": by,
    }
    if one.verdict.name != "FORWARDED":
        flow["drop_reason_desc"] = "POLICY_DENIED"
    return {"flow": flow, "node_name": one.node, "time": moment}


def _end(end: records.End) -> dict[str, object]:
    own = [f"k8s:{key}={value}" for key, value in end.labels.items()]
    return {
        "identity": end.identity,
        "namespace": end.namespace,
        "pod_name": end.pod,
        "labels": [*own, *(f"reserved:{word}" for word in end.reserved)],
    }
