"""One immutable picture of every input from the cluster; what compile and evaluate start from.

Sources build a whole new Snapshot; nothing changes one in place, so two readers never disagree.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from agent.model import resources

NamespacedName = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All resources, by (namespace, name) or by name, and what could not be honoured."""

    pods: Mapping[NamespacedName, resources.Pod] = MappingProxyType({})
    namespaces: Mapping[str, resources.Namespace] = MappingProxyType({})
    nodes: Mapping[str, resources.Node] = MappingProxyType({})
    services: Mapping[NamespacedName, resources.Service] = MappingProxyType({})
    endpoint_slices: Mapping[NamespacedName, resources.EndpointSlice] = MappingProxyType({})
    policies: Mapping[resources.ObjectRef, resources.NetworkPolicy] = MappingProxyType({})
    hosts: Mapping[str, resources.Host] = MappingProxyType({})
    problems: tuple[resources.Problem, ...] = ()


def build(items: Iterable[resources.Resource], problems: Iterable[resources.Problem] = ()) -> Snapshot:
    """Sort `items` into a Snapshot; of two objects with one name the later wins.

    A namespace that only pods or policies mention is added with the label of rule A13.
    """
    raise NotImplementedError
