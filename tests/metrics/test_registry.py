"""The page: what Prometheus's own parser reads is what the picture says, and nothing else."""

from __future__ import annotations

from prometheus_client import parser
from prometheus_client.metrics_core import Metric

from agent.datapath import base
from agent.metrics import families, picture, registry
from agent.model import net, verdict

DENIED = (verdict.Verdict.DROPPED, net.Direction.INGRESS, verdict.Reason.POLICY_DENIED, verdict.Layer.PACKET)
PICTURE = picture.Picture(
    version="0.1.0",
    mode="socket+nfbpf",
    variant="nft",
    ready=True,
    revision=9,
    enforced_revision=8,
    generation=7,
    policies={"NetworkPolicy": 6},
    problems=2,
    endpoints={"isolated": 1, "open": 2, "held": 3},
    identities=5,
    enforcing={"enforce": 1, "audit": 2, "none": 3},
    audited=1,
    audit_age_s=86_400,
    verdicts={DENIED: 2**50},
    decisions={("packet", "denied"): 11},
    suppressed={"suppressed": 9, "repeated": 7, "forgotten": 1, "again": 4},
    lost={"ring": 1, "queue": 2, "client": 3},
    usage={"policy": base.Usage(512, 1024)},
    set_members=40,
    reconcile_errors=4,
    repairs=3,
    streams=2,
    watches=(picture.Watch(resource="pods", connected=True, age_s=1.5, restarts=2, relists=1, requests=9, failures=3),),
    events_sent={"created": 1, "repeated": 0, "failed": 2},
    events_waiting=1,
    exports=picture.Exports(
        exported=12,
        dropped={"full": 3, "behind": 0, "refused": 1, "ended": 0},
        waiting=5,
        requests={"ok": 2, "again": 1, "refused": 1},
    ),
    names=picture.Names(
        queries=9,
        answers={"learned": 3, "no_rule": 4, "negative": 1, "malformed": 0},
        unread={"untrusted": 1, "unasked": 0, "fragmented": 0, "split": 2, "too_long": 0, "too_many_records": 0},
        refused={"refused": 3, "audit": 0},
        evicted={"endpoint_full": 0, "names_full": 1, "node_full": 0},
        forgotten={"name": 0, "address": 2},
        lost=0,
        held=6,
        replayed=5,
        late=0,
        remembered={"name": 7, "address": 8},
        learned={"counting": 3, "expired": 1},
    ),
)


def scraped(metrics: registry.Registry, now: picture.Picture) -> dict[str, Metric]:
    text = metrics.page(now).decode()
    return {metric.name: metric for metric in parser.text_string_to_metric_families(text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    samples = [one for metric in found.values() for one in metric.samples if one.name == name and one.labels == labels]
    (sample,) = samples
    return float(sample.value)


def test_every_metric_is_on_the_page_with_its_help_and_kind() -> None:
    found = scraped(registry.Registry(), PICTURE)
    for family in families.FAMILIES:
        metric = found[family.full_name.removesuffix("_total")]
        assert metric.documentation == family.help
        assert metric.type == family.kind.value
        assert metric.samples
        if family.samples is not None:
            assert all(set(sample.labels) == set(family.labels) for sample in metric.samples)


def test_nothing_is_on_the_page_but_that_and_the_process() -> None:
    known = {family.full_name.removesuffix("_total") for family in families.FAMILIES}
    others = scraped(registry.Registry(), PICTURE).keys() - known
    assert {name for name in others if not name.startswith("process_")} <= {
        f"{families.PROGRAMMING.full_name}_created",
        f"{families.APPLY.full_name}_created",
    }
    assert "process_resident_memory_bytes" in others


def test_values_are_those_of_the_picture() -> None:
    found = scraped(registry.Registry(), PICTURE)
    labels = {"verdict": "dropped", "direction": "ingress", "reason": "policy_denied", "layer": "packet"}
    assert value(found, "nodewall_verdicts_total", **labels) == 2**50
    assert value(found, "nodewall_decisions_total", layer="packet", outcome="denied") == 11
    assert value(found, "nodewall_events_lost_total", source="client") == 3
    assert value(found, "nodewall_bpf_map_entries", map="policy") == 512
    assert value(found, "nodewall_bpf_map_pressure_ratio", map="policy") == 0.5
    assert value(found, "nodewall_kubernetes_watch_age_seconds", resource="pods") == 1.5
    assert value(found, "nodewall_engine_info", mode="socket+nfbpf", variant="nft") == 1
    assert value(found, "nodewall_ready") == 1
    assert value(found, "nodewall_otlp_records_exported_total") == 12
    assert value(found, "nodewall_otlp_records_dropped_total", reason="full") == 3
    assert value(found, "nodewall_otlp_requests_total", outcome="again") == 1
    assert value(found, "nodewall_otlp_queue_records") == 5


def test_what_is_not_known_before_the_first_policy_is_left_out() -> None:
    found = scraped(registry.Registry(), picture.Picture(version="0.1.0", mode="memory"))
    for name in ("generation", "problems", "identities", "ipset_members", "otlp_queue_records", "otlp_requests"):
        assert not found[f"nodewall_{name}"].samples
    assert value(found, "nodewall_ready") == 0


def test_an_apply_is_in_one_histogram_and_a_change_of_the_cluster_in_both() -> None:
    metrics = registry.Registry()
    metrics.applied(seconds=0.003, since_change_s=None)
    metrics.applied(seconds=0.003, since_change_s=0.012)
    metrics.applied(seconds=0.003, since_change_s=-5)  # the wall clock was set back
    found = scraped(metrics, PICTURE)
    assert value(found, "nodewall_apply_seconds_count") == 3
    assert value(found, "nodewall_policy_programming_seconds_count") == 2
    assert value(found, "nodewall_policy_programming_seconds_bucket", le="0.016") == 2
    assert value(found, "nodewall_policy_programming_seconds_bucket", le="0.001") == 1


def test_two_agents_in_one_process_share_nothing() -> None:
    one, other = registry.Registry(), registry.Registry()
    one.applied(seconds=1, since_change_s=None)
    assert value(scraped(other, PICTURE), "nodewall_apply_seconds_count") == 0


def test_the_samples_of_a_scrape_are_those_of_the_page() -> None:
    metrics = registry.Registry()
    metrics.applied(seconds=0.003, since_change_s=None)
    found = {(one.name, *sorted(one.labels.items())): one for one in metrics.samples(PICTURE)}
    full = found["nodewall_bpf_map_entries", ("map", "policy")]
    assert (full.kind, full.value) == ("gauge", 512)
    assert full.help.endswith(".")
    assert found["nodewall_apply_seconds_count",].value == 1
    assert found["nodewall_apply_seconds_count",].kind == "histogram"
