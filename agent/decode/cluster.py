"""ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2: subjects, peers, ports and domain names (rules D1 to D14).

The rule (D9, A50): this kind isolates nobody, so what cannot be honoured has to be made up for where it stands. A rule
that accepts then matches nothing; one that denies or passes, and of which some peer or port is not understood, denies
everything: who is passed on would else fall to a later Accept. A peer of an Accept that is not understood takes only
itself away. Where the subject, tier or priority cannot be read, more pods are meant, in the Admin tier and first, and
only denials count. `nodes` are not supported yet.
"""

from __future__ import annotations

import dataclasses

from agent.decode import fields, policies, values
from agent.fqdn import patterns
from agent.model import fqdn, labels, net, resources

GROUP, VERSION, KIND = "policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy"
PRIORITY_MAX = 1000
ITEMS_MAX = 25
"""Rules of a direction, peers of a rule, networks and names of a peer, protocols of a rule (rule D8)."""
_ACTIONS = {
    "Accept": resources.RuleAction.ALLOW,
    "Deny": resources.RuleAction.DENY,
    "Pass": resources.RuleAction.PASS,
}
_TRANSPORTS = {"tcp": net.Protocol.TCP, "udp": net.Protocol.UDP, "sctp": net.Protocol.SCTP}
_NAMED_PORT = "destinationNamedPort"
DENY_ALL = resources.PolicyRule(action=resources.RuleAction.DENY)
_DENIALS_ONLY = "until it is corrected its rules that accept match nothing, and those that pass deny"
_NO_MATCH = "this rule matches nothing"
_DENIES_ALL = "this rule denies everything"


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Where a rule stands."""

    direction: net.Direction
    tier: resources.Tier

    @property
    def peers(self) -> str:
        return "from" if self.direction is net.Direction.INGRESS else "to"

    @property
    def egress(self) -> bool:
        return self.direction is net.Direction.EGRESS


def policy(
    document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report
) -> resources.NetworkPolicy:
    """Decode a ClusterNetworkPolicy; raises Malformed where it has no spec at all."""
    exact = _has_only(document, report, "apiVersion", "kind", "metadata", "spec", "status")
    spec = document.member("spec")
    if not spec.mapping():
        raise spec.malformed("a mapping with tier, priority and subject")
    exact = _has_only(spec, report, "tier", "priority", "subject", "ingress", "egress") and exact
    tier, priority = _tier(spec.member("tier"), report), _priority(spec.member("priority"), report)
    namespaces, pods, readable = _subject(spec.member("subject"), report)
    exact = exact and readable and tier is not None and priority is not None
    found = resources.NetworkPolicy(
        namespace="",
        name=meta.name,
        uid=uid,
        kind=meta.kind,
        subject=pods,
        subject_namespaces=namespaces,
        tier=tier if exact and tier is not None else resources.Tier.ADMIN,
        priority=priority if exact and priority is not None else 0,
    )
    return dataclasses.replace(
        found,
        ingress=_rules(spec, _Place(net.Direction.INGRESS, found.tier), report, exact=exact),
        egress=_rules(spec, _Place(net.Direction.EGRESS, found.tier), report, exact=exact),
    )


def _has_only(field: fields.Field, report: fields.Report, *names: str) -> bool:
    try:
        field.only(*names)
    except fields.Malformed as malformed:
        report.give_up(malformed, _DENIALS_ONLY)
        return False
    return True


def _tier(field: fields.Field, report: fields.Report) -> resources.Tier | None:
    known = {tier.value: tier for tier in (resources.Tier.ADMIN, resources.Tier.BASELINE)}
    if isinstance(field.value, str) and field.value in known:
        return known[field.value]
    report.give_up(field.malformed("Admin or Baseline"), _DENIALS_ONLY)
    return None


def _priority(field: fields.Field, report: fields.Report) -> int | None:
    try:
        return field.integer(0, PRIORITY_MAX)
    except fields.Malformed as malformed:
        report.give_up(malformed, _DENIALS_ONLY)
    return None


def _subject(field: fields.Field, report: fields.Report) -> tuple[labels.LabelSelector, labels.LabelSelector, bool]:
    """Read whom the policy selects: namespaces, or pods of some (rule D7); every pod where that cannot be read."""
    try:
        field.only("namespaces", "pods")
        namespaces, pods = field.member("namespaces"), field.member("pods")
        if namespaces.given == pods.given:
            raise fields.Malformed(field.path, "needs one of namespaces and pods")  # noqa: TRY301 - handled as others
        if namespaces.given:
            return values.selector(namespaces), labels.EVERYTHING, True
        return (*_pods(pods), True)
    except fields.Malformed as malformed:
        report.give_up(malformed, f"every pod is selected, and {_DENIALS_ONLY}")
    return labels.EVERYTHING, labels.EVERYTHING, False


def _pods(field: fields.Field) -> tuple[labels.LabelSelector, labels.LabelSelector]:
    """Read selectors of namespaces and of pods in them; both must be given, and may be empty."""
    field.only("namespaceSelector", "podSelector")
    for name in ("namespaceSelector", "podSelector"):
        if not field.member(name).given:
            raise fields.Malformed(field.member(name).path, "is missing; `{}` selects all")
    return values.selector(field.member("namespaceSelector")), values.selector(field.member("podSelector"))


def _rules(
    spec: fields.Field, place: _Place, report: fields.Report, *, exact: bool
) -> tuple[resources.PolicyRule, ...]:
    """Read the rules of a direction; none have no effect there (rule D4)."""
    field = spec.member(place.direction.name.lower())
    try:
        items = field.items()
        if len(items) > ITEMS_MAX:
            raise fields.Malformed(field.path, f"has {len(items)} rules; write {ITEMS_MAX} at most")  # noqa: TRY301 - as above
    except fields.Malformed as malformed:
        report.give_up(malformed, "the direction is denied")
        return (DENY_ALL,)
    found = [_rule(item, place, report) for item in items]
    return tuple(found) if exact else tuple(map(_denying, found))


def _denying(rule: resources.PolicyRule) -> resources.PolicyRule:
    """Return what is left of a rule of a policy that may be meant for fewer pods, or for later."""
    if rule.action is resources.RuleAction.ALLOW:
        return policies.NO_MATCH
    return DENY_ALL if rule.action is resources.RuleAction.PASS else rule


def _rule(field: fields.Field, place: _Place, report: fields.Report) -> resources.PolicyRule:
    accepts = False
    try:
        action = _action(field.member("action"))
        accepts = action is resources.RuleAction.ALLOW
        field.only("name", "action", place.peers, "protocols")
        ports, named = _ports(field.member("protocols"), report, accepts=accepts)
        peers = _peers(field.member(place.peers), place, action, report, named=named)
    except fields.Malformed as malformed:
        report.give_up(malformed, _NO_MATCH if accepts else _DENIES_ALL)
        return policies.NO_MATCH if accepts else DENY_ALL
    return resources.PolicyRule(peers=peers, ports=ports, action=action)


def _action(field: fields.Field) -> resources.RuleAction:
    found = _ACTIONS.get(field.value) if isinstance(field.value, str) else None
    if found is None:
        raise field.malformed("Accept, Deny or Pass")
    return found


def _peers(
    field: fields.Field, place: _Place, action: resources.RuleAction, report: fields.Report, *, named: bool
) -> tuple[resources.Peer, ...]:
    """Read the peers, which are ORed; raises Malformed for one that is not understood, but of an Accept (rule D9)."""
    items = field.items()
    if not 0 < len(items) <= ITEMS_MAX:
        raise fields.Malformed(field.path, f"has {len(items)} peers; write 1 to {ITEMS_MAX}")
    found: list[resources.Peer] = []
    for item in items:
        try:
            found += _peer(item, place, action, named=named)
        except fields.Malformed as malformed:
            if action is not resources.RuleAction.ALLOW:
                raise
            report.give_up(malformed, "this peer matches nobody")
    return tuple(found)


def _peer(field: fields.Field, place: _Place, action: resources.RuleAction, *, named: bool) -> list[resources.Peer]:
    """Read a peer, which has just one field (rule D8)."""
    outside = ("networks", "nodes", "domainNames") if place.egress else ()
    field.only("namespaces", "pods", *outside)
    given = [name for name, at in field.pairs() if at.given]
    if len(given) != 1:
        raise fields.Malformed(field.path, f"needs one of namespaces, pods{''.join(f', {name}' for name in outside)}")
    (kind,) = given
    at = field.member(kind)
    if named and kind in outside:
        raise fields.Malformed(at.path, f"cannot stand beside {_NAMED_PORT}, which only pods have (D13)")
    match kind:
        case "namespaces":
            return [resources.PodPeer(namespaces=values.selector(at))]
        case "pods":
            namespaces, pods = _pods(at)
            return [resources.PodPeer(pods=pods, namespaces=namespaces)]
        case "networks":
            return [resources.IPBlock(cidr=values.network(item)) for item in _some(at)]
        case "domainNames":
            return [_names(at, place, action)]
        case _:
            raise fields.Malformed(at.path, "is not supported yet")


def _names(field: fields.Field, place: _Place, action: resources.RuleAction) -> resources.NamesPeer:
    """Read domainNames, which may only accept, and only in the Admin tier (rule D14)."""
    if action is not resources.RuleAction.ALLOW or place.tier is not resources.Tier.ADMIN:
        raise fields.Malformed(field.path, "may only stand in rules that accept, in the Admin tier (D14)")
    found: list[fqdn.NamePattern] = [values.name(item, patterns.parse_cluster) for item in _some(field)]
    return resources.NamesPeer(patterns=tuple(dict.fromkeys(found)))


def _some(field: fields.Field) -> tuple[fields.Field, ...]:
    items = field.items()
    if not 0 < len(items) <= ITEMS_MAX:
        raise fields.Malformed(field.path, f"has {len(items)} items; write 1 to {ITEMS_MAX}")
    return items


def _ports(
    field: fields.Field, report: fields.Report, *, accepts: bool
) -> tuple[tuple[resources.PortMatch, ...] | None, bool]:
    """Read protocols, and whether a port is named; not given, every protocol (rule D12)."""
    if not field.given:
        return None, False
    found: list[resources.PortMatch] = []
    named = False
    for item in _some(field):
        try:
            read, is_name = _port(item)
        except fields.Malformed as malformed:
            if not accepts:
                raise
            report.give_up(malformed, "this entry matches nothing")
            continue
        found += read
        named |= is_name
    return tuple(found), named


def _port(field: fields.Field) -> tuple[list[resources.PortMatch], bool]:
    """Read one of protocols: ports of one transport, or a name with whatever protocol the container gives it."""
    field.only(*_TRANSPORTS, _NAMED_PORT)
    given = [name for name, at in field.pairs() if at.given]
    if len(given) != 1:
        raise fields.Malformed(field.path, f"needs one of {', '.join(_TRANSPORTS)}, {_NAMED_PORT}")
    at = field.member(given[0])
    if given[0] == _NAMED_PORT:
        name = values.port_name(at)
        return [resources.PortMatch(protocol=protocol, port=name) for protocol in _TRANSPORTS.values()], True
    at.only("destinationPort")
    return [resources.PortMatch(protocol=_TRANSPORTS[given[0]], port=_numbers(at.member("destinationPort")))], False


def _numbers(field: fields.Field) -> net.PortRange:
    field.only("number", "range")
    number, span = field.member("number"), field.member("range")
    if number.given == span.given:
        raise fields.Malformed(field.path, "needs one of number and range; every port is range 1 to 65535 (D12)")
    if number.given:
        only = values.port_number(number)
        return net.PortRange(only, only)
    span.only("start", "end")
    start = values.port_number(span.member("start"))
    return net.PortRange(start, span.member("end").integer(min(start + 1, net.PORT_MAX), net.PORT_MAX))
