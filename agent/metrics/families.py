"""Every metric: its name, kind, labels and help, and how its samples follow from a picture.

Names end in their unit (`_seconds`, `_ratio`), `_total` for what only grows, `_info` for what is constant; a gauge
without a unit counts things. `table` writes METRICS.md from here, and a test compares them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from agent.metrics import picture as picture_

PREFIX = "nodewall_"
Sample: TypeAlias = tuple[tuple[str, ...], float]
"""Values of the labels, and the number."""
Samples: TypeAlias = Iterator[Sample]


class Kind(enum.Enum):
    """What a metric is to Prometheus; the value is the word of the exposition format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """One metric; `samples` is None for a histogram, which `registry` keeps."""

    name: str
    """Without the prefix."""
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    samples: Callable[[picture_.Picture], Samples] | None = None

    @property
    def full_name(self) -> str:
        """As it is scraped."""
        return PREFIX + self.name


def _one(value: Callable[[picture_.Picture], float | None]) -> Callable[[picture_.Picture], Samples]:
    def samples(now: picture_.Picture) -> Samples:
        found = value(now)
        if found is not None:
            yield (), found

    return samples


def _once_enforced(value: Callable[[picture_.Picture], float]) -> Callable[[picture_.Picture], Samples]:
    """Leave out what is not known before the first policy is enforced: a zero would be an alert."""
    return _one(lambda now: None if now.generation is None else value(now))


def _verdicts(now: picture_.Picture) -> Samples:
    for (verdict, direction, reason, layer), count in now.verdicts.items():
        yield tuple(one.name.lower() for one in (verdict, direction, reason, layer)), count


def _pressure(now: picture_.Picture) -> Samples:
    for name, usage in now.usage.items():
        yield (name,), usage.entries / usage.capacity


def _watches(value: Callable[[picture_.Watch], float]) -> Callable[[picture_.Picture], Samples]:
    return lambda now: (((watch.resource,), value(watch)) for watch in now.watches)


def _exports(values: Callable[[picture_.Exports], Mapping[str, int]]) -> Callable[[picture_.Picture], Samples]:
    def samples(now: picture_.Picture) -> Samples:
        for label, value in values(now.exports).items() if now.exports is not None else ():
            yield (label,), value

    return samples


def _names(values: Callable[[picture_.Names], Mapping[str, int]]) -> Callable[[picture_.Picture], Samples]:
    def samples(now: picture_.Picture) -> Samples:
        for label, value in values(now.names).items() if now.names is not None else ():
            yield (label,), value

    return samples


def _of_names(value: Callable[[picture_.Names], int]) -> Callable[[picture_.Picture], Samples]:
    return _one(lambda now: value(now.names) if now.names is not None else None)


PROGRAMMING = Family(
    "policy_programming_seconds", Kind.HISTOGRAM, "From a change of the cluster seen to the change enforced."
)
APPLY = Family("apply_seconds", Kind.HISTOGRAM, "Bringing the kernel into line, without the compiling before it.")

