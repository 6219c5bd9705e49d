"""NetworkPolicy of networking.k8s.io/v1, decoded so that nothing malformed or unknown ever widens access.

One principle (rule A50): what isolates is kept, what allows is dropped with the smallest unit that is
wrong. A malformed peer or port contributes nothing and the list it stood in still counts as given; a rule
with an unknown or malformed field of its own matches nothing but keeps its place, since verdicts name
rules by their index in the manifest; a requirement of the subject that cannot be read is dropped, so that
more pods are isolated, and then no rule of the policy counts, since it was meant for fewer.
"""

from __future__ import annotations

import contextlib
import dataclasses

from agent.decode import fields, values
from agent.model import labels, net, resources

NO_MATCH = resources.PolicyRule(peers=(), ports=())
"""Stands in for a rule that cannot be honoured."""
BOTH = frozenset(net.Direction)
_DIRECTIONS = {"Ingress": net.Direction.INGRESS, "Egress": net.Direction.EGRESS}
_NO_RULE = "no rule of this policy allows anything until it is corrected"


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """Whom a policy selects; `exact` is False where it selects more than the manifest asks for."""

    selector: labels.LabelSelector
    exact: bool


def network_policy(
    document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report, *, known_version: bool
) -> resources.NetworkPolicy:
    """Decode a NetworkPolicy; of a version that is not known, only the isolation."""
    policy = resources.NetworkPolicy(namespace=meta.namespace, name=meta.name, uid=uid, directions=BOTH)
    if not known_version:
        report.add("apiVersion", f"is not networking.k8s.io/v1; the policy isolates, {_NO_RULE}")
    exact = known_version & _has_only(document, report, "apiVersion", "kind", "metadata", "spec", "status")
    try:
        spec = document.member("spec")
        spec.mapping()
    except fields.Malformed as malformed:
        report.give_up(malformed, "the policy isolates every pod of its namespace in both directions")
        return policy
    if not exact and not spec.given:
        return policy
    subject_ = subject(spec.member("podSelector"), report)
    exact = _has_only(spec, report, "podSelector", "policyTypes", "ingress", "egress") & exact & subject_.exact
    ingress = _rules(spec.member("ingress"), "from", report)
    egress = _rules(spec.member("egress"), "to", report)
    isolated, counted = _directions(spec, report, exact=exact)
    return dataclasses.replace(
        policy,
        subject=subject_.selector,
        directions=isolated,
        ingress=_counting(ingress, exact=exact and net.Direction.INGRESS in counted),
        egress=_counting(egress, exact=exact and net.Direction.EGRESS in counted),
    )


def subject(field: fields.Field, report: fields.Report) -> Subject:
    """Read the subject's selector, leaving out what cannot be read: that isolates more pods, never fewer."""
    try:
        return Subject(values.selector(field), exact=True)
    except fields.Malformed as malformed:
        report.give_up(malformed, f"it is left out, so that more pods are isolated, and {_NO_RULE}")
    return Subject(labels.LabelSelector(_readable_requirements(field)), exact=False)


def _readable_requirements(field: fields.Field) -> tuple[labels.Requirement, ...]:
    """Return the requirements of a selector that can be read, each on its own."""
    found: list[labels.Requirement] = []
    with contextlib.suppress(fields.Malformed):
        for key, value in sorted(field.member("matchLabels").mapping().items(), key=lambda pair: str(pair[0])):
            if isinstance(key, str) and (value is None or isinstance(value, str)):
                found.append(values.equals(key, value or ""))
    with contextlib.suppress(fields.Malformed):
        for item in field.member("matchExpressions").items():
            with contextlib.suppress(fields.Malformed):
                found.append(values.requirement(item))
    return tuple(found)


def _has_only(field: fields.Field, report: fields.Report, *names: str) -> bool:
    """Tell whether a mapping has no unknown field, and note the first if it has."""
    try:
        field.only(*names)
    except fields.Malformed as malformed:
        report.give_up(malformed, f"the policy isolates, {_NO_RULE}")
        return False
    return True


def _directions(
    spec: fields.Field, report: fields.Report, *, exact: bool
) -> tuple[frozenset[net.Direction], frozenset[net.Direction]]:
    """Return the directions that are isolated and those whose rules count (rules A6, A7).

    Without policyTypes, `egress` isolates if it has an item, or cannot be read, or if an unknown field of
    the policy may be a misspelt one.
    """
    field = spec.member("policyTypes")
    try:
        items = field.items()
        if len(items) > len(_DIRECTIONS):
            raise field.malformed("a list of at most two directions")
        if items:
            named = frozenset(_direction(item) for item in items)
            return named, named
    except fields.Malformed as malformed:
        report.give_up(malformed, "the policy isolates in both directions, and only rules of a direction named count")
        return BOTH, _named(field)
    given = spec.member("egress").value
    if exact and (given is None or given in ([], ())):
        return frozenset({net.Direction.INGRESS}), frozenset({net.Direction.INGRESS})
    return BOTH, BOTH


