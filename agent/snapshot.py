"""One immutable picture of every input from the cluster; what compile and evaluate start from.

Sources build a whole new Snapshot; nothing changes one in place, so two readers never disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from agent.model import labels, resources

NamespacedName = tuple[str, str]
METADATA_NAME = "kubernetes.io/metadata.name"
"""The label every namespace has (rule A13)."""

Item = TypeVar("Item", bound=resources.Resource)
Key = TypeVar("Key")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All resources, by (namespace, name) or by name, and what could not be honoured."""

    pods: Mapping[NamespacedName, resources.Pod] = dataclasses.field(default_factory=dict)
    namespaces: Mapping[str, resources.Namespace] = dataclasses.field(default_factory=dict)
    nodes: Mapping[str, resources.Node] = dataclasses.field(default_factory=dict)
    services: Mapping[NamespacedName, resources.Service] = dataclasses.field(default_factory=dict)
    endpoint_slices: Mapping[NamespacedName, resources.EndpointSlice] = dataclasses.field(default_factory=dict)
    policies: Mapping[resources.ObjectRef, resources.NetworkPolicy] = dataclasses.field(default_factory=dict)
    hosts: Mapping[str, resources.Host] = dataclasses.field(default_factory=dict)
    problems: tuple[resources.Problem, ...] = ()


def build(items: Iterable[resources.Resource], problems: Iterable[resources.Problem] = ()) -> Snapshot:
    """Sort `items` into a Snapshot; of two objects with one name the later wins, and a Problem says so.

    A namespace that only pods or policies mention is added with the label of rule A13. Mappings are in
    the order of their keys and problems are sorted, so that one content gives one Snapshot.
    """
    found: dict[type, dict[resources.ObjectRef, resources.Resource]] = {}
    noted = set(problems)
    for item in items:
        ref = ref_of(item)
        same_type = found.setdefault(type(item), {})
        if ref in same_type and same_type[ref] != item:
            noted.add(resources.Problem(ref, "", "is given more than once; the last one counts, remove the others"))
        same_type[ref] = item
    pods = _sorted(found, resources.Pod, _namespaced)
    policies = _sorted(found, resources.NetworkPolicy, ref_of)
    mentioned = {pod.namespace for pod in pods.values()} | {policy.namespace for policy in policies.values()}
    implied = {name: resources.Namespace(name=name, labels=labels.Labels({METADATA_NAME: name})) for name in mentioned}
    return Snapshot(
        pods=pods,
        namespaces=dict(sorted((implied | _sorted(found, resources.Namespace, _name)).items())),
        nodes=_sorted(found, resources.Node, _name),
        services=_sorted(found, resources.Service, _namespaced),
        endpoint_slices=_sorted(found, resources.EndpointSlice, _namespaced),
        policies=policies,
        hosts=_sorted(found, resources.Host, _name),
        problems=tuple(sorted(noted)),
    )


def ref_of(item: resources.Resource) -> resources.ObjectRef:
    """Name an object of any kind."""
    if isinstance(item, resources.NetworkPolicy):
        return item.ref
    return resources.ObjectRef(type(item).__name__, getattr(item, "namespace", ""), item.name)


def _sorted(
    found: Mapping[type, Mapping[resources.ObjectRef, resources.Resource]],
    type_: type[Item],
    key: Callable[[Item], Key],
) -> dict[Key, Item]:
    """Return the objects of one type in the order of their references, by `key`."""
    of_type = sorted(found.get(type_, {}).items())
    return {key(item): item for _, item in of_type if isinstance(item, type_)}


def _namespaced(item: resources.Pod | resources.Service | resources.EndpointSlice) -> NamespacedName:
    return item.namespace, item.name


def _name(item: resources.Namespace | resources.Node | resources.Host) -> str:
    return item.name
