"""From a parsed document to a resource, or to Problems that say why not. Pure, and never an exception.

Input comes from files and from a cluster, written by people and by newer versions of the APIs. The rule
(A50): bad or unsupported input never widens access. What cannot be honoured is a Problem with the path in
the API's spelling; policies keep their isolation and lose only what they allow (`policies`, `cilium`, `cluster`,
`refused`). Kinds that say nothing about the network are passed over in silence.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping

from agent.decode import cilium, cluster, fields, policies, refused, services, workloads
from agent.model import resources

LISTS_MAX_DEPTH = 4
"""Lists inside lists that are followed; a document built in memory may contain itself."""
UNNAMED = "unnamed"
"""Stands in for the name in the problems of an object that has none."""
_NAMESPACED = frozenset({"Pod", "Service", "Endpoints"})
_CORE = frozenset({*_NAMESPACED, "Namespace", "Node"})
_POLICY_GROUPS = frozenset({"networking.k8s.io", "extensions", "", None})
"""Groups that have, or had, the NetworkPolicy of Kubernetes; None is an apiVersion that is no text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one document; no resource and no problem: the kind is of no interest."""

    resource: resources.Resource | None
    problems: tuple[resources.Problem, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _TypeMeta:
    """apiVersion and kind, taken apart."""

    group: str | None
    """"" for the core group; None if apiVersion is missing or no text."""
    version: str
    kind: str


def decode_all(document: object) -> tuple[Decoded, ...]:
    """Decode a document, and each item of a List in its place."""
    return _decode_all(document, LISTS_MAX_DEPTH)


def decode(document: object) -> Decoded:
    """Decode one document that is no List; None, an empty document, is of no interest."""
    if document is None:
        return Decoded(None)
    field = fields.Field(document)
    try:
        kind = field.member("kind").text()
    except fields.Malformed as malformed:
        report = fields.Report(resources.ObjectRef("Document", "", _name_of(document) or UNNAMED))
        report.give_up(malformed, "the document is not read")
        return Decoded(None, report.problems)
    return _decode(field, _type_meta(field, kind))


def _decode_all(document: object, depth: int) -> tuple[Decoded, ...]:
    """Decode, following Lists `depth` deep."""
    if not isinstance(document, Mapping) or not _is_list(document):
        decoded = decode(document)
        return (decoded,) if decoded.resource is not None or decoded.problems else ()
    kind = str(document["kind"])
    report = fields.Report(resources.ObjectRef(kind, "", _name_of(document) or UNNAMED))
    try:
        if not depth:
            raise fields.Malformed("items", f"lists are nested more than {LISTS_MAX_DEPTH} deep")  # noqa: TRY301 - as below
        items = fields.Field(document["items"], "items").items()
    except fields.Malformed as malformed:
        report.give_up(malformed, "the list is not read")
        return (Decoded(None, report.problems),)
    typed = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")} if kind != "List" else {}
    return tuple(
        decoded
        for item in items
        for decoded in _decode_all(
            typed | dict(item.value) if isinstance(item.value, Mapping) else _not_an_object(item), depth - 1
        )
    )


def _is_list(document: Mapping[object, object]) -> bool:
    """Tell a List, PodList and so on by kind and items; a policy cannot pass for one."""
    kind = document.get("kind")
    return isinstance(kind, str) and kind.endswith("List") and "items" in document


def _not_an_object(item: fields.Field) -> object:
    """Return what decode will report as no object; null items would be passed over as empty documents."""
    return item.value if item.given else {}


def _type_meta(field: fields.Field, kind: str) -> _TypeMeta:
    """Take apiVersion apart: `v1`, or `group/version`."""
    text = field.member("apiVersion").value
    if not isinstance(text, str):
        return _TypeMeta(None, "", kind)
    group, _, version = text.rpartition("/")
    return _TypeMeta(group, version, kind)


def _decode(document: fields.Field, type_: _TypeMeta) -> Decoded:
    """Decode an object whose kind is known to be text; whatever is malformed as a whole ends here."""
    if not _is_of_interest(type_):
        return Decoded(None)
    report = fields.Report(resources.ObjectRef(type_.kind, "", _name_of(document.value) or UNNAMED))
    try:
        meta = _object_ref(document, type_)
        report.ref = meta
        return Decoded(_resource(document, type_, meta, report), report.problems)
    except fields.Malformed as malformed:
        report.give_up(malformed, "the object is not read")
    return Decoded(None, report.problems)


def _is_of_interest(type_: _TypeMeta) -> bool:
    """Tell whether a kind says something about the network: other groups have a Service or Node, too."""
    match type_.group:
        case "" | None:
            return type_.kind in _CORE or type_.kind == "NetworkPolicy"
        case "discovery.k8s.io":
            return type_.kind == "EndpointSlice"
        case "lab.nodewall":
            return type_.kind == "Host"
        case refused.CILIUM_GROUP:
            return type_.kind in ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
        case group:
            return type_.kind == "NetworkPolicy" or (group, type_.kind) in refused.CLUSTER_WIDE


def _object_ref(document: fields.Field, type_: _TypeMeta) -> resources.ObjectRef:
    """Name an object; raises Malformed if it has no name, or no namespace can be had.

    Policies without a name are named by their content: they isolate all the same.
    """
    metadata = document.member("metadata")
    policy = type_.kind in ("NetworkPolicy", "CiliumNetworkPolicy")
    name_at = metadata.member("name")
    if (policy or _is_cluster(type_)) and not (isinstance(name_at.value, str) and name_at.value):
        name = f"{UNNAMED}-{_content_digest(document.value)}"
    else:
        name = name_at.text()
    namespaced = policy or type_.kind in _NAMESPACED or type_.kind == "EndpointSlice"
    namespace_at = metadata.member("namespace")
    if not namespaced:
        return resources.ObjectRef(type_.kind, "", name)
    namespace = namespace_at.text() if namespace_at.value not in (None, "") else "default"
    return resources.ObjectRef(type_.kind, namespace, name)


def _content_digest(document: object) -> str:
    """Tell documents without a name apart by what they say."""
    try:
        content = repr(document)
    except (RecursionError, ValueError):  # nested too deep, or a number too long for Python to print
        content = ""
    return hashlib.blake2b(content.encode(errors="replace"), digest_size=6).hexdigest()


def _resource(
    document: fields.Field, type_: _TypeMeta, meta: resources.ObjectRef, report: fields.Report
) -> resources.Resource | None:
    """Read the object by its kind."""
    uid_at = document.member("metadata").member("uid")
    uid = uid_at.value if isinstance(uid_at.value, str) else ""
    if type_.kind in ("NetworkPolicy", "CiliumNetworkPolicy") or _is_cluster(type_):
        return _policy(document, type_, meta, uid, report)
    if (type_.group, type_.kind) in refused.CLUSTER_WIDE:
        report.add("", "this kind is not supported, and has no namespace whose pods could be isolated instead")
        return None
    if type_.version != "v1" or type_.group is None:
        raise document.member("apiVersion").malformed(f"a version of {type_.kind} known here; use v1")
    found: resources.Resource
    match type_.kind:
        case "Pod":
            found = workloads.pod(document, meta, uid, report)
        case "Namespace":
            found = workloads.namespace(document, meta.name, report)
        case "Node":
            found = workloads.node(document, meta.name, report)
        case "Service":
            found = services.service(document, meta, report)
        case "EndpointSlice":
            found = services.endpoint_slice(document, meta, report)
        case "Endpoints":
            found = services.endpoints(document, meta, report)
        case _:
            found = workloads.host(document, meta.name, report)
    return found


def _policy(
    document: fields.Field, type_: _TypeMeta, meta: resources.ObjectRef, uid: str, report: fields.Report
) -> resources.NetworkPolicy | None:
    """Read a policy kind: namespaced ones whatever their version."""
    if not isinstance(document.member("metadata").member("name").value, str):
        report.add("metadata.name", f"is not text; the policy is called {meta.name} here, give it a name")
    found = _policy_of_kind(document, type_, meta, uid, report)
    if found is None or not workloads.asks_audit(document, report, "the policy is enforced"):
        return found
    return dataclasses.replace(found, asks_audit=True)


def _policy_of_kind(
    document: fields.Field, type_: _TypeMeta, meta: resources.ObjectRef, uid: str, report: fields.Report
) -> resources.NetworkPolicy | None:
    if _is_cluster(type_):
        return cluster.policy(document, meta, uid, report)
    if type_.kind == "CiliumNetworkPolicy":
        return cilium.policy(document, meta, uid, report, known_version=type_.version == "v2")
    if type_.group in refused.CALICO_GROUPS:
        return refused.calico_policy(document, meta, uid, report)
    if type_.group not in _POLICY_GROUPS:
        report.add("apiVersion", f"NetworkPolicy of {type_.group!r} is not known here; the policy is not enforced")
        return None
    known = (type_.group, type_.version) == ("networking.k8s.io", "v1")
    return policies.network_policy(document, meta, uid, report, known_version=known)


def _is_cluster(type_: _TypeMeta) -> bool:
    """Tell a ClusterNetworkPolicy of the version that is read from those that are refused."""
    return (type_.group, type_.version, type_.kind) == (cluster.GROUP, cluster.VERSION, cluster.KIND)


def _name_of(document: object) -> str:
    """Return metadata.name if it is there and text, else ""."""
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""
