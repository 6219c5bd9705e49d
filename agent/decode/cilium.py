"""CiliumNetworkPolicy of cilium.io/v2: the part that needs no proxy, and in sight of everybody what does.

The rule (A50, and the table of rule E17): the object stays in force for isolation and denials. An item of an allow
rule that is malformed or not supported matches nothing; one of a deny rule denies all that the item could have meant,
up to every peer and every port. Empty values mean the opposite of NetworkPolicy's (rule E3), so the two kinds share
no reader of rules. Host policies select no pod and are named as a Problem only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from agent.decode import cilium_peers, cilium_ports, fields, policies
from agent.model import labels, net, resources

SECTIONS = {
    net.Direction.INGRESS: ("ingress", "ingressDeny"),
    net.Direction.EGRESS: ("egress", "egressDeny"),
}
_FIELDS = frozenset(
    {*SECTIONS[net.Direction.INGRESS], *SECTIONS[net.Direction.EGRESS]}
    | {"endpointSelector", "nodeSelector", "enableDefaultDeny", "description", "labels"}
)
_EVERY_POD = "the policy isolates every pod of its namespace in both directions"
_NO_RULE = "the policy isolates, and nothing it would allow is allowed until it is corrected"
_REFUSED = "is not supported"
_CONSEQUENCE = {
    resources.RuleAction.ALLOW: "this rule matches nothing",
    resources.RuleAction.DENY: "this rule denies all that it could mean",
}
NOTHING_DENIED = resources.PolicyRule(peers=(), ports=(), action=resources.RuleAction.DENY)


@dataclasses.dataclass(frozen=True, slots=True)
class _Words:
    """What the fields of one direction's rules are called."""

    peers: Mapping[str, Callable[[fields.Field, fields.Report], resources.Peer | None]]
    """Lists of peers, and what reads an item of them; None: it means nobody."""
    refused: frozenset[str]
    """Ways to name peers that are not supported."""
    names: str = ""
    """The list of domain names."""


_WORDS = {
    net.Direction.INGRESS: _Words(
        peers={
            "fromEndpoints": cilium_peers.endpoints,
            "fromEntities": cilium_peers.entity,
            "fromCIDR": cilium_peers.cidr,
            "fromCIDRSet": cilium_peers.cidr_set,
        },
        refused=frozenset({"fromGroups", "fromNodes", "fromRequires"}),
    ),
    net.Direction.EGRESS: _Words(
        peers={
            "toEndpoints": cilium_peers.endpoints,
            "toEntities": cilium_peers.entity,
            "toCIDR": cilium_peers.cidr,
            "toCIDRSet": cilium_peers.cidr_set,
        },
        refused=frozenset({"toGroups", "toNodes", "toServices", "toRequires"}),
        names="toFQDNs",
    ),
}


def policy(
    document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report, *, known_version: bool
) -> resources.NetworkPolicy | None:
    """Decode a CiliumNetworkPolicy; None if it selects nodes and thus no pod. Of an unknown version it isolates."""
    everything = resources.NetworkPolicy(
        namespace=meta.namespace, name=meta.name, uid=uid, kind=meta.kind, directions=policies.BOTH
    )
    if not known_version:
        report.add("apiVersion", f"is not cilium.io/v2; {_NO_RULE}")
    exact = known_version & _has_only(document, report, "apiVersion", "kind", "metadata", "spec", "specs", "status")
    try:
        specs = _specs(document)
    except fields.Malformed as malformed:
        report.give_up(malformed, _EVERY_POD)
        return everything
    specs = [spec for spec in specs if not _selects_nodes(spec, report)]
    if not specs:
        return None
    known = [_has_only(spec, report, *sorted(_FIELDS)) for spec in specs]
    subject = _subject(specs, meta.namespace, report)
    exact = exact and all(known) and subject.exact
    return dataclasses.replace(
        everything,
        subject=subject.selector,
        directions=frozenset(each for spec in specs for each in _isolated(spec, report)),
        ingress=_section(specs, net.Direction.INGRESS, report, exact=exact),
        egress=_section(specs, net.Direction.EGRESS, report, exact=exact),
    )


def _has_only(field: fields.Field, report: fields.Report, *names: str) -> bool:
    """Tell whether a mapping has no unknown field, and note the first if it has."""
    try:
        field.only(*names)
    except fields.Malformed as malformed:
        report.give_up(malformed, _NO_RULE)
        return False
    return True


