"""Policy kinds that are not understood yet: refused in sight of everybody, and never widened.

A namespaced kind is reduced to the isolation it asks for: it selects its pods, isolates the directions
it writes rules for, and allows nothing. Whatever cannot be read of its subject isolates more pods.
Cilium isolates a direction by a section with at least one rule (rules E2, E3: the opposite reading of
NetworkPolicy's), Calico by `types` (rules F3, F4). A cluster-wide kind has no namespace to isolate; it is
named as a Problem and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from agent.decode import fields, policies, values
from agent.model import labels, net, resources

CILIUM_GROUP = "cilium.io"
CALICO_GROUPS = frozenset({"projectcalico.org", "crd.projectcalico.org"})
CLUSTER_WIDE = frozenset(
    {
        (CILIUM_GROUP, "CiliumClusterwideNetworkPolicy"),
        *((group, "GlobalNetworkPolicy") for group in CALICO_GROUPS),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
        ("policy.networking.k8s.io", "AdminNetworkPolicy"),
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy"),
    }
)
"""(API group, kind) of policies whose subject is no single namespace."""
ONLY_ISOLATES = "this kind is not supported yet: the policy isolates the pods it selects and allows nothing"
_SECTIONS = {
    net.Direction.INGRESS: ("ingress", "ingressDeny"),
    net.Direction.EGRESS: ("egress", "egressDeny"),
}
_CILIUM_FIELDS = frozenset(
    {*_SECTIONS[net.Direction.INGRESS], *_SECTIONS[net.Direction.EGRESS]}
    | {"endpointSelector", "nodeSelector", "enableDefaultDeny", "description", "labels"}
)
_CALICO_FIELDS = frozenset(
    {"order", "tier", "selector", "serviceAccountSelector", "types", "ingress", "egress", "performanceHints"}
)
_MATCHES_NOTHING = "is not supported; this rule matches nothing"
_BEYOND_L4 = ("authentication", "icmps", "toFQDNs", "toServices", "toGroups", "fromGroups", "toNodes", "fromNodes")
_BEYOND_PORTS = ("serverNames", "listener", "terminatingTLS", "originatingTLS")
_CALICO_TERM = re.compile(r"""\s*(?:has\(\s*([^\s()'"!]+)\s*\)|([^\s()'"!=]+)\s*==\s*(?:'([^']*)'|"([^"]*)"))\s*""")


def cilium_policy(
    document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report
) -> resources.NetworkPolicy | None:
    """Reduce a CiliumNetworkPolicy to its isolation; None if it selects nodes and thus no pod."""
    report.add("", ONLY_ISOLATES)
    try:
        specs = _specs(document)
    except fields.Malformed as malformed:
        report.give_up(malformed, "the policy isolates every pod of its namespace in both directions")
        return _isolating(meta, uid, labels.EVERYTHING, policies.BOTH)
    specs = [spec for spec in specs if not _selects_nodes(spec, report)]
    if not specs:
        return None
    directions = frozenset(direction for direction in net.Direction for spec in specs if _isolates(spec, direction))
    for spec in specs:
        _name_unsupported(spec, report)
    subjects = {_cilium_subject(spec.member("endpointSelector"), report) for spec in specs}
    if len(subjects) > 1:
        report.add("specs", "select different pods; the policy isolates every pod of its namespace, write one each")
    return _isolating(meta, uid, subjects.pop() if len(subjects) == 1 else labels.EVERYTHING, directions)


def _isolating(
    meta: resources.ObjectRef, uid: str, subject: labels.LabelSelector, directions: frozenset[net.Direction]
) -> resources.NetworkPolicy:
    """Build a policy that only isolates."""
    return resources.NetworkPolicy(
        namespace=meta.namespace, name=meta.name, uid=uid, kind=meta.kind, subject=subject, directions=directions
    )


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
    """Tell whether a spec is about nodes instead of pods."""
    at = spec.member("nodeSelector")
    if not at.given or spec.member("endpointSelector").given:
        return False
    report.add(at.path, "selects nodes; host policies are not supported and no pod is concerned")
    return True


def _isolates(spec: fields.Field, direction: net.Direction) -> bool:
    """Tell whether a spec isolates a direction (rules E2, E3).

    With `enableDefaultDeny: false` only denies do: no deny can be told apart here, so all is denied. An
    unknown field may be a misspelt section.
    """
    allow, deny = _SECTIONS[direction]
    if _has_item(spec.member(deny)) or not spec.mapping().keys() <= _CILIUM_FIELDS:
        return True
    defaults = spec.member("enableDefaultDeny").value
    off = isinstance(defaults, Mapping) and defaults.get(allow) is False
    return _has_item(spec.member(allow)) and not off


def _has_item(field: fields.Field) -> bool:
    """Tell whether a section has a rule; one that is no list counts as having one."""
    return field.given and field.value not in ([], ())


def _cilium_subject(field: fields.Field, report: fields.Report) -> labels.LabelSelector:
    """Read an endpointSelector; label keys lose their source, and those of Cilium's own are left out (rule E8)."""
    if not field.given:
        report.add(field.path, "is missing; the policy isolates every pod of its namespace")
    subject = policies.subject(field, report).selector
    kept: list[labels.Requirement] = []
    for requirement in subject.requirements:
        source, colon, key = requirement.key.rpartition(":")
        if (colon and source not in ("k8s", "any")) or key.startswith(("io.kubernetes.pod.", "io.cilium.")):
            report.add(field.path, f"the label {requirement.key!r} is left out, so that more pods are isolated")
        else:
            kept.append(labels.Requirement(key=key, operator=requirement.operator, values=requirement.values))
    return labels.LabelSelector(tuple(kept))


def _name_unsupported(spec: fields.Field, report: fields.Report) -> None:
    """Note what even a supported CiliumNetworkPolicy could not honour at this layer (rules E17, E18)."""
    for section in (name for names in _SECTIONS.values() for name in names):
        for rule in _mappings(spec.member(section)):
            for name in _BEYOND_L4:
                _name_given(rule.member(name), report)
            for port in _mappings(rule.member("toPorts")):
                for name in _BEYOND_PORTS:
                    _name_given(port.member(name), report)
                for name in _keys(port.member("rules")):
                    _name_given(port.member("rules").member(name), report)


def _mappings(field: fields.Field) -> Iterator[fields.Field]:
    """Iterate over the items of a list that can be looked into."""
    items = field.value if isinstance(field.value, list | tuple) else ()
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            yield fields.Field(item, f"{field.path}[{index}]")


def _keys(field: fields.Field) -> tuple[str, ...]:
    """Return the members of a mapping that can be looked into."""
    value = field.value if isinstance(field.value, Mapping) else {}
    return tuple(key for key in value if isinstance(key, str))


def _name_given(field: fields.Field, report: fields.Report) -> None:
    if field.given:
        report.add(field.path, _MATCHES_NOTHING)


def calico_policy(
    document: fields.Field, meta: resources.ObjectRef, uid: str, report: fields.Report
) -> resources.NetworkPolicy:
    """Reduce a Calico NetworkPolicy to its isolation: what is selected and matched by no rule is denied (rule F3)."""
    report.add("", ONLY_ISOLATES)
    try:
        spec = document.member("spec")
        spec.only(*sorted(_CALICO_FIELDS))
        directions = _calico_directions(spec)
    except fields.Malformed as malformed:
        report.give_up(malformed, "the policy isolates every pod of its namespace in both directions")
        return _isolating(meta, uid, labels.EVERYTHING, policies.BOTH)
    return _isolating(meta, uid, _calico_subject(spec.member("selector"), report), directions)


def _calico_directions(spec: fields.Field) -> frozenset[net.Direction]:
    """Return `types`, or their default from the rules there are (rule F4)."""
    types = [item.text() for item in spec.member("types").items()]
    named = {"Ingress": net.Direction.INGRESS, "Egress": net.Direction.EGRESS}
    if types:
        return frozenset(named[text] for text in types) if set(types) <= set(named) else policies.BOTH
    ingress, egress = _has_item(spec.member("ingress")), _has_item(spec.member("egress"))
    if egress:
        return policies.BOTH if ingress else frozenset({net.Direction.EGRESS})
    return frozenset({net.Direction.INGRESS})


def _calico_subject(field: fields.Field, report: fields.Report) -> labels.LabelSelector:
    """Read a conjunction of `key == 'value'` and `has(key)`; any other expression selects every pod."""
    text = field.value if isinstance(field.value, str) else ""
    if field.value in (None, "", "all()"):
        return labels.EVERYTHING
    requirements: list[labels.Requirement] = []
    for term in text.split("&&"):
        match = _CALICO_TERM.fullmatch(term)
        if match is None:
            report.add(field.path, "is not understood; the policy isolates every pod of its namespace")
            return labels.EVERYTHING
        has, key, single, double = match.groups()
        if has is not None:
            requirements.append(labels.Requirement(key=has, operator=labels.Operator.EXISTS))
        else:
            requirements.append(values.equals(key, single if single is not None else double))
    return labels.LabelSelector(tuple(requirements))
