"""The state depends on what was told, not on how it was cut into runs, and costs little to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import hypothesis
from hypothesis import strategies

from agent import decode, snapshot
from agent.model import labels, net, resources
from agent.sources.kubernetes import api, deltas, store

NAMES = ("a", "b", "c")


def made(resource: api.Resource, key: deltas.Key, version: int) -> deltas.Entry:
    """Return an object; every fifth version of one cannot be read."""
    namespace, name = key
    ref = resources.ObjectRef(resource.kind, namespace, name)
    if version % 5 == 4:
        return deltas.Entry(str(version), decode.Decoded(None, (resources.Problem(ref, "", "is odd"),)))
    pairs = labels.Labels({"v": str(version % 3)})
    found: resources.Resource
    match resource:
        case api.Resource.PODS:
            found = resources.Pod(namespace=namespace, name=name, uid=name, labels=pairs)
        case api.Resource.NAMESPACES:
            found = resources.Namespace(name=name, labels=pairs)
        case api.Resource.NODES:
            found = resources.Node(name=name)
        case api.Resource.SERVICES:
            found = resources.Service(namespace=namespace, name=name, selector=pairs)
        case api.Resource.ENDPOINT_SLICES:
            found = resources.EndpointSlice(namespace=namespace, name=name, service=str(version % 3))
        case _:
            isolated = frozenset(net.Direction) if version % 3 else frozenset({net.Direction.INGRESS})
            found = resources.NetworkPolicy(namespace=namespace, name=name, kind=resource.kind, directions=isolated)
    problems = (resources.Problem(ref, "spec", "is odd"),) if version % 7 == 6 else ()
    return deltas.Entry(str(version), decode.Decoded(found, problems))


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing the server says."""

    resource: api.Resource
    key: deltas.Key
    version: int
    kind: str


def steps() -> strategies.SearchStrategy[list[Step]]:
    def step(resource: api.Resource, namespace: str, name: str, version: int, kind: str) -> Step:
        return Step(resource, (namespace if resource.namespaced else "", name), version, kind)

    names = strategies.sampled_from(NAMES)
    kinds = strategies.sampled_from(("put", "put", "put", "delete", "list", "lost", "heard", "absent"))
    return strategies.lists(
        strategies.builds(step, strategies.sampled_from(api.Resource), names, names, strategies.integers(0, 40), kinds),
        max_size=40,
    )


def told(said: Iterable[Step]) -> tuple[list[deltas.Delta], dict[api.Resource, dict[deltas.Key, deltas.Entry]]]:
    """Return what reflectors would tell, and what there is afterwards."""
    there: dict[api.Resource, dict[deltas.Key, deltas.Entry]] = {resource: {} for resource in api.Resource}
    news: list[deltas.Delta] = [
        deltas.Listed(resource=resource, version="0", entries={}, unix_ns=0) for resource in api.Resource
    ]
    for one in said:
        version, objects = str(one.version), there[one.resource]
        entry = made(one.resource, one.key, one.version)
        match one.kind:
            case "put":
                objects[one.key] = entry
                news.append(deltas.Changed(resource=one.resource, version=version, key=one.key, entry=entry, unix_ns=0))
            case "delete":
                objects.pop(one.key, None)
                news.append(deltas.Changed(resource=one.resource, version=version, key=one.key, entry=None, unix_ns=0))
            case "list":
                # What happened while nobody watched: one object came or changed, another went.
                objects.pop(min(objects, default=one.key), None)
                objects[one.key] = entry
                news.append(deltas.Listed(resource=one.resource, version=version, entries=dict(objects), unix_ns=0))
            case "lost":
                news.append(deltas.Lost(resource=one.resource, reason="x", unix_ns=0))
            case "absent":
                objects.clear()
                news.append(deltas.Absent(resource=one.resource, unix_ns=0))
            case _:
                news.append(deltas.Heard(resource=one.resource, version=version, unix_ns=0))
    return news, there


def fresh(there: Mapping[api.Resource, Mapping[deltas.Key, deltas.Entry]]) -> snapshot.Snapshot:
    decoded = [entry.decoded for objects in there.values() for entry in objects.values()]
    return snapshot.build(
        (one.resource for one in decoded if one.resource is not None),
        (problem for one in decoded for problem in one.problems),
    )


