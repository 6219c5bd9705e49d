"""Says in words what a policy means: whom it selects, and what each rule lets through.

It decides nothing and looks at no cluster: two policies that say the same read the same. Texts hold names from
manifests; whoever prints them escapes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from agent.model import labels as labels_
from agent.model import net, resources

EVERYBODY = "anybody"
_ALLOW = resources.RuleAction.ALLOW
NOBODY = "nobody, as none of its peers can be honoured (A50)"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RuleText:
    """One rule of a policy."""

    direction: net.Direction
    index: int
    """Counts within the direction, as in the manifest."""
    text: str


def subject(policy: resources.NetworkPolicy) -> str:
    """Say whom a policy selects."""
    if policy.subject_namespaces is None:
        return _pods(policy.subject, f"in {policy.namespace}")
    return _pods(policy.subject, _spaces(policy.subject_namespaces))


def rules(policy: resources.NetworkPolicy) -> Iterator[RuleText]:
    """Say what each rule lets through; those of a direction that the policy does not speak of count for nothing."""
    for direction in net.Direction:
        for index, rule in enumerate(policy.rules(direction)):
            text = rule_text(rule, direction, policy.namespace)
            if not policy.counting(direction):
                text = f"{text} (without effect: policyTypes lacks {direction.name.capitalize()}, A7)"
            yield RuleText(direction=direction, index=index, text=text)


def isolation(policy: resources.NetworkPolicy) -> str:
    """Say what a policy closes."""
    named = [one.name.lower() for one in net.Direction if one in policy.directions]
    allowing = {one for one in net.Direction if any(rule.action is _ALLOW for rule in policy.rules(one))}
    closed = [one.name.lower() for one in net.Direction if one in policy.directions and one not in allowing]
    if not named:
        return "isolates in no direction"
    text = f"isolates {' and '.join(named)}"
    return f"{text}; allows no {' and no '.join(closed)}" if closed else text


def whole_subject(policy: resources.NetworkPolicy) -> str:
    """Say whom a policy selects, and what it closes."""
    return f"{subject(policy)}; {isolation(policy)}"


def rule_text(rule: resources.PolicyRule, direction: net.Direction, namespace: str) -> str:
    """Say what a rule of a policy in `namespace` lets through: `from PEERS on PORTS`; of other rules, what they do."""
    towards = "from" if direction is net.Direction.INGRESS else "to"
    does = "" if rule.action is _ALLOW else f"{rule.action.value.lower()} "
    return f"{does}{towards} {_peers(rule.peers, namespace)} on {_ports(rule.ports)}"


def peer_text(peer: resources.Peer, namespace: str) -> str:
    """Say whom a peer of a policy in `namespace` means."""
    if isinstance(peer, resources.IPBlock):
        excepts = f" except {', '.join(str(hole) for hole in peer.excepts)}" if peer.excepts else ""
        return f"{peer.cidr}{excepts}{' outside the cluster' if peer.outside else ''}"
    if isinstance(peer, resources.EntityPeer):
        return f"entity {peer.entity.value}"
    if isinstance(peer, resources.NamesPeer):
        return f"what DNS gives for {' or '.join(map(str, peer.patterns))}"
    where = f"in {namespace}" if peer.namespaces is None else _spaces(peer.namespaces)
    return _pods(peer.pods or labels_.EVERYTHING, where)


def selector_text(selector: labels_.LabelSelector) -> str:
    """Say what labels a selector wants."""
    return " and ".join(_requirement(one) for one in selector.requirements) or "any labels"


def _spaces(namespaces: labels_.LabelSelector) -> str:
    return f"in namespaces with {selector_text(namespaces)}" if namespaces.requirements else "in any namespace"


def _pods(selector: labels_.LabelSelector, where: str) -> str:
    return f"pods with {selector_text(selector)} {where}" if selector.requirements else f"every pod {where}"


def _peers(peers: tuple[resources.Peer, ...] | None, namespace: str) -> str:
    if peers is None:
        return EVERYBODY
    return ", or ".join(peer_text(peer, namespace) for peer in peers) or NOBODY


def _ports(ports: tuple[resources.PortMatch, ...] | None) -> str:
    if ports is None:
        return "every port"
    return ", ".join(_port(port) for port in ports) or "no port, as none of them can be honoured (A50)"


def _port(entry: resources.PortMatch) -> str:
    if entry.asks is None:
        return _numbers(entry)
    return f"{_numbers(entry)} for DNS queries for {' or '.join(map(str, entry.asks))} alone"


def _numbers(entry: resources.PortMatch) -> str:
    match entry.port:
        case None:
            return f"every {entry.protocol.name} port"
        case str():
            return f"{entry.protocol.name} {entry.port}"
        case span:
            numbers = f"{span.first}" if span.first == span.last else f"{span.first}-{span.last}"
            return f"{entry.protocol.name} {numbers}"


def _requirement(requirement: labels_.Requirement) -> str:
    key, values = requirement.key, sorted(requirement.values)
    match requirement.operator:
        case labels_.Operator.IN if len(values) == 1:
            return f"{key}={values[0]}"
        case labels_.Operator.IN:
            return f"{key} in ({', '.join(values)})"
        case labels_.Operator.NOT_IN:
            return f"{key} not in ({', '.join(values)})"
        case labels_.Operator.EXISTS:
            return f"a label {key}"
        case labels_.Operator.DOES_NOT_EXIST:
            return f"no label {key}"
