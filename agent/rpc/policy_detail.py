"""A policy as it was read: whom it selects, its rules in words, what of it could not be honoured, its rows here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from agent import desired, reconciler
from agent.model import net, resources
from agent.policy import words
from agent.rpc import describe, details, identity_detail

ROWS_MOST = 1000
PROTOCOLS = {desired.ANY_PROTOCOL: "any", **{member.value: member.name for member in net.Protocol}}
PORT_BITS = 16


def detail(now: reconciler.Enforcement, policy: resources.NetworkPolicy) -> details.PolicyDetail:
    """Describe `policy`, which is one of the snapshot."""
    (view,) = (one for one in describe.policies(now) if one.ref == policy.ref)
    rows = list(_rows(now, policy.ref))
    return details.PolicyDetail(
        policy=view,
        uid=policy.uid,
        subject=words.whole_subject(policy),
        rules=tuple(words.rules(policy)),
        endpoints=tuple(_selected(now, policy.ref)),
        rows=tuple(itertools.islice(rows, ROWS_MOST)),
        row_count=len(rows),
    )


def _selected(now: reconciler.Enforcement, ref: resources.ObjectRef) -> Iterator[details.SelectedEndpoint]:
    for endpoint in sorted(now.state.endpoints.values(), key=lambda one: (one.namespace, one.pod, one.id)):
        sets = (now.state.sets.get(number) for number in (endpoint.ingress_set, endpoint.egress_set))
        said = (one for one in sets if one is not None and ref in (*one.isolating, *one.others))
        directions = tuple(one.direction.name.lower() for one in said)
        if directions:
            yield details.SelectedEndpoint(
                id=endpoint.id, namespace=endpoint.namespace, pod=endpoint.pod, directions=directions
            )


def _rows(now: reconciler.Enforcement, ref: resources.ObjectRef) -> Iterator[details.PolicyRow]:
    for number, policy_set in sorted(now.state.sets.items()):
        for key, row in sorted(policy_set.rows.items()):
            rule = now.state.rules.get(row.rule)
            if rule is not None and rule.policy == ref:
                yield details.PolicyRow(
                    policy_set=number,
                    direction=policy_set.direction.name.lower(),
                    identity=key.identity,
                    peer=identity_detail.words(now, key.identity),
                    protocol=PROTOCOLS.get(key.protocol, str(key.protocol)),
                    ports=ports(key),
                    action=row.action.name.lower(),
                    rule_index=rule.index,
                )


def ports(key: desired.RowKey) -> str:
    """Say which ports a row matches."""
    if not key.port_bits:
        return "all"
    last = key.port + (1 << (PORT_BITS - key.port_bits)) - 1
    return f"{key.port}" if last == key.port else f"{key.port}-{last}"
