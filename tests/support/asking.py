"""What the evaluator says of DNS queries, as tests put it beside what filters say (rule E17)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from agent import snapshot
from agent.model import audit as audit_
from agent.policy import evaluator, queries


def refused(
    cluster: snapshot.Snapshot, flows: Iterable[evaluator.Flow], name: str, audit: audit_.Audit = audit_.NOTHING
) -> tuple[bool, bool]:
    """Tell whether a query is refused that may reach any of `flows`, and whether it would be with those in audit.

    Several flows are those to a Service's endpoints: whoever dials it may ask for what all of them that are allowed
    let it ask for, and for nothing where they differ.
    """
    walks = [evaluator.walk(cluster, dataclasses.replace(flow, names=frozenset()), audit).egress for flow in flows]
    enforced = _refuses(list(_restrictions(walks, with_audit=False)), name)
    return enforced, not enforced and _refuses(list(_restrictions(walks, with_audit=True)), name)


def _restrictions(walks: Iterable[evaluator.SideWalk], *, with_audit: bool) -> Iterator[queries.Restriction | None]:
    for walk in walks:
        side = walk.side.would if with_audit else walk.side
        if side is not None and side.allowed:
            yield queries.restriction(walk, with_audit=with_audit)


def _refuses(found: list[queries.Restriction | None], name: str) -> bool:
    restricting = [one for one in found if one is not None]
    if not restricting:
        return False
    alike = len(restricting) == len(found) and len({one.patterns for one in restricting}) == 1
    return not (alike and restricting[0].admits(name))
