"""What a scrape sees: values gathered at that moment, none of which changes while the page is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.datapath import base
from agent.model import net, verdict

Kind = tuple[verdict.Verdict, net.Direction, verdict.Reason, verdict.Layer]
"""All that a verdict is counted by."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How it stands between the agent and one resource of the API server."""

    resource: str
    connected: bool
    age_s: float
    """Since the server last said something of it."""
    restarts: int
    relists: int
    requests: int
    failures: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Exports:
    """Flow logs on their way to a collector."""

    exported: int
    dropped: Mapping[str, int]
    """By why: `behind`, `full`, `refused`, `ended`."""
    waiting: int
    """Those of the request under way among them."""
    requests: Mapping[str, int]
    """By outcome: `ok`, `again`, `refused`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What is learned from DNS."""

    queries: int
    """Of pods to resolvers that are believed."""
    answers: Mapping[str, int]
    """By what came of them: `learned`, `no_rule`, `negative`, `malformed`."""
    unread: Mapping[str, int]
    """By why: `untrusted`, `unasked`, `fragmented`, `split`, `too_long`, `too_many_records`."""
    refused: Mapping[str, int]
    """Queries that a filter of names did not admit: `refused`, `audit`."""
    evicted: Mapping[str, int]
    """Addresses that were not kept in the kernel until they expired, by what had no more room."""
    forgotten: Mapping[str, int]
    """Of history, before their time: `name`, `address`."""
    lost: int
    """Answers that history was not told of."""
    held: int
    """Segments of resolvers that were dropped, for what comes before them was lost."""
    replayed: int
    late: int
    remembered: Mapping[str, int]
    """In history: `name`, `address`."""
    learned: Mapping[str, int]
    """Addresses in the kernel: `counting`, `expired`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Everything but the histograms."""

    version: str
    mode: str
    variant: str = ""
    ready: bool = False
    revision: int = 0
    enforced_revision: int = 0
    generation: int | None = None
    """None before this agent has enforced anything, and so are the numbers of policies and identities not known."""
    policies: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By kind."""
    problems: int = 0
    endpoints: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By state: `isolated`, `open`, `held`."""
    enforcing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Pods by mode: `enforce`, `audit`, `none`."""
    audited: int = 0
    """Policies in audit."""
    audit_age_s: float = 0
    """For how long the longest is in audit; 0: nothing is."""
    identities: int = 0
    verdicts: Mapping[Kind, int] = dataclasses.field(default_factory=dict)
    """As they were read; those that were lost are in `lost` alone."""
    decisions: Mapping[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    """By layer and outcome (allowed, denied, spoofed, malformed), as the kernel counts them; none is lost."""
    lost: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """By source: `ring`, `queue`, `client`."""
    suppressed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Kept back by the rate limit: `suppressed`, and of these `repeated` (told later) and `forgotten` (never).
    By the observer: `again`."""
    usage: Mapping[str, base.Usage] = dataclasses.field(default_factory=dict)
    """By map."""
    set_members: int | None = None
    """None where no engine uses sets."""
    reconcile_errors: int = 0
    repairs: int = 0
    streams: int = 0
    watches: tuple[Watch, ...] = ()
    events_sent: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Kubernetes Events by outcome: `created`, `repeated`, `failed`."""
    events_waiting: int = 0
    exports: Exports | None = None
    """None where nothing is exported."""
    names: Names | None = None
    """None where nothing is learned from DNS."""