def _specs(document: fields.Field) -> list[fields.Field]:
    """Return `spec` and the items of `specs`, all mappings; there must be one (rule E1)."""
    spec = document.member("spec")
    specs = [*([spec] if spec.given else []), *document.member("specs").items()]
    if not specs:
        raise fields.Malformed("spec", "is missing")
    for one in specs:
        if not one.mapping():
            raise one.malformed("a mapping that selects pods")
    return specs


def _selects_nodes(spec: fields.Field, report: fields.Report) -> bool:
    """Tell whether a spec is about nodes instead of pods (rule E19)."""
    at = spec.member("nodeSelector")
    if not at.given or spec.member("endpointSelector").given:
        return False
    report.add(at.path, "selects nodes; host policies are not supported and no pod is concerned")
    return True


def _subject(specs: Iterable[fields.Field], namespace: str, report: fields.Report) -> policies.Subject:
    """Read whom the specs select; one object selects once here."""
    found = [_spec_subject(spec, namespace, report) for spec in specs]
    if len({one.selector for one in found}) > 1:
        report.add("specs", f"select different pods; write one policy each: until then {_EVERY_POD}")
        return policies.Subject(labels.EVERYTHING, exact=False)
    return policies.Subject(found[0].selector, exact=all(one.exact for one in found))


def _spec_subject(spec: fields.Field, namespace: str, report: fields.Report) -> policies.Subject:
    """Read an endpointSelector: pods of the policy's own namespace (rules E7, E8)."""
    field, both = spec.member("endpointSelector"), spec.member("nodeSelector").given
    if both:
        report.add(spec.member("nodeSelector").path, f"stands beside endpointSelector (E1); {_NO_RULE}")
    if not field.given:
        report.add(field.path, f"is missing; the policy isolates every pod of its namespace, {_NO_RULE}")
    read = policies.subject(field, report)
    kept: list[labels.Requirement] = []
    exact = read.exact and field.given and not both
    for requirement in read.selector.requirements:
        key = cilium_peers.pod_key(requirement.key)
        if key is not None:
            kept.append(dataclasses.replace(requirement, key=key))
        elif not cilium_peers.names_namespace(requirement, namespace):
            exact = False
            report.add(field.path, f"the label {requirement.key!r} is left out, so that more pods are isolated")
    return policies.Subject(labels.LabelSelector(tuple(kept)), exact=exact)


def _isolated(spec: fields.Field, report: fields.Report) -> frozenset[net.Direction]:
    """Return what a spec isolates: a section with a rule does (rules E2, E3); an unknown field may be one misspelt."""
    off = _without_default(spec, report)
    if not spec.mapping().keys() <= _FIELDS:
        return policies.BOTH
    return frozenset(
        direction
        for direction, sections in SECTIONS.items()
        if direction not in off and any(_has_item(spec.member(name)) for name in sections)
    )


def _has_item(field: fields.Field) -> bool:
    """Tell whether a section has a rule; one that is no list counts as having one."""
    return field.given and field.value not in ([], ())


def _section(
    specs: Iterable[fields.Field], direction: net.Direction, report: fields.Report, *, exact: bool
) -> tuple[resources.PolicyRule, ...]:
    """Read the rules of a direction: of all specs what allows, then of all specs what denies."""
    found: list[resources.PolicyRule] = []
    specs = list(specs)
    for name, action in zip(SECTIONS[direction], (resources.RuleAction.ALLOW, resources.RuleAction.DENY), strict=True):
        for spec in specs:
            found += _rules(spec.member(name), _WORDS[direction], action, report)
    if exact:
        return tuple(found)
    return tuple(rule if rule.action is resources.RuleAction.DENY else policies.NO_MATCH for rule in found)


def _without_default(spec: fields.Field, report: fields.Report) -> frozenset[net.Direction]:
    """Return the directions of which enableDefaultDeny says that this spec does not isolate them (rule E2)."""
    field = spec.member("enableDefaultDeny")
    try:
        field.only("ingress", "egress")
        return frozenset(each for each in net.Direction if not field.member(each.name.lower()).truth(default=True))
    except fields.Malformed as malformed:
        report.give_up(malformed, "the policy isolates as if it were not given")
    return frozenset()


