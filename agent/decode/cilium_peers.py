"""Peers of CiliumNetworkPolicy rules: endpoints, entities, CIDRs and names (rules E4, E7, E8, E10, E11, E15)."""

from __future__ import annotations

from agent import snapshot
from agent.decode import fields, policies, values
from agent.fqdn import patterns
from agent.model import fqdn, labels, net, resources

NOBODY = "this peer matches nobody"
EMPTY = "matches nobody here"
"""What is said of an entity that nodewall's clusters have nothing of; that is no fault of the rule."""
_SOURCES = ("k8s", "any")
_NAMESPACE = "io.kubernetes.pod.namespace"
_OWN = ("io.kubernetes.pod.", "io.cilium.")
_ENTITIES = {entity.value: entity for entity in resources.Entity}
_NOBODY_HERE = frozenset({"health", "init", "unmanaged", "ingress"})


def pod_key(key: str) -> str | None:
    """Return the key of a pod's own label without its source (rule E8); None: it is something else of Cilium's."""
    source, colon, bare = key.rpartition(":")
    if (colon and source not in _SOURCES) or bare.startswith(_OWN):
        return None
    return bare


def names_namespace(requirement: labels.Requirement, namespace: str) -> bool:
    """Tell whether a requirement asks for the namespace that is meant anyway (rule E7)."""
    _, _, bare = requirement.key.rpartition(":")
    own = requirement.operator is labels.Operator.IN and requirement.values == {namespace}
    return own and bare == _NAMESPACE and _from_pod(requirement.key)


def endpoints(field: fields.Field, _: fields.Report) -> resources.Peer:
    """Read an endpoint selector: of the policy's namespace, unless it names others (rule E7)."""
    if not field.given:
        raise field.malformed("an endpoint selector; `{}` is every pod of the namespace")
    pods: list[labels.Requirement] = []
    spaces: list[labels.Requirement] = []
    for requirement in values.selector(field).requirements:
        key = pod_key(requirement.key)
        if key is not None:
            pods.append(labels.Requirement(key=key, operator=requirement.operator, values=requirement.values))
        elif requirement.key.rpartition(":")[2] == _NAMESPACE and _from_pod(requirement.key):
            spaces.append(
                labels.Requirement(key=snapshot.METADATA_NAME, operator=requirement.operator, values=requirement.values)
            )
        else:
            raise fields.Malformed(field.path, f"the label {requirement.key!r} is not supported")
    return resources.PodPeer(
        pods=labels.LabelSelector(tuple(pods)), namespaces=labels.LabelSelector(tuple(spaces)) if spaces else None
    )


def _from_pod(key: str) -> bool:
    source, colon, _ = key.rpartition(":")
    return not colon or source in _SOURCES


def entity(field: fields.Field, report: fields.Report) -> resources.Peer | None:
    """Read an entity (rule E10); of some there is nothing here, which is said."""
    text = field.text()
    if text in _NOBODY_HERE:
        report.add(field.path, f"{text!r} {EMPTY}: it names something of Cilium's own")
        return None
    if text == "none":
        return None
    if text not in _ENTITIES:
        raise field.malformed(f"an entity known here; use one of {', '.join(_ENTITIES)}, none")
    return resources.EntityPeer(entity=_ENTITIES[text])


def cidr(field: fields.Field, _: fields.Report) -> resources.Peer:
    """Read a prefix or an address (rule E11)."""
    text = field.text()
    network = values.network(field) if "/" in text else net.host_network(values.address(field))
    return resources.IPBlock(cidr=network, outside=True)


def cidr_set(field: fields.Field, _: fields.Report) -> resources.Peer:
    """Read a prefix with exceptions (rule E11)."""
    field.only("cidr", "except")
    network = values.network(field.member("cidr"))
    holes = tuple(policies.hole(item, network) for item in field.member("except").items())
    return resources.IPBlock(cidr=network, excepts=holes, outside=True)


def names(field: fields.Field, report: fields.Report) -> tuple[resources.Peer, ...]:
    """Read toFQDNs; what cannot be read stands for no name (rule E15)."""
    found: list[fqdn.NamePattern] = []
    for item in field.items():
        try:
            found.append(name(item))
        except fields.Malformed as malformed:
            report.give_up(malformed, "it stands for no name")
    return (resources.NamesPeer(patterns=tuple(dict.fromkeys(found))),) if found else ()


def name(field: fields.Field) -> fqdn.NamePattern:
    """Read an item of toFQDNs, or of the names that may be asked for. Raises Malformed."""
    field.only("matchName", "matchPattern")
    exact, pattern = field.member("matchName"), field.member("matchPattern")
    if exact.given == pattern.given:
        raise fields.Malformed(field.path, "needs one of matchName and matchPattern, and not both")
    at, parse = (exact, patterns.parse_cilium_name) if exact.given else (pattern, patterns.parse_cilium_pattern)
    return values.name(at, parse)
