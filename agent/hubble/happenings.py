"""What the agent did between two states it enforced, as Hubble's agent events; no I/O, no clock.

Whatever happened between two looks is told as one step: a pod that came and went meanwhile is told of by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent import desired, reconciler
from agent.api.flow import flow_pb2 as pb
from agent.hubble import words
from agent.model import resources

POLICY_LABEL = "k8s:io.cilium.k8s.policy."
"""How policies are named in this event, which has no field for it."""


def started(unix_ns: int) -> pb.AgentEvent:
    """Tell when the agent began."""
    event = pb.AgentEvent(type=pb.AGENT_STARTED)
    event.agent_start.time.FromNanoseconds(unix_ns)
    return event


def between(before: reconciler.Enforcement | None, now: reconciler.Enforcement) -> Iterator[pb.AgentEvent]:
    """Tell which policies and endpoints came, changed and went."""
    old_policies: Mapping[resources.ObjectRef, resources.NetworkPolicy]
    old_policies, old_endpoints = ({}, {}) if before is None else (before.snapshot.policies, before.state.endpoints)
    policies, endpoints = now.snapshot.policies, now.state.endpoints
    for ref in old_policies.keys() - policies.keys():
        yield pb.AgentEvent(type=pb.POLICY_DELETED, policy_update=_policy(old_policies[ref], now.inputs.revision))
    for ref, policy in policies.items():
        if old_policies.get(ref) != policy:
            yield pb.AgentEvent(type=pb.POLICY_UPDATED, policy_update=_policy(policy, now.inputs.revision))
    for number in old_endpoints.keys() - endpoints.keys():
        yield pb.AgentEvent(type=pb.ENDPOINT_DELETED, endpoint_update=_endpoint(old_endpoints[number]))
    for number in endpoints.keys() - old_endpoints.keys():
        yield pb.AgentEvent(type=pb.ENDPOINT_CREATED, endpoint_update=_endpoint(endpoints[number]))


def _policy(policy: resources.NetworkPolicy, revision: int) -> pb.PolicyUpdateNotification:
    named = {"derived-from": policy.kind, "name": policy.name, "namespace": policy.namespace}
    return pb.PolicyUpdateNotification(
        labels=[words.plain(f"{POLICY_LABEL}{key}={value}") for key, value in named.items()],
        revision=revision,
        rule_count=len(policy.ingress) + len(policy.egress),
    )


def _endpoint(endpoint: desired.Endpoint) -> pb.EndpointUpdateNotification:
    return pb.EndpointUpdateNotification(
        id=endpoint.id,
        labels=[words.plain(f"k8s:{key}={value}") for key, value in endpoint.labels.items()],
        pod_name=endpoint.pod,
        namespace=endpoint.namespace,
    )
