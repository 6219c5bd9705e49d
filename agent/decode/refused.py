"""Policy kinds that are not understood yet: refused in sight of everybody, and never widened.

A namespaced kind is reduced to the isolation it asks for: it selects its pods, isolates the directions
it writes rules for, and allows nothing. Whatever cannot be read of its subject isolates more pods.
Calico isolates by `types` (rules F3, F4). A cluster-wide kind has no namespace to isolate; it is named as a Problem
and nothing else. ClusterNetworkPolicy is among them in every version but the one that `cluster` reads.
"""

from __future__ import annotations

import re

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
_CALICO_FIELDS = frozenset(
    {"order", "tier", "selector", "serviceAccountSelector", "types", "ingress", "egress", "performanceHints"}
)
_CALICO_TERM = re.compile(r"""\s*(?:has\(\s*([^\s()'"!]+)\s*\)|([^\s()'"!=]+)\s*==\s*(?:'([^']*)'|"([^"]*)"))\s*""")


def _isolating(
    meta: resources.ObjectRef, uid: str, subject: labels.LabelSelector, directions: frozenset[net.Direction]
) -> resources.NetworkPolicy:
    """Build a policy that only isolates."""
    return resources.NetworkPolicy(
        namespace=meta.namespace, name=meta.name, uid=uid, kind=meta.kind, subject=subject, directions=directions
    )


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


def _has_item(field: fields.Field) -> bool:
    """Tell whether a section has a rule; one that is no list counts as having one."""
    return field.given and field.value not in ([], ())


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
