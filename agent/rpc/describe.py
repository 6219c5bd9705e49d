"""What the agent says of itself: functions from what is enforced to the API's values, without I/O."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping

from agent import desired as desired_
from agent import reconciler
from agent.datapath import base
from agent.model import endpoint as endpoint_
from agent.model import identity, labels, net, resources
from agent.rpc import audits, details, views

ADDRESSES_SHOWN = 64
"""Addresses listed of one identity; all are counted."""


def endpoints(enforcement: reconciler.Enforcement) -> Iterator[details.Endpoint]:
    """Yield this node's endpoints by namespace and pod."""
    state = enforcement.state
    for endpoint in sorted(state.endpoints.values(), key=lambda one: (one.namespace, one.pod, one.id)):
        ingress, egress = state.sets.get(endpoint.ingress_set), state.sets.get(endpoint.egress_set)
        yield details.Endpoint(
            id=endpoint.id,
            namespace=endpoint.namespace,
            pod=endpoint.pod,
            uid=endpoint.uid,
            labels=labels.Labels(endpoint.labels),
            addresses=endpoint.addresses,
            identities=tuple(identity_of(address, state) for address in endpoint.addresses),
            netns_cookie=endpoint.netns_cookie,
            veth_ifindex=endpoint.veth_ifindex,
            ingress_isolated=endpoint.ingress_set != desired_.NOT_ISOLATED,
            egress_isolated=endpoint.egress_set != desired_.NOT_ISOLATED,
            ingress_policies=(*ingress.isolating, *ingress.others) if ingress is not None else (),
            egress_policies=(*egress.isolating, *egress.others) if egress is not None else (),
            held=endpoint.held,
            audit_ingress=_in_audit(enforcement, endpoint.ingress_audit),
            audit_egress=_in_audit(enforcement, endpoint.egress_audit),
        )


def _in_audit(enforcement: reconciler.Enforcement, number: int) -> tuple[resources.ObjectRef, ...]:
    """Return the policies in audit of an audit set, which has the enforced ones as well."""
    audit = enforcement.state.sets.get(number)
    in_audit = enforcement.audited.policies
    return () if audit is None else tuple(ref for ref in (*audit.isolating, *audit.others) if ref in in_audit)


def identity_of(address: net.Address, state: desired_.DesiredState) -> int:
    """Return the identity a datapath finds for `address` (see `desired`, step 3)."""
    if address in state.hosts:
        return state.hosts[address]
    covering = (prefix for prefix in state.cidrs if prefix.version == address.version and address in prefix)
    longest = max(covering, key=lambda prefix: prefix.prefixlen, default=None)
    return identity.WORLD if longest is None else state.cidrs[longest]


def identities(enforcement: reconciler.Enforcement) -> Iterator[details.Identity]:
    """Yield the identities of the whole cluster by number, with the pods' addresses that have them."""
    holders: dict[int, list[net.Address]] = collections.defaultdict(list)
    for address, number in enforcement.state.hosts.items():
        holders[number].append(address)
    for known in sorted(enforcement.state.identities.values(), key=lambda one: one.id):
        addresses = sorted(holders[known.id], key=lambda one: (one.version, int(one)))
        facts = known.facts
        yield details.Identity(
            id=known.id,
            namespace=facts.namespace or "",
            labels=facts.labels,
            namespace_labels=facts.namespace_labels,
            named_ports=tuple(f"{port.name}={port.number}/{port.protocol.name}" for port in facts.ports),
            blocks=facts.blocks,
            addresses=tuple(addresses[:ADDRESSES_SHOWN]),
            address_count=len(addresses),
        )


def policies(enforcement: reconciler.Enforcement) -> Iterator[details.Policy]:
    """Yield the policies of the whole cluster, each with the endpoints of this node it selects."""
    state = enforcement.state
    selected: collections.Counter[object] = collections.Counter()
    for endpoint in state.endpoints.values():
        numbers = (endpoint.ingress_set, endpoint.egress_set, endpoint.ingress_audit, endpoint.egress_audit)
        sets = (state.sets.get(number) for number in numbers)
        selected.update({ref for one in sets if one is not None for ref in (*one.isolating, *one.others)})
    for ref, policy in sorted(enforcement.snapshot.policies.items()):
        yield details.Policy(
            ref=ref,
            directions=tuple(one.name.lower() for one in net.Direction if one in policy.directions),
            selected_endpoints=selected[ref],
            ingress_rules=len(policy.ingress),
            egress_rules=len(policy.egress),
            problems=tuple(problem for problem in enforcement.problems if problem.ref == ref),
            audit=tuple(means.value for means in enforcement.audited.policies.get(ref, ())),
        )


def enforced(status: views.Status, enforcement: reconciler.Enforcement) -> views.Status:
    """Return `status` with what is known once something is enforced."""
    state, source = enforcement.state, enforcement.inputs.source
    return dataclasses.replace(
        status,
        enforced_revision=enforcement.inputs.revision,
        generation=enforcement.generation,
        enforced_unix_ns=enforcement.unix_ns,
        enforced_source_digest=source.digest if source is not None else "",
        endpoints=len(state.endpoints),
        identities=len(state.identities),
        policies=len(enforcement.snapshot.policies),
        policy_sets=len(state.sets),
        rows=sum(len(policy_set.rows) for policy_set in state.sets.values()),
        held_endpoints=sum(endpoint.held for endpoint in state.endpoints.values()),
        problems=enforcement.problems,
        audited_endpoints=sum(bool(one.ingress_audit or one.egress_audit) for one in state.endpoints.values()),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Answers for one running agent."""

    node: str
    version: str
    report: base.EngineReport
    deny_mode: endpoint_.DenyMode
    hold_mode: endpoint_.HoldMode
    source: Callable[[], str]
    started_unix_ns: int
    loop: reconciler.Reconciler
    counters: Callable[[], Mapping[str, int]]
    audit: audits.Auditing
    not_ready: Callable[[], tuple[str, ...]] = tuple
    """Why /readyz would not answer 200, a line each."""

    @property
    def enforcement(self) -> reconciler.Enforcement | None:
        """What is enforced; None before the first policy is."""
        return self.loop.enforcement

    def status(self) -> views.Status:
        """Describe what runs."""
        inputs, now = self.loop.inputs, self.enforcement
        status = views.Status(
            node=self.node,
            version=self.version,
            mode=self.report.mode,
            mode_reasons=self.report.reasons,
            proved=self.report.proved,
            deny_mode=self.deny_mode.value,
            hold_mode=self.hold_mode.value,
            synced=inputs.synced,
            revision=inputs.revision,
            started_unix_ns=self.started_unix_ns,
            last_error=self.loop.error,
            counters=self.counters(),
            source=self.source(),
            source_changed_unix_ns=inputs.source.changed_unix_ns if inputs.source is not None else 0,
            sandboxes=len(inputs.sandboxes or ()),
            iptables=self.report.variant,
            last_repair=self.loop.repairs.last,
            last_repair_unix_ns=self.loop.repairs.unix_ns,
            repair_error=self.loop.repairs.error,
            not_ready=self.not_ready(),
            audited=tuple(f"{one.target} by {one.means.value}" for one in self.audit.ledger.entries()),
        )
        return enforced(status, now) if now is not None else status
