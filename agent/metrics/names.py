"""The metrics of DNS and of what is learned by name, a part of the table in `families`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.metrics import family
from agent.metrics import picture as picture_


def _names(values: Callable[[picture_.Names], Mapping[str, int]]) -> Callable[[picture_.Picture], family.Samples]:
    def samples(now: picture_.Picture) -> family.Samples:
        for label, value in values(now.names).items() if now.names is not None else ():
            yield (label,), value

    return samples


def _of_names(value: Callable[[picture_.Names], int]) -> Callable[[picture_.Picture], family.Samples]:
    return family.one(lambda now: value(now.names) if now.names is not None else None)


FAMILIES: tuple[family.Family, ...] = (
    family.Family(
        "dns_queries_total",
        family.Kind.COUNTER,
        "Queries of pods to resolvers that are believed; this and what follows of DNS is only there where names are "
        "learned, and counts since the maps were made, by agents before this one too.",
        (),
        _of_names(lambda names: names.queries),
    ),
    family.Family(
        "dns_answers_total",
        family.Kind.COUNTER,
        "Answers to such queries: learned, no_rule (no policy of this node has such a name), negative (an error, or "
        "no records), malformed (what came before the fault was learned).",
        ("outcome",),
        _names(lambda names: names.answers),
    ),
    family.Family(
        "dns_answers_unread_total",
        family.Kind.COUNTER,
        "Answers of which nothing was learned: untrusted (of another resolver), unasked, fragmented, split (TCP "
        "segments that cannot be followed); or not all: too_long, too_many_records.",
        ("reason",),
        _names(lambda names: names.unread),
    ),
    family.Family(
        "dns_refused_total",
        family.Kind.COUNTER,
        "Queries for names that no policy lets the pod ask for, and whatever else it sent there: refused, or audit "
        "(passed, and policies in audit would refuse it).",
        ("outcome",),
        _names(lambda names: names.refused),
    ),
    family.Family(
        "dns_answers_lost_total",
        family.Kind.COUNTER,
        "Answers that were learned and not remembered, for the kernel's buffer was full: a policy that comes later "
        "does not find them.",
        (),
        _of_names(lambda names: names.lost),
    ),
    family.Family(
        "dns_segments_held_total",
        family.Kind.COUNTER,
        "TCP segments of resolvers that were dropped because what comes before them was lost on its way: they come "
        "again, in order, and no pod has what was not learned.",
        (),
        _of_names(lambda names: names.held),
    ),
    family.Family(
        "fqdn_evictions_total",
        family.Kind.COUNTER,
        "Addresses that did not stay learned until they expired: endpoint_full (4,096 of one pod), names_full (four "
        "kinds of names of one address), node_full.",
        ("reason",),
        _names(lambda names: names.evicted),
    ),
    family.Family(
        "fqdn_learned_addresses",
        family.Kind.GAUGE,
        "Addresses that pods have learned by names of policies: counting, or expired and not replaced yet.",
        ("state",),
        _names(lambda names: names.learned),
    ),
    family.Family(
        "fqdn_remembered",
        family.Kind.GAUGE,
        "Names that pods were told addresses of, with a policy or without, and these addresses.",
        ("kind",),
        _names(lambda names: names.remembered),
    ),
    family.Family(
        "fqdn_forgotten_total",
        family.Kind.COUNTER,
        "Of these, forgotten before their time: a pod has at most 512 names and 4,096 addresses.",
        ("kind",),
        _names(lambda names: names.forgotten),
    ),
    family.Family(
        "fqdn_replayed_total",
        family.Kind.COUNTER,
        "Addresses that a policy by name found, for pods had been told of them before.",
        (),
        _of_names(lambda names: names.replayed),
    ),
    family.Family(
        "fqdn_late_total",
        family.Kind.COUNTER,
        "Policies by name that came into force before all answers given by then had been read.",
        (),
        _of_names(lambda names: names.late),
    ),
)
