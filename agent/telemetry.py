"""What the agent shows to machines: takes the picture of a scrape, and the conditions that health is judged by.

Everything is read when it is asked for, on the event loop, from values that the parts of the agent keep anyway.
"""

from __future__ import annotations

import collections
import dataclasses
import http
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from agent import audits, desired, health, pages, patience, reconciler
from agent import clock as clock_
from agent.datapath import base
from agent.learning import memory
from agent.metrics import picture, registry
from agent.model import net, verdict
from agent.observer import observer, stream

if TYPE_CHECKING:  # who is fed by manifests does without
    from agent import problems
    from agent.sources.kubernetes import source

OWN_READERS = 2
"""The logs of denials and of would-be denials read the stream, too."""
DECISIONS = {
    "socket_allowed": ("socket", "allowed"),
    "socket_denied": ("socket", "denied"),
    "packet_allowed": ("packet", "allowed"),
    "packet_denied": ("packet", "denied"),
    "spoofed": ("packet", "spoofed"),
    "malformed": ("packet", "malformed"),
}
"""Counters of the kernel, by layer and outcome."""
SUPPRESSED = {"events_suppressed": "suppressed", "events_repeated": "repeated", "events_forgotten": "forgotten"}
"""Counters of the rate limit, by what they count."""
DNS_ANSWERS = {f"dns_{what}": what for what in ("learned", "no_rule", "negative", "malformed")}
"""Counters of the DNS learner: answers to a pod's query, by what came of them."""
DNS_UNREAD = {
    f"dns_{what}": what for what in ("untrusted", "unasked", "fragmented", "split", "too_long", "too_many_records")
}
"""Answers of which nothing, or not all, was learned, by why."""
DNS_REFUSED = {"dns_refused": "refused", "dns_would_refuse": "audit"}
"""Queries that a filter of names did not admit, by what became of them."""
DNS_EVICTED = {"dns_evicted": "endpoint_full", "dns_class_evicted": "names_full", "dns_full": "node_full"}
"""Addresses that were not kept, by why."""
ENDPOINT_STATES = ("isolated", "open", "held")
MODES = ("enforce", "audit", "none")


class Cluster(Protocol):
    """What is asked of the source `kubernetes`."""

    @property
    def states(self) -> tuple[source.WatchState, ...]:
        """Return how it stands with each resource."""

    @property
    def counters(self) -> Mapping[tuple[str, str], int]:
        """Return what happened so far, by what and resource."""


@dataclasses.dataclass(kw_only=True)
class Telemetry:
    """Asks the parts of one running agent."""

    version: str
    report: base.EngineReport
    datapath: base.Datapath
    loop: reconciler.Reconciler
    verdicts: stream.Stream
    watcher: observer.Observer | None
    counters: Callable[[], Mapping[str, int]]
    """What datapath and verdict source count."""
    clock: clock_.Clock
    heart: health.Heart
    ledger: audits.Ledger | None = None
    cluster: Cluster | None = None
    teller: problems.Teller | None = None
    exports: Callable[[], picture.Exports] | None = None
    """What became of flow logs; None where nothing is exported."""
    names: Callable[[], memory.Counted] | None = None
    """What is remembered of DNS; None where nothing is learned of it."""

    def live(self) -> health.Checks:
        """Say whether the process works."""
        busy_s = self.loop.busy_ns / 1e9
        return health.live(silent_s=self.heart.silent_s, busy_s=busy_s, patience=patience.seconds)

    def ready(self) -> health.Checks:
        """Say whether this node enforces what the agent was told."""
        now, repairs = self.loop.enforcement, self.loop.repairs
        return health.ready(
            health.Condition(
                waiting_for=tuple(self._waiting_for()),
                engine=self.report.mode,
                unproved=self.report.unproved,
                missing=(*self.datapath.missing(), *([repairs.error] if repairs.error else [])),
                generation=now.generation if now is not None else None,
            )
        )

    def not_ready(self) -> tuple[str, ...]:
        """Return why the agent is not ready, a line a check; none: it is."""
        return health.failed(self.ready())

    def take(self) -> picture.Picture:
        """Take the picture of a scrape."""
        inputs, repairs, counters = self.loop.inputs, self.loop.repairs, self.counters()
        usage = dict(self.datapath.usage())
        sets = usage.pop(base.SETS, None)
        taken = picture.Picture(
            version=self.version,
            mode=self.report.mode,
            variant=self.report.variant,
            ready=not self.not_ready(),
            revision=inputs.revision,
            verdicts=_verdicts(self.watcher),
            decisions={key: counters[name] for name, key in DECISIONS.items() if name in counters},
            lost={
                "ring": counters.get("events_lost", 0),
                "queue": self.watcher.dropped if self.watcher is not None else 0,
                "client": self.verdicts.lost,
            },
            suppressed={what: counters[name] for name, what in SUPPRESSED.items() if name in counters}
            | ({"again": self.watcher.again} if self.watcher is not None else {}),
            usage=usage,
            set_members=sets.entries if sets is not None else None,
            reconcile_errors=self.loop.failures,
            repairs=repairs.count,
            streams=max(0, self.verdicts.readers - OWN_READERS),
            watches=tuple(self._watches()),
            events_sent=self.teller.counted() if self.teller is not None else {},
            events_waiting=self.teller.waiting if self.teller is not None else 0,
            audit_age_s=self._audit_age_s(),
            exports=self.exports() if self.exports is not None else None,
            names=_names(counters, self.names()) if self.names is not None else None,
        )
        now = self.loop.enforcement
        return taken if now is None else _enforced(taken, now)

    def _audit_age_s(self) -> float:
        since = self.ledger.oldest_unix_ns if self.ledger is not None else 0
        return max(0, self.clock.unix_ns() - since) / 1e9 if since else 0.0

    def _waiting_for(self) -> Iterator[str]:
        inputs = self.loop.inputs
        if inputs.source is None:
            unsynced = [one.resource.value for one in self.cluster.states if not one.synced] if self.cluster else []
            yield from unsynced or ["the source"]
        if inputs.sandboxes is None:
            yield "this node's sandboxes"

    def _watches(self) -> Iterator[picture.Watch]:
        if self.cluster is None:
            return
        now, counted = self.clock.unix_ns(), self.cluster.counters
        for state in self.cluster.states:
            name = state.resource.value
            yield picture.Watch(
                resource=name,
                connected=state.connected,
                age_s=max(0, now - (state.heard_unix_ns or state.since_unix_ns)) / 1e9,
                restarts=max(0, counted.get(("watches", name), 0) - 1),
                relists=counted.get(("relists", name), 0),
                requests=counted.get(("requests", name), 0),
                failures=counted.get(("failures", name), 0),
            )


