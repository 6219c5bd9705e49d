"""Nothing a recording may hold breaks what is made of it, or reaches a terminal as more than text."""

from __future__ import annotations

import json
from typing import Any

import click
import hypothesis
import yaml
from hypothesis import strategies

from agent.cli import advise as advise_verb
from agent.cli import flow_lines, observe
from agent.cli import simulate as simulate_verb
from agent.flows import advise, manifests, records, simulate, talks
from tests.flows import test_records
from tests.support import agents

CLUSTER = agents.cluster()
TEXT = strategies.sampled_from(
    ["", "x", "a", "kube-system", "a\x1b]0;t\x07", "a\r\n---\nb", "\u202eb", "\x9b", "ü", "\x7f"]
)
LABELS = strategies.lists(
    strategies.builds("{}:{}={}".format, strategies.sampled_from(["k8s", "reserved", "any"]), TEXT, TEXT), max_size=3
)
ENDS = strategies.fixed_dictionaries(
    {},
    optional={
        "identity": strategies.integers(0, 2**32 - 1),
        "namespace": TEXT,
        "pod_name": TEXT,
        "labels": LABELS,
        "workloads": strategies.lists(strategies.fixed_dictionaries({"name": TEXT}), max_size=1),
    },
)
ADDRESSES = strategies.sampled_from(["10.0.0.2", "10.0.0.3", "0.0.0.0", "::ffff:10.0.0.2", "fd00::1", "203.0.113.7"])
TRANSPORTS = strategies.sampled_from(["TCP", "UDP", "SCTP", "ICMPv4", "DCCP"])
POLICIES = strategies.lists(strategies.fixed_dictionaries({"name": TEXT, "namespace": TEXT, "kind": TEXT}), max_size=2)
FLOWS = strategies.fixed_dictionaries(
    {
        "time": strategies.sampled_from(["0001-01-01T00:00:00Z", "2026-11-21T14:16:42.1Z", "9999-12-31T23:59:59Z"]),
        "verdict": strategies.sampled_from(["FORWARDED", "DROPPED", "AUDIT", "ERROR", "REDIRECTED", "TRACED"]),
        "IP": strategies.fixed_dictionaries({"source": ADDRESSES, "destination": ADDRESSES}),
        "traffic_direction": strategies.sampled_from(["INGRESS", "EGRESS"]),
    },
    optional={
        "l4": TRANSPORTS.map(lambda name: {name: {"source_port": 1, "destination_port": 80}}),
        "source": ENDS,
        "destination": ENDS,
        "source_names": strategies.lists(TEXT, max_size=2),
        "destination_names": strategies.lists(TEXT, max_size=2),
        "destination_service": strategies.fixed_dictionaries({"name": TEXT, "namespace": TEXT}),
        "node_name": TEXT,
        "Summary": TEXT,
        "is_reply": strategies.booleans(),
        "egress_allowed_by": POLICIES,
        "ingress_denied_by": POLICIES,
    },
)


@hypothesis.given(strategies.lists(FLOWS, min_size=1, max_size=4))
@hypothesis.settings(max_examples=12, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
def test_whatever_a_recording_holds_is_judged_advised_on_and_printed_as_text(flows: list[dict[str, Any]]) -> None:
    lines = [test_records.line({"flow": flow}) for flow in flows]
    reader = records.Reader(lines)
    found = list(reader)
    said = [observe.printed(line, form, policies=True) for line in found for form in ("json", "dict", "yaml")]
    said += [str(value) for line in found for value in _cells(line.item)]
    told = talks.gather(line.item for line in found if isinstance(line.item, records.Record))
    report = simulate.simulate(told, CLUSTER, simulate.changed(CLUSTER, CLUSTER))
    assert len(report.judged) == len(told.talks)
    json.dumps(simulate_verb.document(report), default=str)
    said += list(simulate_verb.text(report))
    advice = advise.advise(told)
    for dialect in (manifests.kubernetes, manifests.cilium):
        printed = list(advise_verb.text(advice, dialect))
        documents = [one for one in yaml.safe_load_all("\n".join(printed)) if one]
        assert len(documents) == len(advice.policies)
        said += printed
    assert all(click.unstyle(one).replace("\n", "").isprintable() for one in said)


def _cells(item: records.Item) -> list[str]:
    return [flow_lines.line(item, policies=True)]