def _direction(field: fields.Field) -> net.Direction:
    """Read one item of policyTypes."""
    found = _DIRECTIONS.get(field.value) if isinstance(field.value, str) else None
    if found is None:
        raise field.malformed("Ingress or Egress")
    return found


def _named(field: fields.Field) -> frozenset[net.Direction]:
    """Return the directions that a malformed policyTypes names all the same."""
    items = field.value if isinstance(field.value, list | tuple) else ()
    return frozenset(_DIRECTIONS[item] for item in items if isinstance(item, str) and item in _DIRECTIONS)


def _counting(rules: tuple[resources.PolicyRule, ...], *, exact: bool) -> tuple[resources.PolicyRule, ...]:
    """Return the rules, or as many that match nothing."""
    return rules if exact else (NO_MATCH,) * len(rules)


def _rules(field: fields.Field, peers_name: str, report: fields.Report) -> tuple[resources.PolicyRule, ...]:
    """Read `ingress` or `egress`; missing, null and empty are no rule (rule A3)."""
    try:
        items = field.items()
    except fields.Malformed as malformed:
        report.give_up(malformed, "the direction has no rule")
        return ()
    return tuple(_rule(item, peers_name, report) for item in items)


def _rule(field: fields.Field, peers_name: str, report: fields.Report) -> resources.PolicyRule:
    """Read one rule: `{}` allows everything (rule A4), a missing or empty list matches any (rule A5)."""
    try:
        if not field.given:
            raise field.malformed("a rule; `{}` is one that allows everything")
        field.only(peers_name, "ports")
        peers = field.member(peers_name).items()
        ports = field.member("ports").items()
    except fields.Malformed as malformed:
        report.give_up(malformed, "this rule matches nothing")
        return NO_MATCH
    return resources.PolicyRule(
        peers=_peers(peers, report) if peers else None, ports=_ports(ports, report) if ports else None
    )


def _peers(items: tuple[fields.Field, ...], report: fields.Report) -> tuple[resources.Peer, ...]:
    """Read the peers that can be read; they are ORed (rule A20)."""
    peers: list[resources.Peer] = []
    for item in items:
        try:
            peers.append(_peer(item))
        except fields.Malformed as malformed:
            report.give_up(malformed, "this peer matches nothing")
    return tuple(peers)


def _peer(field: fields.Field) -> resources.Peer:
    """Read one peer: selectors, or an ipBlock and nothing else (rules A2, A10)."""
    field.only("podSelector", "namespaceSelector", "ipBlock")
    pods, namespaces = field.member("podSelector"), field.member("namespaceSelector")
    block = field.member("ipBlock")
    if block.given:
        if pods.given or namespaces.given:
            raise fields.Malformed(block.path, "excludes podSelector and namespaceSelector; write two peers")
        return _ip_block(block)
    if not pods.given and not namespaces.given:
        raise fields.Malformed(field.path, "names no peer; use podSelector, namespaceSelector or ipBlock")
    return resources.PodPeer(
        pods=values.selector(pods) if pods.given else None,
        namespaces=values.selector(namespaces) if namespaces.given else None,
    )


def _ip_block(field: fields.Field) -> resources.IPBlock:
    """Read an ipBlock; each except is a strict subset of cidr (rule A10), or the whole block is given up."""
    field.only("cidr", "except")
    cidr = values.network(field.member("cidr"))
    return resources.IPBlock(cidr=cidr, excepts=tuple(hole(item, cidr) for item in field.member("except").items()))


def hole(field: fields.Field, cidr: net.Network) -> net.Network:
    """Read one except and compare it with its cidr; prefixes of different families contain nothing (rule A24)."""
    network = values.network(field)
    if network.version != cidr.version or network.prefixlen <= cidr.prefixlen or not _contains(cidr, network):
        raise field.malformed(f"a part of {cidr}, and smaller than it")
    return network


def _contains(outer: net.Network, inner: net.Network) -> bool:
    return inner.network_address in outer


def _ports(items: tuple[fields.Field, ...], report: fields.Report) -> tuple[resources.PortMatch, ...]:
    """Read the ports that can be read; they are ORed (rule A17)."""
    ports: list[resources.PortMatch] = []
    for item in items:
        try:
            ports.append(_port(item))
        except fields.Malformed as malformed:
            report.give_up(malformed, "this port matches nothing")
    return tuple(ports)


def _port(field: fields.Field) -> resources.PortMatch:
    """Read one port: a number, a range, a name, or every port of a protocol (rules A8, A9)."""
    if not field.given:
        raise field.malformed("a port; `{}` is every TCP port")
    field.only("protocol", "port", "endPort")
    protocol = values.protocol(field.member("protocol"))
    first, last = field.member("port"), field.member("endPort")
    if not first.given:
        if last.given:
            raise fields.Malformed(last.path, "needs port, the first port of the range")
        return resources.PortMatch(protocol=protocol)
    port = values.port(first)
    if isinstance(port, int):
        end = last.integer(port, net.PORT_MAX) if last.given else port
        return resources.PortMatch(protocol=protocol, port=net.PortRange(port, end))
    if last.given:
        raise fields.Malformed(last.path, "needs a number as port, not a name")
    return resources.PortMatch(protocol=protocol, port=port)
