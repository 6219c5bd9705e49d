"""Every metric, as a table.

Names end in their unit (`_seconds`, `_ratio`), `_total` for what only grows, `_info` for what is constant; a gauge
without a unit counts things. `table` writes METRICS.md from here, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.metrics import family, names
from agent.metrics import picture as picture_


def _verdicts(now: picture_.Picture) -> family.Samples:
    for (verdict, direction, reason, layer), count in now.verdicts.items():
        yield tuple(one.name.lower() for one in (verdict, direction, reason, layer)), count


def _pressure(now: picture_.Picture) -> family.Samples:
    for name, usage in now.usage.items():
        yield (name,), usage.entries / usage.capacity


def _watches(value: Callable[[picture_.Watch], float]) -> Callable[[picture_.Picture], family.Samples]:
    return lambda now: (((watch.resource,), value(watch)) for watch in now.watches)


def _exports(values: Callable[[picture_.Exports], Mapping[str, int]]) -> Callable[[picture_.Picture], family.Samples]:
    def samples(now: picture_.Picture) -> family.Samples:
        for label, value in values(now.exports).items() if now.exports is not None else ():
            yield (label,), value

    return samples


PROGRAMMING = family.Family(
    "policy_programming_seconds", family.Kind.HISTOGRAM, "From a change of the cluster seen to the change enforced."
)
APPLY = family.Family(
    "apply_seconds", family.Kind.HISTOGRAM, "Bringing the kernel into line, without the compiling before it."
)

FAMILIES: tuple[family.Family, ...] = (
    family.Family(
        "verdicts_total",
        family.Kind.COUNTER,
        "What each layer said, read from the kernel; a connection may count at both. Those lost before are in "
        "events_lost_total, those kept back in verdicts_suppressed_total.",
        ("verdict", "direction", "reason", "layer"),
        _verdicts,
    ),
    family.Family(
        "decisions_total",
        family.Kind.COUNTER,
        "What the BPF programs counted since their maps were made, by agents before this one too; "
        "a start's self-test adds 4 denied calls, 2 denied and 2 spoofed packets.",
        ("layer", "outcome"),
        lambda now: (((*key,), count) for key, count in now.decisions.items()),
    ),
    family.Family(
        "events_lost_total",
        family.Kind.COUNTER,
        "Verdicts lost: ring (kernel buffer full), queue (agent behind), client (reader of a stream behind).",
        ("source",),
        lambda now: (((source,), count) for source, count in now.lost.items()),
    ),
    family.Family(
        "verdicts_suppressed_total",
        family.Kind.COUNTER,
        "Verdicts kept back by the rate limit (--verdict-rate).",
        (),
        family.one(lambda now: now.suppressed.get("suppressed")),
    ),
    family.Family(
        "verdicts_repeated_total",
        family.Kind.COUNTER,
        "Of the suppressed verdicts those that a later one of their kind told the number of.",
        (),
        family.one(lambda now: now.suppressed.get("repeated")),
    ),
    family.Family(
        "verdicts_forgotten_total",
        family.Kind.COUNTER,
        "Of the suppressed verdicts those whose number will not be told: too many other kinds came after them.",
        (),
        family.one(lambda now: now.suppressed.get("forgotten")),
    ),
    family.Family(
        "verdicts_again_total",
        family.Kind.COUNTER,
        "Packets of connections told of already: datagrams nobody answers, SYNs sent again.",
        (),
        family.one(lambda now: now.suppressed.get("again")),
    ),
    PROGRAMMING,
    APPLY,
    family.Family(
        "reconcile_errors_total",
        family.Kind.COUNTER,
        "Runs that failed to bring the kernel into line; the last policy stays in force.",
        (),
        family.one(lambda now: now.reconcile_errors),
    ),
    family.Family(
        "drift_repairs_total",
        family.Kind.COUNTER,
        "Rules of ours that others had changed and that were put right.",
        (),
        family.one(lambda now: now.repairs),
    ),
    family.Family(
        "ready", family.Kind.GAUGE, "1 where /readyz answers 200, else 0.", (), family.one(lambda now: now.ready)
    ),
    family.Family(
        "revision", family.Kind.GAUGE, "Inputs that arrived, counted.", (), family.one(lambda now: now.revision)
    ),
    family.Family(
        "enforced_revision",
        family.Kind.GAUGE,
        "The last of them that is enforced; less than revision while a change is pending.",
        (),
        family.one(lambda now: now.enforced_revision),
    ),
    family.Family(
        "generation",
        family.Kind.GAUGE,
        "Number of the policy in force.",
        (),
        family.once_enforced(lambda now: now.generation or 0),
    ),
    family.Family(
        "policies",
        family.Kind.GAUGE,
        "Policies of the cluster, by kind.",
        ("kind",),
        lambda now: (((kind,), count) for kind, count in now.policies.items()),
    ),
    family.Family(
        "problems",
        family.Kind.GAUGE,
        "What of the input cannot be honoured; agentctl status names each.",
        (),
        family.once_enforced(lambda now: now.problems),
    ),
    family.Family(
        "endpoints",
        family.Kind.GAUGE,
        "Pods of this node: isolated (by a policy, in a direction), open (by none), held (not programmed yet).",
        ("state",),
        lambda now: (((state,), count) for state, count in now.endpoints.items()),
    ),
    family.Family(
        "endpoints_enforcing",
        family.Kind.GAUGE,
        "Pods of this node: audit (some policy on it is in audit), enforce (all that select it are enforced), none.",
        ("mode",),
        lambda now: (((mode,), count) for mode, count in now.enforcing.items()),
    ),
    family.Family(
        "policies_in_audit",
        family.Kind.GAUGE,
        "Policies of the cluster that deny nothing here; agentctl audit list names them.",
        (),
        family.once_enforced(lambda now: now.audited),
    ),
    family.Family(
        "audit_age_seconds",
        family.Kind.GAUGE,
        "How long the oldest setting has been in audit; 0 where nothing is.",
        (),
        family.one(lambda now: now.audit_age_s),
    ),
    family.Family(
        "identities",
        family.Kind.GAUGE,
        "Groups of equal peers in the whole cluster.",
        (),
        family.once_enforced(lambda now: now.identities),
    ),
    family.Family(
        "bpf_map_entries",
        family.Kind.GAUGE,
        "Entries of a BPF map.",
        ("map",),
        lambda now: (((name,), usage.entries) for name, usage in now.usage.items()),
    ),
    family.Family(
        "bpf_map_pressure_ratio",
        family.Kind.GAUGE,
        "Entries of a BPF map to what it holds; a change needs room for the old and the new entries.",
        ("map",),
        _pressure,
    ),
    family.Family(
        "ipset_members", family.Kind.GAUGE, "Members of all our sets.", (), family.one(lambda now: now.set_members)
    ),
    family.Family(
        "streams", family.Kind.GAUGE, "Readers of the verdict stream.", (), family.one(lambda now: now.streams)
    ),
    family.Family(
        "otlp_records_exported_total",
        family.Kind.COUNTER,
        "Flow logs that the collector took; this and the other otlp metrics are only there with --otlp-endpoint.",
        (),
        family.one(lambda now: now.exports.exported if now.exports is not None else None),
    ),
    family.Family(
        "otlp_records_dropped_total",
        family.Kind.COUNTER,
        "Flow logs the collector never got: full (the queue was), behind (the exporter was), refused (by the "
        "collector, for good), ended (the agent did).",
        ("reason",),
        _exports(lambda exports: exports.dropped),
    ),
    family.Family(
        "otlp_requests_total",
        family.Kind.COUNTER,
        "Requests to the collector: ok, again (failed, to be repeated), refused (dropped).",
        ("outcome",),
        _exports(lambda exports: exports.requests),
    ),
    family.Family(
        "otlp_queue_records",
        family.Kind.GAUGE,
        "Flow logs that wait for the collector, of 2048 and 512 under way at most.",
        (),
        family.one(lambda now: now.exports.waiting if now.exports is not None else None),
    ),
    *names.FAMILIES,
    family.Family(
        "kubernetes_watch_age_seconds",
        family.Kind.GAUGE,
        "Since the API server last said something of a resource; a quiet watch gets a bookmark a minute.",
        ("resource",),
        _watches(lambda watch: watch.age_s),
    ),
    family.Family(
        "kubernetes_watch_connected",
        family.Kind.GAUGE,
        "1 where a resource is being watched, or the cluster serves none of it, else 0.",
        ("resource",),
        _watches(lambda watch: watch.connected),
    ),
    family.Family(
        "kubernetes_watch_restarts_total",
        family.Kind.COUNTER,
        "Watches after the first; a server ends each after minutes.",
        ("resource",),
        _watches(lambda watch: watch.restarts),
    ),
    family.Family(
        "kubernetes_relists_total",
        family.Kind.COUNTER,
        "Lists after the first.",
        ("resource",),
        _watches(lambda watch: watch.relists),
    ),
    family.Family(
        "kubernetes_requests_total",
        family.Kind.COUNTER,
        "Requests to the API server.",
        ("resource",),
        _watches(lambda watch: watch.requests),
    ),
    family.Family(
        "kubernetes_request_failures_total",
        family.Kind.COUNTER,
        "Requests to the API server that failed, broken watches among them.",
        ("resource",),
        _watches(lambda watch: watch.failures),
    ),
    family.Family(
        "problem_events_total",
        family.Kind.COUNTER,
        "Kubernetes Events about problems of policies: created, repeated, failed.",
        ("outcome",),
        lambda now: (((outcome,), count) for outcome, count in now.events_sent.items()),
    ),
    family.Family(
        "problem_events_waiting",
        family.Kind.GAUGE,
        "Problems of policies that this node has to tell of and has not yet, for the rate limit or a failure.",
        (),
        family.one(lambda now: now.events_waiting),
    ),
    family.Family(
        "engine_info",
        family.Kind.GAUGE,
        "What enforces; always 1.",
        ("mode", "variant"),
        lambda now: iter([((now.mode, now.variant), 1)]),
    ),
    family.Family(
        "build_info",
        family.Kind.GAUGE,
        "This release; always 1.",
        ("version",),
        lambda now: iter([((now.version,), 1)]),
    ),
)
