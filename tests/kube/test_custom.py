"""Policies of other kinds at a real API server: followed as others, with definitions that are there or come later."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from agent import clock
from agent.model import resources
from agent.sources.kubernetes import access, api, backoff, events, notices, reflector
from tests.decode import samples
from tests.kube import conftest, control, definitions
from tests.support import cases

CILIUM = api.Resource.CILIUM_NETWORK_POLICIES
CLUSTER = api.Resource.CLUSTER_NETWORK_POLICIES
INVALID = 422
GROUPS = ("cilium", "clusternetworkpolicy", "seeds")


def path(cluster: conftest.Cluster, resource: api.Resource, name: str = "") -> str:
    root, _, plural = resource.path.rpartition("/")
    return cluster.path(plural, name, root=root) if resource.namespaced else f"{resource.path}/{name}".rstrip("/")


def in_namespace(cluster: conftest.Cluster, document: dict[str, Any]) -> dict[str, Any]:
    """Return a document as an object of the test's namespace, or of none, with a name of its own."""
    named = {"name": f"{document['metadata']['name']}-{cluster.namespace}"}
    return {**document, "metadata": named}


def test_policies_of_both_kinds_are_followed_and_what_is_not_honoured_reaches_the_agent(
    follow: conftest.Follow, cluster: conftest.Cluster
) -> None:
    """Rule E17: a server that dropped fields it does not know would widen what they restrict."""
    seen = follow()
    seen.synced()
    restricted = {"ports": [{"port": "80", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
    cilium = in_namespace(
        cluster, samples.cilium_policy(ingress=[{"fromEndpoints": [{}], "toPorts": [restricted], "mode": {"x": 1}}])
    )
    wide = in_namespace(
        cluster, samples.cluster_policy(ingress=[{"action": "Accept", "from": [{"namespaces": {}}], "only": "later"}])
    )
    cluster.client.post(path(cluster, CILIUM), cilium)
    cluster.client.post(path(cluster, CLUSTER), wide)
    refs = {
        resources.ObjectRef(CILIUM.kind, cluster.namespace, cilium["metadata"]["name"]),
        resources.ObjectRef(CLUSTER.kind, "", wide["metadata"]["name"]),
    }
    found = seen.until(lambda one: refs <= one.policies.keys()).snapshot
    assert {problem.ref for problem in found.problems} >= refs
    for ref in refs:
        assert [rule.peers for rule in found.policies[ref].ingress] == [()]
    cluster.client.delete(path(cluster, CLUSTER, wide["metadata"]["name"]))
    seen.until(lambda one: not refs <= one.policies.keys())


@pytest.fixture
def without(cluster: conftest.Cluster) -> Iterator[control.Client]:
    """Take a definition away; put it back afterwards."""
    definitions.remove(cluster.client, CILIUM)
    yield cluster.client
    if cluster.client.status("GET", CILIUM.path) != 200:
        definitions.install(cluster.client, CILIUM)


def test_a_definition_that_is_not_there_holds_nothing_back_and_one_that_comes_is_found(
    without: control.Client, follow: conftest.Follow, cluster: conftest.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "ABSENT_S", 1.0)
    monkeypatch.setattr(reflector, "GONE_S", 2.0)
    seen = follow()
    seen.synced()
    (absent,) = [state for state in seen.source.states if not state.served]
    assert (absent.resource, absent.error) == (CILIUM, "")
    assert seen.count("failures", CILIUM) == 0
    definitions.install(without, CILIUM)
    policy = in_namespace(cluster, samples.cilium_policy(ingressDeny=[{"fromEntities": ["all"]}]))
    without.post(path(cluster, CILIUM), policy)
    ref = resources.ObjectRef(CILIUM.kind, cluster.namespace, policy["metadata"]["name"])
    seen.until(lambda one: ref in one.policies)
    assert all(state.served for state in seen.source.states)
    definitions.remove(without, CILIUM)
    seen.until(lambda one: ref not in one.policies)
    seen.eventually(lambda: not all(state.served for state in seen.source.states))
    seen.eventually(lambda: seen.source.lost_unix_ns is None)


@pytest.mark.parametrize("resource", [CILIUM, CLUSTER])
def test_what_is_not_honoured_of_one_is_told_where_its_author_looks(
    resource: api.Resource, cluster: conftest.Cluster, plane: control.ControlPlane, tmp_path: pathlib.Path
) -> None:
    document = in_namespace(cluster, (samples.cilium_policy if resource is CILIUM else samples.cluster_policy)())
    uid = cluster.client.post(path(cluster, resource), document)["metadata"]["uid"]
    namespace = cluster.namespace if resource.namespaced else ""
    ref = resources.ObjectRef(resource.kind, namespace, document["metadata"]["name"])
    notice = notices.Notice(policy=ref, uid=uid, name=f"p.{cluster.namespace}", message="odd", count=0)
    granted = access.Access(kubeconfig=plane.kubeconfig(tmp_path / "kubeconfig"))
    sends = events.EventSender(access_=granted, node="n1", clock=clock.SystemClock())
    assert [sends.send(notice), sends.send(dataclasses.replace(notice, count=1))] == [1, 2]
    shown = cluster.client.get(f"/api/v1/events?fieldSelector=involvedObject.uid%3D{uid}")["items"]
    about = [(one["metadata"]["namespace"], one["involvedObject"]["apiVersion"], one["count"]) for one in shown]
    assert about == [(namespace or "default", resource.api_version, 2)]


def documents() -> list[Any]:
    """Return the policies of both kinds in the truth tables, those whose decoding has no problem."""
    kinds = {CILIUM.kind: CILIUM, CLUSTER.kind: CLUSTER}
    found = []
    for table in (table for table in cases.paths() if table.parent.name in GROUPS):
        steps = cases.load(table).steps
        for number, step in enumerate(steps):
            wrong = {policy.rpartition("/")[2] for policy, _ in step.problems}
            for document in step.documents():
                name = document["metadata"]["name"]
                if document["kind"] in kinds and name not in wrong:
                    where = f"{table.parent.name}/{table.stem}-{number}-{name}"
                    found.append(pytest.param(kinds[document["kind"]], document, id=where))
    return found


@pytest.mark.parametrize(("resource", "document"), documents())
def test_what_is_honoured_the_definitions_take(
    resource: api.Resource, document: dict[str, Any], cluster: conftest.Cluster
) -> None:
    made = cluster.client.post(f"{path(cluster, resource)}?dryRun=All", in_namespace(cluster, document))
    assert all(made[name] == document[name] for name in ("spec", "specs") if name in document)


def rule(**fields: Any) -> dict[str, Any]:
    return {"action": "Accept", "to": [{"namespaces": {}}], **fields}


WRONG: list[tuple[api.Resource, dict[str, Any]]] = [
    (CILIUM, {"ingress": {}}),
    (CILIUM, {"endpointSelector": "all"}),
    (CILIUM, {"enableDefaultDeny": {"ingress": "no"}}),
    (CLUSTER, {"tier": "Default"}),
    (CLUSTER, {"priority": 1001}),
    (CLUSTER, {"subject": {}}),
    (CLUSTER, {"subject": {"namespaces": {}, "pods": {"namespaceSelector": {}, "podSelector": {}}}}),
    (CLUSTER, {"egress": [rule(action="Allow")]}),
    (CLUSTER, {"egress": [rule(to=[])]}),
    (CLUSTER, {"egress": [rule(to=[{}])]}),
    (CLUSTER, {"egress": list(itertools.repeat(rule(), 26))}),
    (CLUSTER, {"egress": [rule(protocols=[{"tcp": {}}])]}),
    (CLUSTER, {"egress": [rule(protocols=[{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}])]}),
    (CLUSTER, {"egress": [rule(to=[{"domainNames": ["*.com"]}])]}),
    (CLUSTER, {"egress": [rule(to=[{"domainNames": ["[a.com"]}])]}),
    (CLUSTER, {"egress": [rule(action="Deny", to=[{"domainNames": ["a.com"]}])]}),
    (CLUSTER, {"tier": "Baseline", "egress": [rule(to=[{"domainNames": ["a.com"]}])]}),
]


@pytest.mark.parametrize(("resource", "spec"), WRONG, ids=str)
def test_what_is_malformed_the_server_refuses(
    resource: api.Resource, spec: dict[str, Any], cluster: conftest.Cluster
) -> None:
    """Rules D1, D7, D8, D12, D14."""
    document = (samples.cilium_policy if resource is CILIUM else samples.cluster_policy)(**spec)
    asked = f"{path(cluster, resource)}?dryRun=All"
    assert cluster.client.status("POST", asked, in_namespace(cluster, document)) == INVALID