FAMILIES: tuple[Family, ...] = (
    Family(
        "verdicts_total",
        Kind.COUNTER,
        "What each layer said, read from the kernel; a connection may count at both. Those lost before are in "
        "events_lost_total, those kept back in verdicts_suppressed_total.",
        ("verdict", "direction", "reason", "layer"),
        _verdicts,
    ),
    Family(
        "decisions_total",
        Kind.COUNTER,
        "What the BPF programs counted since their maps were made, by agents before this one too; "
        "a start's self-test adds 4 denied calls, 2 denied and 2 spoofed packets.",
        ("layer", "outcome"),
        lambda now: (((*key,), count) for key, count in now.decisions.items()),
    ),
    Family(
        "events_lost_total",
        Kind.COUNTER,
        "Verdicts lost: ring (kernel buffer full), queue (agent behind), client (reader of a stream behind).",
        ("source",),
        lambda now: (((source,), count) for source, count in now.lost.items()),
    ),
    Family(
        "verdicts_suppressed_total",
        Kind.COUNTER,
        "Verdicts kept back by the rate limit (--verdict-rate).",
        (),
        _one(lambda now: now.suppressed.get("suppressed")),
    ),
    Family(
        "verdicts_repeated_total",
        Kind.COUNTER,
        "Of the suppressed verdicts those that a later one of their kind told the number of.",
        (),
        _one(lambda now: now.suppressed.get("repeated")),
    ),
    Family(
        "verdicts_forgotten_total",
        Kind.COUNTER,
        "Of the suppressed verdicts those whose number will not be told: too many other kinds came after them.",
        (),
        _one(lambda now: now.suppressed.get("forgotten")),
    ),
    Family(
        "verdicts_again_total",
        Kind.COUNTER,
        "Packets of connections told of already: datagrams nobody answers, SYNs sent again.",
        (),
        _one(lambda now: now.suppressed.get("again")),
    ),
    PROGRAMMING,
    APPLY,
    Family(
        "reconcile_errors_total",
        Kind.COUNTER,
        "Runs that failed to bring the kernel into line; the last policy stays in force.",
        (),
        _one(lambda now: now.reconcile_errors),
    ),
    Family(
        "drift_repairs_total",
        Kind.COUNTER,
        "Rules of ours that others had changed and that were put right.",
        (),
        _one(lambda now: now.repairs),
    ),
    Family("ready", Kind.GAUGE, "1 where /readyz answers 200, else 0.", (), _one(lambda now: now.ready)),
    Family("revision", Kind.GAUGE, "Inputs that arrived, counted.", (), _one(lambda now: now.revision)),
    Family(
        "enforced_revision",
        Kind.GAUGE,
        "The last of them that is enforced; less than revision while a change is pending.",
        (),
        _one(lambda now: now.enforced_revision),
    ),
    Family(
        "generation", Kind.GAUGE, "Number of the policy in force.", (), _once_enforced(lambda now: now.generation or 0)
    ),
    Family(
        "policies",
        Kind.GAUGE,
        "Policies of the cluster, by kind.",
        ("kind",),
        lambda now: (((kind,), count) for kind, count in now.policies.items()),
    ),
    Family(
        "problems",
        Kind.GAUGE,
        "What of the input cannot be honoured; agentctl status names each.",
        (),
        _once_enforced(lambda now: now.problems),
    ),
    Family(
        "endpoints",
        Kind.GAUGE,
        "Pods of this node: isolated (by a policy, in a direction), open (by none), held (not programmed yet).",
        ("state",),
        lambda now: (((state,), count) for state, count in now.endpoints.items()),
    ),
    Family(
        "endpoints_enforcing",
        Kind.GAUGE,
        "Pods of this node: audit (some policy on it is in audit), enforce (all that select it are enforced), none.",
        ("mode",),
        lambda now: (((mode,), count) for mode, count in now.enforcing.items()),
    ),
    Family(
        "policies_in_audit",
        Kind.GAUGE,
        "Policies of the cluster that deny nothing here; agentctl audit list names them.",
        (),
        _once_enforced(lambda now: now.audited),
    ),
    Family(
        "audit_age_seconds",
        Kind.GAUGE,
        "How long the oldest setting has been in audit; 0 where nothing is.",
        (),
        _one(lambda now: now.audit_age_s),
    ),
    Family(
        "identities",
        Kind.GAUGE,
        "Groups of equal peers in the whole cluster.",
        (),
        _once_enforced(lambda now: now.identities),
    ),
    Family(
        "bpf_map_entries",
        Kind.GAUGE,
        "Entries of a BPF map.",
        ("map",),
        lambda now: (((name,), usage.entries) for name, usage in now.usage.items()),
    ),
    Family(
        "bpf_map_pressure_ratio",
        Kind.GAUGE,
        "Entries of a BPF map to what it holds; a change needs room for the old and the new entries.",
        ("map",),
        _pressure,
    ),
    Family("ipset_members", Kind.GAUGE, "Members of all our sets.", (), _one(lambda now: now.set_members)),
    Family("streams", Kind.GAUGE, "Readers of the verdict stream.", (), _one(lambda now: now.streams)),
    Family(
        "otlp_records_exported_total",
        Kind.COUNTER,
        "Flow logs that the collector took; this and the other otlp metrics are only there with --otlp-endpoint.",
        (),
        _one(lambda now: now.exports.exported if now.exports is not None else None),
    ),
    Family(
        "otlp_records_dropped_total",
        Kind.COUNTER,
        "Flow logs the collector never got: full (the queue was), behind (the exporter was), refused (by the "
        "collector, for good), ended (the agent did).",
        ("reason",),
        _exports(lambda exports: exports.dropped),
    ),
    Family(
        "otlp_requests_total",
        Kind.COUNTER,
        "Requests to the collector: ok, again (failed, to be repeated), refused (dropped).",
        ("outcome",),
        _exports(lambda exports: exports.requests),
    ),
    Family(
        "otlp_queue_records",
        Kind.GAUGE,
        "Flow logs that wait for the collector, of 2048 and 512 under way at most.",
        (),
        _one(lambda now: now.exports.waiting if now.exports is not None else None),
    ),
    Family(
        "dns_queries_total",
        Kind.COUNTER,
        "Queries of pods to resolvers that are believed; this and what follows of DNS is only there where names are "
        "learned, and counts since the maps were made, by agents before this one too.",
        (),
        _of_names(lambda names: names.queries),
    ),
    Family(
        "dns_answers_total",
        Kind.COUNTER,
        "Answers to such queries: learned, no_rule (no policy of this node has such a name), negative (an error, or "
        "no records), malformed (what came before the fault was learned).",
        ("outcome",),
        _names(lambda names: names.answers),
    ),
    Family(
        "dns_answers_unread_total",
        Kind.COUNTER,
        "Answers of which nothing was learned: untrusted (of another resolver), unasked, fragmented, split (of TCP, "
        "not one whole message); or not all: too_long, too_many_records.",
        ("reason",),
        _names(lambda names: names.unread),
    ),
    Family(
        "dns_answers_lost_total",
        Kind.COUNTER,
        "Answers that were learned and not remembered, for the kernel's buffer was full: a policy that comes later "
        "does not find them.",
        (),
        _of_names(lambda names: names.lost),
    ),
    Family(
        "fqdn_evictions_total",
        Kind.COUNTER,
        "Addresses that did not stay learned until they expired: endpoint_full (4,096 of one pod), names_full (four "
        "kinds of names of one address), node_full.",
        ("reason",),
        _names(lambda names: names.evicted),
    ),
    Family(
        "fqdn_learned_addresses",
        Kind.GAUGE,
        "Addresses that pods have learned by names of policies: counting, or expired and not replaced yet.",
        ("state",),
        _names(lambda names: names.learned),
    ),
    Family(
        "fqdn_remembered",
        Kind.GAUGE,
        "Names that pods were told addresses of, with a policy or without, and these addresses.",
        ("kind",),
        _names(lambda names: names.remembered),
    ),
    Family(
        "fqdn_forgotten_total",
        Kind.COUNTER,
        "Of these, forgotten before their time: a pod has at most 512 names and 4,096 addresses.",
        ("kind",),
        _names(lambda names: names.forgotten),
    ),
    Family(
        "fqdn_replayed_total",
        Kind.COUNTER,
        "Addresses that a policy by name found, for pods had been told of them before.",
        (),
        _of_names(lambda names: names.replayed),
    ),
    Family(
        "fqdn_late_total",
        Kind.COUNTER,
        "Policies by name that came into force before all answers given by then had been read.",
        (),
        _of_names(lambda names: names.late),
    ),
    Family(
        "kubernetes_watch_age_seconds",
        Kind.GAUGE,
        "Since the API server last said something of a resource; a quiet watch gets a bookmark a minute.",
        ("resource",),
        _watches(lambda watch: watch.age_s),
    ),
    Family(
        "kubernetes_watch_connected",
        Kind.GAUGE,
        "1 where a resource is being watched, or the cluster serves none of it, else 0.",
        ("resource",),
        _watches(lambda watch: watch.connected),
    ),
    Family(
        "kubernetes_watch_restarts_total",
        Kind.COUNTER,
        "Watches after the first; a server ends each after minutes.",
        ("resource",),
        _watches(lambda watch: watch.restarts),
    ),
    Family(
        "kubernetes_relists_total",
        Kind.COUNTER,
        "Lists after the first.",
        ("resource",),
        _watches(lambda watch: watch.relists),
    ),
    Family(
        "kubernetes_requests_total",
        Kind.COUNTER,
        "Requests to the API server.",
        ("resource",),
        _watches(lambda watch: watch.requests),
    ),
    Family(
        "kubernetes_request_failures_total",
        Kind.COUNTER,
        "Requests to the API server that failed, broken watches among them.",
        ("resource",),
        _watches(lambda watch: watch.failures),
    ),
    Family(
        "problem_events_total",
        Kind.COUNTER,
        "Kubernetes Events about problems of policies: created, repeated, failed.",
        ("outcome",),
        lambda now: (((outcome,), count) for outcome, count in now.events_sent.items()),
    ),
    Family(
        "problem_events_waiting",
        Kind.GAUGE,
        "Problems of policies that this node has to tell of and has not yet, for the rate limit or a failure.",
        (),
        _one(lambda now: now.events_waiting),
    ),
    Family(
        "engine_info",
        Kind.GAUGE,
        "What enforces; always 1.",
        ("mode", "variant"),
        lambda now: iter([((now.mode, now.variant), 1)]),
    ),
    Family("build_info", Kind.GAUGE, "This release; always 1.", ("version",), lambda now: iter([((now.version,), 1)])),
)
