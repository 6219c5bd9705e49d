"""Metrics keep Prometheus's conventions, stay few, and are all documented."""

from __future__ import annotations

import pathlib

import pytest

from agent.metrics import families, table
from agent.metrics import family as family_

UNITS = ("_total", "_seconds", "_ratio", "_info")
COUNTED = {
    *("ready", "revision", "enforced_revision", "generation", "policies", "problems", "endpoints", "identities"),
    *("bpf_map_entries", "ipset_members", "streams", "kubernetes_watch_connected", "problem_events_waiting"),
    *("endpoints_enforcing", "policies_in_audit", "otlp_queue_records", "fqdn_learned_addresses"),
    "fqdn_remembered",
}
"""Gauges that count things, or say yes or no, have no unit."""
LABELS = {"verdict", "direction", "reason", "layer", "outcome", "source", "kind", "state", "map", "resource"}
LABELS |= {"mode", "variant", "version"}


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
def test_a_metric_has_a_help_text_a_unit_and_labels_with_few_values(family: family_.Family) -> None:
    assert family.help.endswith(".")
    assert len(family.help) > 10
    assert family.name.endswith(UNITS) or family.name in COUNTED
    assert family.name.endswith("_total") is (family.kind is family_.Kind.COUNTER)
    assert family.name.endswith("_seconds") or family.kind is not family_.Kind.HISTOGRAM
    assert set(family.labels) <= LABELS
    assert (family.samples is None) is (family.kind is family_.Kind.HISTOGRAM)


def test_no_name_is_given_twice() -> None:
    names = [family.name for family in families.FAMILIES]
    assert len(names) == len(set(names))


def test_the_documented_table_is_this_one() -> None:
    written = pathlib.Path(table.__file__).with_name("METRICS.md").read_text()
    assert written == table.text(), "write it anew: python -m agent.metrics.table > agent/metrics/METRICS.md"
