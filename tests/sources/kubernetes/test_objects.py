"""The fast way reads what `agent.decode` reads, whatever an object holds; policies are always read whole (rule A50)."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from agent import decode
from agent.model import net, resources
from agent.sources.kubernetes import api, objects, wire
from tests.decode import samples

HOSTILE: tuple[object, ...] = (
    *(None, True, False, 0, -1, 1, 80, 65535, 65536, 10**400, 80.0, 80.5, 1e300),
    *("", "None", "x", "80", "Always", "Ready", "True", "Proxy", "FQDN", "TCP", "tcp", "SCTP", "Succeeded", "Gone"),
    *("\x00\x1b[2J", "a" * 300, "10.0.0.0/8", "10.0.0.9", "010.0.0.9", "10.0.0.256", "10.0.0.1/32", "10.1"),
    *("::1", "::ffff:10.0.0.9", "fe80::1%eth0", "\u0661.2.3.4", "default", "InternalIP", "kubernetes.io/service-name"),
    *([], {}, [None], [[]], [{}], ["10.0.0.9", None], {"": ""}, {"a": None}, {"a": 1}, {"ip": "10.0.0.9"}, {"port": 0}),
)
ROUNDS = 300
META = ("metadata",)
"""It would be no object of the API; one thing wrong in it at a time is tried above."""
FAST = [resource for resource in api.Resource if resource not in api.POLICIES]


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Iterate over the path of every value in a document, and of a field that every mapping lacks."""
    yield path
    if isinstance(value, dict):
        yield (*path, "unknown")
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from places(item, (*path, index))


def replaced(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """Return a document with one value replaced; it shares the rest with the old one."""
    if not path:
        return value
    changed = copy.copy(document)
    inner = changed.get(path[0]) if isinstance(changed, dict) else changed[path[0]]
    changed[path[0]] = replaced(inner, path[1:], value)
    return changed


SAMPLES = {
    api.Resource.PODS: samples.pod(),
    api.Resource.NAMESPACES: replaced(samples.namespace(), ("metadata", "annotations"), {"nodewall.io/audit": "true"}),
    api.Resource.NODES: samples.node(),
    api.Resource.SERVICES: samples.service(),
    api.Resource.ENDPOINT_SLICES: samples.endpoint_slice(),
    api.Resource.NETWORK_POLICIES: samples.full_policy(),
    api.Resource.CILIUM_NETWORK_POLICIES: samples.cilium_policy(ingress=[{"fromEndpoints": [{}]}]),
    api.Resource.CLUSTER_NETWORK_POLICIES: samples.cluster_policy(
        ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}]
    ),
}


def sample(resource: api.Resource) -> dict[str, Any]:
    document: dict[str, Any] = copy.deepcopy(SAMPLES[resource])
    document["metadata"]["resourceVersion"] = "1"
    return document


def assert_same(resource: api.Resource, reader: objects.Reader, document: dict[str, Any]) -> None:
    """Read a document both ways."""
    content = msgspec.Raw(json.dumps(document).encode())
    typed = {"apiVersion": resource.api_version, "kind": resource.kind}
    try:
        _, entry = reader.read(content)
    except wire.NotTheAPI:
        meta = document.get("metadata")
        assert not isinstance(meta, dict) or not all(
            isinstance(meta.get(name), str) and meta[name] for name in ("name", "resourceVersion", "namespace")
        )
        return
    assert entry.decoded == decode.decode(json.loads(bytes(content)) | typed), document


@pytest.mark.parametrize("resource", api.Resource)
def test_a_sound_object_is_read_fast_and_alike(resource: api.Resource) -> None:
    reader = objects.Reader(resource)
    assert_same(resource, reader, sample(resource))
    assert reader.whole == 0


@pytest.mark.parametrize("resource", FAST)
def test_every_hostile_value_in_every_place_is_read_alike(resource: api.Resource) -> None:
    reader, document = objects.Reader(resource), sample(resource)
    for path in places(document):
        for value in HOSTILE if path else ():
            assert_same(resource, reader, replaced(document, path, value))


@pytest.mark.parametrize("resource", FAST)
def test_objects_wrong_in_several_places_are_read_alike(resource: api.Resource) -> None:
    random_, reader = random.Random(20_261_121), objects.Reader(resource)
    for _ in range(ROUNDS):
        document = sample(resource)
        for _ in range(random_.randint(2, 4)):
            path = random_.choice([("spec",), *(path for path in places(document) if path[:1] not in ((), META))])
            document = replaced(document, path, random_.choice(HOSTILE))
        assert_same(resource, reader, document)


@pytest.mark.parametrize("resource", api.POLICIES)
def test_items_of_a_list_say_no_kind_and_are_read_as_what_was_asked_for(resource: api.Resource) -> None:
    document = sample(resource)
    del document["apiVersion"], document["kind"]
    _, entry = objects.Reader(resource).read(msgspec.Raw(json.dumps(document).encode()))
    assert isinstance(entry.decoded.resource, resources.NetworkPolicy)
    assert entry.decoded.resource.kind == resource.kind
    assert entry.decoded.problems == ()


@pytest.mark.parametrize("path", [("spec", "unknown"), ("unknown",), ("spec", "ingress", 0, "unknown")])
def test_a_field_of_a_policy_that_nobody_knows_keeps_the_isolation_and_allows_nothing_a50(
    path: tuple[str | int, ...],
) -> None:
    document = replaced(sample(api.Resource.NETWORK_POLICIES), path, {"deny": True})
    _, entry = objects.Reader(api.Resource.NETWORK_POLICIES).read(msgspec.Raw(json.dumps(document).encode()))
    policy = entry.decoded.resource
    assert isinstance(policy, resources.NetworkPolicy)
    assert policy.directions == frozenset(net.Direction)
    assert policy.ingress[0].peers == ()
    assert [problem.path for problem in entry.decoded.problems] == [
        ".".join(str(step) for step in path).replace(".0.", "[0].")
    ]


def test_a_pod_whose_labels_cannot_be_read_is_a_problem_and_no_pod() -> None:
    document = replaced(sample(api.Resource.PODS), ("metadata", "labels"), {"app": 1})
    key, entry = objects.Reader(api.Resource.PODS).read(msgspec.Raw(json.dumps(document).encode()))
    assert key == ("x", "a")
    assert entry.decoded.resource is None
    assert [problem.path for problem in entry.decoded.problems] == ["metadata.labels[app]"]


def test_labels_and_ports_of_replicas_are_one_object() -> None:
    reader = objects.Reader(api.Resource.PODS)
    pods = []
    for name in ("a", "b"):
        document = replaced(sample(api.Resource.PODS), ("metadata", "name"), name)
        pods.append(reader.read(msgspec.Raw(json.dumps(document).encode()))[1].decoded.resource)
    first, second = pods
    assert isinstance(first, resources.Pod)
    assert isinstance(second, resources.Pod)
    assert first.labels is second.labels
    assert first.ports is second.ports


NO_OBJECTS = (b"", b"null", b"[]", b"{}", b'{"metadata":{"name":"a"}}', b'{"metadata":{"name":1}}')


@pytest.mark.parametrize("content", [*NO_OBJECTS, b'{"metadata":{"name":"a","resourceVersion":"1"},"x":"\\ud800"}'])
def test_what_has_no_name_or_version_is_not_the_apis(content: bytes) -> None:
    with pytest.raises(wire.NotTheAPI):
        objects.Reader(api.Resource.PODS).read(msgspec.Raw(content))
