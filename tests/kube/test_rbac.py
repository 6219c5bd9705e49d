"""The agent's rights are exactly those it uses: what is shipped is applied, and nothing else is granted."""

from __future__ import annotations

import contextlib
import copy
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent import clock
from agent.model import resources
from agent.sources.kubernetes import api, connection, events, notices
from tests.kube import accounts, conftest, control, proxy

SHIPPED = pathlib.Path(__file__).parents[2] / "daemonset" / "base" / "rbac.yaml"
VERBS = ("list", "watch")
TELLING = ("create", "patch")
"""Of Events."""
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NAME = "nodewall-agent"
_CACHED_S = 10
"""How long the API server believes a token it has seen."""


def documents() -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(SHIPPED.read_text()) if document]


def path_of(document: dict[str, Any]) -> str:
    metadata, kind = document["metadata"], document["kind"]
    if kind == "ServiceAccount":
        return f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts"
    return f"{RBAC}/{kind.lower()}s"


@pytest.fixture
def shipped(plane: control.ControlPlane) -> Iterator[control.Client]:
    """Apply the file as it is shipped; take it back afterwards."""
    with contextlib.closing(plane.admin()) as client:
        for document in documents():
            client.post(path_of(document), document)
        yield client
        for document in documents():
            client.status("DELETE", f"{path_of(document)}/{document['metadata']['name']}")


@pytest.fixture
def mounted(shipped: control.Client, plane: control.ControlPlane, tmp_path: pathlib.Path) -> accounts.Mounted:
    assert shipped
    return accounts.Mounted(directory=tmp_path / "serviceaccount", plane=plane, name=NAME)


def effective(plane: control.ControlPlane, token: str) -> set[tuple[str, str, str]]:
    """Ask the server what an account may do: (group, resource, verb)."""
    client = control.Client(port=plane.port, ca=plane.ca, token=token)
    with contextlib.closing(client):
        review = {"spec": {"namespace": "kube-system"}}
        status = client.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)["status"]
    assert not status["incomplete"]
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def wanted() -> set[tuple[str, str, str]]:
    read = {(one.api_version.rpartition("/")[0], one.value, verb) for one in api.Resource for verb in VERBS}
    return read | {("", "events", verb) for verb in TELLING}


def test_nothing_is_missing(mounted: accounts.Mounted, follow: conftest.Follow) -> None:
    seen = follow(as_=mounted.access())
    seen.synced()
    assert not any(state.error for state in seen.source.states)
    assert all(seen.count("failures", resource) == 0 for resource in api.Resource)


def test_nothing_is_superfluous(
    mounted: accounts.Mounted, shipped: control.Client, plane: control.ControlPlane, tmp_path: pathlib.Path
) -> None:
    path = f"/api/v1/namespaces/{accounts.NAMESPACE}/serviceaccounts"
    shipped.status("POST", path, {"metadata": {"name": "nobody"}})
    nobody = accounts.Mounted(directory=tmp_path / "nobody", plane=plane, name="nobody")
    assert effective(plane, mounted.token) - effective(plane, nobody.token) == wanted()


def test_the_file_grants_by_name_only() -> None:
    (role,) = [document for document in documents() if document["kind"] == "ClusterRole"]
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    granted = [
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    assert len(granted) == len(set(granted))
    assert set(granted) == wanted()


@pytest.mark.parametrize("missing", VERBS)
def test_each_right_is_needed_and_its_lack_is_named(
    missing: str, mounted: accounts.Mounted, shipped: control.Client, follow: conftest.Follow
) -> None:
    (role,) = copy.deepcopy([document for document in documents() if document["kind"] == "ClusterRole"])
    for rule in role["rules"]:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb != missing]
    shipped.patch(f"{RBAC}/clusterroles/{NAME}", {"rules": role["rules"]})
    seen = follow(as_=mounted.access())
    seen.eventually(lambda: all(state.error for state in seen.source.states))
    for state in seen.source.states:
        assert "403 Forbidden" in state.error
        assert f'cannot {missing} resource "{state.resource.value}"' in state.error


def told(mounted: accounts.Mounted, cluster: conftest.Cluster, *, count: int) -> int:
    """Send an Event, which was told `count` times."""
    ref = resources.ObjectRef("NetworkPolicy", cluster.namespace, "p")
    notice = notices.Notice(policy=ref, uid="", name="p.1", message="odd", count=count)
    return events.EventSender(access_=mounted.access(), node="n1", clock=clock.SystemClock()).send(notice)


def test_problems_can_be_told(mounted: accounts.Mounted, cluster: conftest.Cluster) -> None:
    assert [told(mounted, cluster, count=count) for count in (0, 1, 0)] == [1, 2, 2]


@pytest.mark.parametrize("missing", TELLING)
def test_each_right_to_tell_is_needed_and_its_lack_is_named(
    missing: str, mounted: accounts.Mounted, shipped: control.Client, cluster: conftest.Cluster
) -> None:
    (role,) = copy.deepcopy([document for document in documents() if document["kind"] == "ClusterRole"])
    for rule in role["rules"]:
        rule["verbs"] = [verb for verb in rule["verbs"] if verb != missing]
    shipped.patch(f"{RBAC}/clusterroles/{NAME}", {"rules": role["rules"]})
    with pytest.raises(connection.Failed, match=f'403 Forbidden: .*cannot {missing} resource "events"'):
        told(mounted, cluster, count=1 if missing == "patch" else 0)


def test_a_token_that_was_replaced_and_does_not_hold_any_more(
    mounted: accounts.Mounted,
    shipped: control.Client,
    follow: conftest.Follow,
    proxied: proxy.Proxy,
    cluster: conftest.Cluster,
) -> None:
    plane = mounted.plane
    seen = follow(as_=mounted.access(port=proxied.port))
    seen.synced()
    old = mounted.token
    # Tokens are bound to the account as it was made: another of the same name does not take them.
    account = next(document for document in documents() if document["kind"] == "ServiceAccount")
    shipped.delete(f"{path_of(account)}/{NAME}")
    shipped.post(path_of(account), account)
    deadline = time.monotonic() + _CACHED_S * 2
    with contextlib.closing(control.Client(port=plane.port, ca=plane.ca, token=old)) as client:
        while client.status("GET", "/api/v1/pods?limit=1") != 401:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    proxied.cut()
    seen.eventually(lambda: all("401" in state.error for state in seen.source.states))
    mounted.rotate()
    cluster.pod("p")
    seen.until(lambda one: (cluster.namespace, "p") in one.pods)
    assert seen.count("lists", api.Resource.PODS) == 1
