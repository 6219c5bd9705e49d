"""The agent's picture of the cluster as JSON and back, for those who ask what other policies would make of it.

Resources go as they were decoded, not as manifests: what was refused in a policy stays refused on the other side, and
nothing is decoded twice. Both sides are of one release; whatever does not fit raises InvalidAnswer.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from agent import errors
from agent import snapshot as snapshot_
from agent.model import fqdn, net, resources
from agent.model import labels as labels_

KINDS: Mapping[str, type] = {
    one.__name__: one
    for one in (
        *(resources.Pod, resources.Namespace, resources.Node, resources.Service, resources.EndpointSlice),
        *(resources.Host, resources.NetworkPolicy, resources.ContainerPort, resources.ServicePort),
        *(resources.EndpointPort, resources.PodPeer, resources.IPBlock, resources.PortMatch, resources.PolicyRule),
        *(resources.EntityPeer, resources.NamesPeer, fqdn.NamePattern),
        *(resources.ObjectRef, resources.Problem, labels_.LabelSelector, labels_.Requirement, net.PortRange),
    )
}
KIND = "@"
"""The member that says which of them an object is."""
WHAT = "the agent's picture of the cluster"


def dump(snapshot: snapshot_.Snapshot) -> bytes:
    """Return the JSON of a snapshot."""
    items = [
        *snapshot.pods.values(),
        *snapshot.namespaces.values(),
        *snapshot.nodes.values(),
        *snapshot.services.values(),
        *snapshot.endpoint_slices.values(),
        *snapshot.policies.values(),
        *snapshot.hosts.values(),
    ]
    document = {"items": _plain(items), "problems": _plain(snapshot.problems)}
    return json.dumps(document, separators=(",", ":")).encode()


def load(text: bytes) -> snapshot_.Snapshot:
    """Return the snapshot of which this is the JSON; raises InvalidAnswer."""
    try:
        document = json.loads(text)
        items = [_read(resources.Resource, one) for one in document["items"]]
        problems = [_read(resources.Problem, one) for one in document["problems"]]
        return snapshot_.build(items, problems)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = "it is of another version; use agent and agentctl of one release"
        raise errors.InvalidAnswer(what=WHAT, why=why) from error


def _plain(value: Any) -> Any:  # noqa: PLR0911 - one line a kind of value
    match value:
        case enum.Enum():
            return value.name
        case None | bool() | int() | str():
            return value
        case labels_.Labels():
            return dict(value)
        case frozenset():
            return sorted(map(_plain, value))
        case tuple() | list():
            return [_plain(one) for one in value]
        case _ if dataclasses.is_dataclass(value):
            given = {
                field.name: _plain(found)
                for field in dataclasses.fields(value)
                if (found := getattr(value, field.name)) != field.default
            }
            return {KIND: type(value).__name__, **given}
        case _:
            return str(value)


def _read(hint: Any, value: Any) -> Any:  # noqa: PLR0911 - one line a kind of type
    """Return a value of the type that `hint` means; raises what `load` knows."""
    if hint in (net.Address, net.Network):
        return ipaddress.ip_address(value) if hint == net.Address else ipaddress.ip_network(value)
    if isinstance(value, dict) and KIND in value:
        return _object(KINDS[value[KIND]], value)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        wanted = [one for one in inner if one is not type(None)]
        return _plain_only(value) if value is None or len(wanted) > 1 else _read(wanted[0], value)
    if origin in (tuple, frozenset):
        return origin(_read(inner[0], one) for one in value)
    if hint is labels_.Labels:
        return labels_.Labels(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint[value]
    return _plain_only(value)


def _object(kind: type, value: Mapping[str, Any]) -> Any:
    hints = _hints(kind)
    return kind(**{name: _read(hints[name], one) for name, one in value.items() if name != KIND})


def _plain_only(value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | str):
        raise TypeError(f"no plain value: {value!r}")
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
