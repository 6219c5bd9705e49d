"""Who talked to whom on which port: the verdicts of a recording, those of one flow together.

A connection is judged at both of its ends, on two nodes maybe, and again for every new one. What counts here is the
last verdict of each end: policies may have changed in the course of a recording. Replies are no verdicts of their own,
and what was dropped for another reason than a policy's says nothing of policies: both are counted, not judged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from agent.flows import records
from agent.model import net, resources, verdict

NOT_BY_POLICY = frozenset(
    {
        verdict.Reason.ENDPOINT_HELD,
        verdict.Reason.SOURCE_SPOOFED,
        verdict.Reason.MALFORMED,
        verdict.Reason.RELATED_FORGED,
        verdict.Reason.UNJUDGED,
    }
)
SIDES = (net.Direction.EGRESS, net.Direction.INGRESS)


@dataclasses.dataclass(frozen=True, slots=True)
class Who:
    """What tells one end of a talk from others: a pod by its name, anything else by its address."""

    namespace: str
    pod: str
    address: net.Address | None
    """None for a pod: it has the same name in both families."""
    version: int
    """IP version: the two families are judged apart."""


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """What tells one talk from others; the port is the destination's."""

    source: Who
    destination: Who
    protocol: int
    port: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """One source, one destination, one port: every verdict of a recording on it."""

    key: Key
    source: records.End
    """As the last record has it."""
    destination: records.End
    last: Mapping[net.Direction, records.Record]
    """The last verdict of each end that gave one."""
    count: int
    """Verdicts, of both ends, and those that were kept back and are told as a number."""
    first_ns: int
    last_ns: int
    nodes: frozenset[str]

    @property
    def passed(self) -> bool:
        """Every end that gave a verdict let it pass the last time, if only for an audit."""
        return all(record.verdict in PASSING for record in self.last.values())

    @property
    def audited(self) -> bool:
        """It passes for an audit alone: policies deny it."""
        return any(record.verdict is verdict.Verdict.AUDIT for record in self.last.values())


PASSING = frozenset({verdict.Verdict.FORWARDED, verdict.Verdict.AUDIT})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much a recording can tell: an absent flow proves nothing outside of this."""

    records: int = 0
    """Verdicts of policies that it tells of."""
    kept_back: int = 0
    """Of these, those that are told as a number alone, with the next of their kind."""
    first_ns: int = 0
    last_ns: int = 0
    nodes: tuple[str, ...] = ()
    lost: int = 0
    malformed: int = 0
    others: int = 0
    """Lines that hold no verdict of a policy, or one on a DNS query's name."""
    replies: int = 0
    not_by_policy: int = 0
    """Drops that no policy ordered."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a recording tells."""

    talks: tuple[Talk, ...]
    """In the order of their keys' names, so that one recording gives one answer."""
    coverage: Coverage


class _Gathered:
    """The verdicts of one talk so far."""

    __slots__ = ("count", "first_ns", "last", "last_ns", "nodes", "record")

    def __init__(self, record: records.Record) -> None:
        self.record = record
        self.count = 0
        self.first_ns = self.last_ns = record.time_ns
        self.nodes: set[str] = set()
        self.last: dict[net.Direction, records.Record] = {}

    def add(self, record: records.Record) -> None:
        self.count += record.stands_for
        self.first_ns = min(self.first_ns, record.time_ns)
        if record.time_ns >= self.last_ns:
            self.last_ns, self.record = record.time_ns, record
        self.nodes.add(record.node)
        known = self.last.get(record.direction)
        if known is None or _supersedes(record, known):
            self.last[record.direction] = record


def _supersedes(new: records.Record, old: records.Record) -> bool:
    """Tell whether a verdict is later than another; of two layers' at one moment the denial counts."""
    if new.time_ns != old.time_ns:
        return new.time_ns > old.time_ns
    return new.verdict not in PASSING or old.verdict in PASSING


def gather(lines: Iterable[records.Record], reader: records.Reader | None = None) -> Told:
    """Put the verdicts of each talk together; `reader`, read to its end, tells what else was in the recording."""
    gathered: dict[Key, _Gathered] = {}
    replies = not_by_policy = count = kept_back = queries = 0
    first_ns = last_ns = 0
    nodes: set[str] = set()
    for record in lines:
        if record.query:
            queries += record.stands_for
            continue
        if record.reply:
            replies += record.stands_for
            continue
        if record.reason in NOT_BY_POLICY or record.verdict is verdict.Verdict.ERROR:
            not_by_policy += record.stands_for
            continue
        first_ns = min(first_ns, record.time_ns) if count else record.time_ns
        count += record.stands_for
        kept_back += record.repeats
        last_ns = max(last_ns, record.time_ns)
        nodes.add(record.node)
        found = key(record)
        if found not in gathered:
            gathered[found] = _Gathered(record)
        gathered[found].add(record)
    talks = tuple(_talk(one, gathered[one]) for one in sorted(gathered, key=_order))
    coverage = Coverage(
        records=count,
        kept_back=kept_back,
        first_ns=first_ns,
        last_ns=last_ns,
        nodes=tuple(sorted(nodes)),
        lost=reader.lost if reader else 0,
        malformed=reader.malformed if reader else 0,
        others=(reader.others if reader else 0) + queries,
        replies=replies,
        not_by_policy=not_by_policy,
    )
    return Told(talks=talks, coverage=coverage)


def key(record: records.Record) -> Key:
    """Return which talk a verdict is of."""
    version = record.destination.address.version
    return Key(
        _who(record.source, version), _who(record.destination, version), record.protocol, record.destination.port
    )


def ref(who: Who) -> str:
    """Return `namespace/pod`, or the address; hostile, escape it to print."""
    return f"{who.namespace}/{who.pod}" if who.pod else str(who.address)


def service_of(end: records.End) -> resources.ObjectRef | None:
    """Return the Service that was dialled, where the verdict was given on its address."""
    return None if end.pod else end.service


def _who(end: records.End, version: int) -> Who:
    return Who(end.namespace if end.pod else "", end.pod, None if end.pod else end.address, version)


def _order(one: Key) -> tuple[str, str, int, int, int]:
    return ref(one.source), ref(one.destination), one.protocol, one.port, one.source.version


def _talk(one: Key, found: _Gathered) -> Talk:
    return Talk(
        key=one,
        source=found.record.source,
        destination=found.record.destination,
        last=found.last,
        count=found.count,
        first_ns=found.first_ns,
        last_ns=found.last_ns,
        nodes=frozenset(found.nodes),
    )