def _rules(
    field: fields.Field, words: _Words, action: resources.RuleAction, report: fields.Report
) -> list[resources.PolicyRule]:
    deny = action is resources.RuleAction.DENY
    try:
        return [(_deny if deny else _allow)(item, words, report) for item in field.items()]
    except fields.Malformed as malformed:
        report.give_up(malformed, "all is denied" if deny else "nothing is allowed")
    return [resources.PolicyRule(action=action)] if deny else []


def _allow(rule: fields.Field, words: _Words, report: fields.Report) -> resources.PolicyRule:
    """Read a rule of `ingress` or `egress`; one that says neither who nor where allows nothing (rules E3, E4)."""
    try:
        kinds = _kinds(rule, words)
        peers = _peers(rule, words, kinds, report)
        ports = cilium_ports.allowed(rule.member("toPorts"), report, unfiltered=_unfiltered(words, kinds))
    except fields.Malformed as malformed:
        report.give_up(malformed, _CONSEQUENCE[resources.RuleAction.ALLOW])
        return policies.NO_MATCH
    if not kinds and ports is None:
        return policies.NO_MATCH
    return resources.PolicyRule(peers=peers, ports=ports)


def _unfiltered(words: _Words, kinds: list[str]) -> str:
    """Return why a rule cannot restrict the names that may be asked for; empty: it can (rule E17)."""
    if not words.names:
        return cilium_ports.UNFILTERED_INGRESS
    return cilium_ports.UNFILTERED_NAMES if words.names in kinds else ""


def _deny(rule: fields.Field, words: _Words, report: fields.Report) -> resources.PolicyRule:
    """Read a rule of `ingressDeny` or `egressDeny`; what cannot be read of it denies more, never less."""
    deny = resources.RuleAction.DENY
    ports = cilium_ports.denied(rule, report)
    try:
        kinds = _kinds(rule, words, names=False)
        if not kinds and not rule.member("toPorts").given:
            return NOTHING_DENIED
        faults = fields.Report(report.ref)
        peers = _peers(rule, words, kinds, faults)
        warned = [each for each in faults.problems if cilium_peers.EMPTY in each.reason]
        for each in faults.problems:
            report.add(each.path, each.reason.replace(cilium_peers.NOBODY, _CONSEQUENCE[deny]))
        whole = len(warned) == len(faults.problems)
        return resources.PolicyRule(peers=peers if whole else None, ports=ports, action=deny)
    except fields.Malformed as malformed:
        report.give_up(malformed, _CONSEQUENCE[deny])
    return resources.PolicyRule(ports=ports, action=deny)


def _kinds(rule: fields.Field, words: _Words, *, names: bool = True) -> list[str]:
    """Return which lists of peers a rule has: one at most (rule E5). Raises Malformed where more is asked for."""
    by_name = [words.names] if words.names else []
    listed = [*words.peers, *(by_name if names else [])]
    rule.only(*words.peers, *by_name, *sorted(words.refused), "toPorts", "icmps", "authentication")
    for name in (*sorted(words.refused), "icmps", *([] if names else by_name)):
        if rule.member(name).given:
            raise fields.Malformed(rule.member(name).path, _REFUSED)
    cilium_ports.authentication(rule.member("authentication"))
    kinds = [name for name in listed if rule.member(name).given]
    if len(kinds) > 1:
        raise fields.Malformed(rule.member(kinds[1]).path, f"stands beside {kinds[0]}, and a rule has one of them (E5)")
    return kinds


def _peers(
    rule: fields.Field, words: _Words, kinds: list[str], report: fields.Report
) -> tuple[resources.Peer, ...] | None:
    """Read the peers: not given, any; an empty list, none (rule E4)."""
    if not kinds:
        return None
    (kind,) = kinds
    if kind == words.names:
        return cilium_peers.names(rule.member(kind), report)
    found = [_peer(words.peers[kind], item, report) for item in rule.member(kind).items()]
    return tuple(peer for peer in found if peer is not None)


def _peer(
    read: Callable[[fields.Field, fields.Report], resources.Peer | None], item: fields.Field, report: fields.Report
) -> resources.Peer | None:
    try:
        return read(item, report)
    except fields.Malformed as malformed:
        report.give_up(malformed, cilium_peers.NOBODY)
        return None
