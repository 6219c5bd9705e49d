"""All that is known of one pod of this node: what closes it, by which rules, why it is held, what it met lately."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from agent import desired, reconciler
from agent.model import net, resources, verdict
from agent.policy import words
from agent.rpc import describe, details, service_detail


def detail(
    now: reconciler.Enforcement, endpoint: desired.Endpoint, recent: Iterable[verdict.VerdictEvent] = ()
) -> details.EndpointDetail:
    """Describe `endpoint`; `recent` are the verdicts that are still known of its pod."""
    (view,) = (one for one in describe.endpoints(now) if one.id == endpoint.id)
    return details.EndpointDetail(
        endpoint=view,
        ingress=_side(now, endpoint.ingress_set, net.Direction.INGRESS),
        egress=_side(now, endpoint.egress_set, net.Direction.EGRESS),
        ingress_ifindex=endpoint.ingress_ifindex,
        hold=_hold(now, endpoint) if endpoint.held else "",
        recent=_counted(endpoint, recent),
        services=tuple(_services(now, endpoint)),
    )


def _side(now: reconciler.Enforcement, number: int, direction: net.Direction) -> details.EndpointSide:
    found = now.state.sets.get(number)
    if found is None:
        return details.EndpointSide(isolated=number != desired.NOT_ISOLATED, policy_set=number)
    policies = (now.snapshot.policies.get(ref) for ref in (*found.isolating, *found.others))
    return details.EndpointSide(
        isolated=True,
        policy_set=number,
        rows=len(found.rows),
        policies=tuple(
            details.PolicyWords(
                policy=policy.ref,
                rules=tuple(one.text for one in words.rules(policy) if one.direction is direction),
            )
            for policy in policies
            if policy is not None
        ),
    )


def _hold(now: reconciler.Enforcement, endpoint: desired.Endpoint) -> str:
    if not endpoint.namespace:
        return "nobody has said yet whose network namespace it is (A45)"
    if (endpoint.namespace, endpoint.pod) not in now.snapshot.pods:
        return "the cluster has not told of this pod yet (A45)"
    return "the cluster tells of another pod of this name, or not of its namespace yet (A45)"


def _counted(endpoint: desired.Endpoint, recent: Iterable[verdict.VerdictEvent]) -> dict[str, int]:
    counted: collections.Counter[str] = collections.Counter()
    for event in recent:
        ends = {net.Direction.EGRESS: event.source, net.Direction.INGRESS: event.destination}
        subject = ends[event.direction]
        if (subject.namespace, subject.pod) == (endpoint.namespace, endpoint.pod):
            counted[f"{event.direction.name.lower()} {event.verdict.name.lower()}"] += 1
    return dict(sorted(counted.items()))


def _services(now: reconciler.Enforcement, endpoint: desired.Endpoint) -> Iterator[resources.ObjectRef]:
    own = set(endpoint.addresses)
    for service in service_detail.services(now):
        if any(backend.address in own for backend in service.backends):
            yield resources.ObjectRef("Service", service.namespace, service.name)
