"""What the evaluator says of DNS queries, as tests put it beside what filters say (rule E17)."""

from __future__ import annotations

from collections.abc import Iterable

from agent import snapshot
from agent.model import audit as audit_
from agent.policy import evaluator, queries


def refused(
    cluster: snapshot.Snapshot, flows: Iterable[evaluator.Flow], name: str, audit: audit_.Audit = audit_.NOTHING
) -> tuple[bool, bool]:
    """Tell whether a query is refused that may reach any of `flows`, and whether it would be with those in audit."""
    answer = queries.asked_of(cluster, flows, name, audit)
    return not answer.allowed, answer.would_refuse