def _names(counters: Mapping[str, int], counted: memory.Counted) -> picture.Names:
    def of(words: Mapping[str, str]) -> Mapping[str, int]:
        return {what: counters.get(name, 0) for name, what in words.items()}

    return picture.Names(
        queries=counters.get("dns_queries", 0),
        answers=of(DNS_ANSWERS),
        unread=of(DNS_UNREAD),
        refused=of(DNS_REFUSED),
        evicted=of(DNS_EVICTED),
        forgotten={"name": counted.names_forgotten, "address": counted.addresses_forgotten},
        lost=counters.get("dns_answers_lost", 0),
        held=counters.get("dns_held", 0),
        replayed=counted.replayed,
        late=counted.late,
        remembered={"name": counted.names, "address": counted.addresses},
        learned={"counting": counted.learned, "expired": counted.expired},
    )


def health_pages(told: Telemetry) -> Mapping[str, pages.Page]:
    """Return the pages that kubelet asks for."""
    return {"/livez": _page(told.live), "/readyz": _page(told.ready)}


def metrics_pages(told: Telemetry, metrics: registry.Registry) -> Mapping[str, pages.Page]:
    """Return the page that Prometheus scrapes."""

    def page(_: frozenset[str]) -> pages.Answer:
        return pages.Answer(content=metrics.page(told.take()), content_type=registry.CONTENT_TYPE)

    return {"/metrics": page}


def applied(metrics: registry.Registry, clock: clock_.Clock) -> Callable[[reconciler.Enforcement, base.Applied], None]:
    """Return what tells `metrics` of each run."""

    def note(new: reconciler.Enforcement, done: base.Applied) -> None:
        waited = new.inputs.waiting_unix_ns
        since_s = (clock.unix_ns() - waited) / 1e9 if waited else None
        metrics.applied(seconds=done.seconds, since_change_s=since_s)

    return note


def _page(judge: Callable[[], health.Checks]) -> pages.Page:
    def page(query: frozenset[str]) -> pages.Answer:
        checks = judge()
        status = http.HTTPStatus.SERVICE_UNAVAILABLE if health.failed(checks) else http.HTTPStatus.OK
        return pages.Answer(status=status, content=health.text(checks, verbose="verbose" in query).encode())

    return page


def _verdicts(watcher: observer.Observer | None) -> Mapping[picture.Kind, int]:
    if watcher is None:
        return {}
    return {
        (verdict.Verdict(what), net.Direction(direction), verdict.Reason(reason), verdict.Layer(layer)): count
        for (layer, direction, what, reason), count in sorted(watcher.seen.copy().items())
        if (layer, direction, what, reason) in observer.KNOWN
    }


def _enforced(taken: picture.Picture, now: reconciler.Enforcement) -> picture.Picture:
    states = collections.Counter(
        "held" if one.held else "isolated" if {one.ingress_set, one.egress_set} - {desired.NOT_ISOLATED} else "open"
        for one in now.state.endpoints.values()
    )
    modes = collections.Counter(mode_of(one) for one in now.state.endpoints.values())
    return dataclasses.replace(
        taken,
        enforced_revision=now.inputs.revision,
        generation=now.generation,
        policies=collections.Counter(ref.kind for ref in now.snapshot.policies) or {"NetworkPolicy": 0},
        problems=len(now.problems),
        endpoints={state: states[state] for state in ENDPOINT_STATES},
        enforcing={mode: modes[mode] for mode in MODES},
        audited=len(now.audited.policies),
        identities=len(now.state.identities),
    )


def mode_of(one: desired.Endpoint) -> str:
    """Say of a pod whether some policy on it is in audit, else whether any is enforced on it."""
    if {one.ingress_audit, one.egress_audit} != {desired.NOT_ISOLATED}:
        return "audit"
    enforced = one.held or {one.ingress_set, one.egress_set} != {desired.NOT_ISOLATED}
    return "enforce" if enforced else "none"