def orders(built: snapshot.Snapshot) -> list[list[object]]:
    names = ("pods", "namespaces", "nodes", "services", "endpoint_slices", "policies")
    return [list(getattr(built, name)) for name in names]


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
@hypothesis.given(steps(), strategies.lists(strategies.integers(1, 6), min_size=1))
def test_whatever_way_news_is_cut_the_snapshot_is_that_of_a_fresh_list(said: list[Step], cuts: list[int]) -> None:
    news, there = told(said)
    expected = fresh(there)
    at_once = store.after(store.Store(), news)
    in_runs, begin, cut = store.Store(), 0, 0
    while begin < len(news):
        in_runs = store.after(in_runs, news[begin : begin + cuts[cut % len(cuts)]])
        begin, cut = begin + cuts[cut % len(cuts)], cut + 1
    assert at_once.snapshot == in_runs.snapshot == expected
    assert orders(at_once.snapshot) == orders(in_runs.snapshot) == orders(expected)
    assert at_once.versions == in_runs.versions
    assert {resource: dict(objects) for resource, objects in at_once.entries.items()} == there


def listed(resource: api.Resource, *names: str) -> deltas.Listed:
    entries = {("x", name): made(resource, ("x", name), 1) for name in names}
    return deltas.Listed(resource=resource, version="1", entries=entries, unix_ns=0)


def synced() -> store.Store:
    empty = [listed(resource) for resource in api.Resource if resource is not api.Resource.PODS]
    return store.after(store.Store(), [*empty, listed(api.Resource.PODS, "a", "b")])


def changed(version: int) -> deltas.Changed:
    entry = made(api.Resource.PODS, ("x", "a"), version)
    return deltas.Changed(resource=api.Resource.PODS, version=str(version), key=("x", "a"), entry=entry, unix_ns=0)


def test_nothing_is_synced_before_every_list_is_in() -> None:
    known = store.Store()
    for resource in api.Resource:
        assert not known.synced()
        known = store.after(known, [listed(resource)])
    assert known.synced()


def test_a_change_of_what_nobody_reads_keeps_the_snapshot_itself() -> None:
    before = synced()
    after = store.after(before, [changed(10)])
    assert after.versions[api.Resource.PODS] == "10"
    assert after.snapshot is before.snapshot


def test_the_same_list_again_keeps_the_snapshot_itself() -> None:
    before = synced()
    assert store.after(before, [listed(api.Resource.PODS, "b", "a")]).snapshot is before.snapshot


def test_what_did_not_change_is_shared() -> None:
    before = synced()
    after = store.after(before, [changed(2)])
    assert after.snapshot.pods != before.snapshot.pods
    assert after.snapshot.services is before.snapshot.services
    assert after.snapshot.namespaces is before.snapshot.namespaces
    assert before.snapshot.pods["x", "a"].labels["v"] == "1"


def test_an_object_that_is_mended_loses_its_problem() -> None:
    broken = store.after(synced(), [changed(4)])
    assert ("x", "a") not in broken.snapshot.pods
    assert [problem.ref.name for problem in broken.snapshot.problems] == ["a"]
    mended = store.after(broken, [changed(5)])
    assert ("x", "a") in mended.snapshot.pods
    assert mended.snapshot.problems == ()


def test_a_resource_that_is_not_served_is_in_and_has_no_objects_and_no_version() -> None:
    policies = api.Resource.CILIUM_NETWORK_POLICIES
    absent = deltas.Absent(resource=policies, unix_ns=0)
    known = store.after(store.Store(), [absent if one is policies else listed(one) for one in api.Resource])
    assert known.synced()
    assert policies.value not in known.digest
    assert store.after(known, [absent]).snapshot is known.snapshot
    served = store.after(known, [listed(policies, "p")])
    assert [str(ref) for ref in served.snapshot.policies] == ["CiliumNetworkPolicy x/p"]
    assert store.after(served, [absent]).snapshot == known.snapshot


def test_policies_of_every_kind_may_have_one_name() -> None:
    known = store.after(store.Store(), [listed(one, "p") for one in api.POLICIES])
    assert [ref.kind for ref in known.snapshot.policies] == sorted(one.kind for one in api.POLICIES)


def test_the_digest_says_up_to_which_version_each_resource_is_known() -> None:
    known = store.after(synced(), [changed(12), deltas.Lost(resource=api.Resource.NODES, reason="x", unix_ns=0)])
    assert known.digest.split(",") == [
        "ciliumnetworkpolicies@1",
        "clusternetworkpolicies@1",
        "endpointslices@1",
        "namespaces@1",
        "networkpolicies@1",
        "nodes@1",
        "pods@12",
        "services@1",
    ]
