"""Lists, watches and what becomes of them when the server or the way to it fails."""

from __future__ import annotations

import json
import pathlib
import threading
import time

import pytest

from agent import clock, snapshot
from agent.model import net
from agent.sources.kubernetes import access, api, backoff, connection, source
from tests.kube import conftest, control, proxy

PODS = api.Resource.PODS
QUICK_S = 5.0
"""Less than a silent server is given in any other case."""


def test_changes_of_every_resource_arrive(follow: conftest.Follow, cluster: conftest.Cluster) -> None:
    seen = follow()
    seen.synced()
    namespace = cluster.namespace
    cluster.pod("p", app="web")
    cluster.address("p", "10.0.0.1", "fd00::1")
    cluster.policy("deny", policyTypes=["Ingress"])
    cluster.client.post(cluster.path("services"), {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    cluster.client.post(
        cluster.path("endpointslices", root="/apis/discovery.k8s.io/v1"),
        {
            "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}],
            "ports": [{"port": 80}],
        },
    )
    cluster.client.post("/api/v1/nodes", {"metadata": {"name": namespace}, "spec": {"podCIDR": "10.0.0.0/24"}})
    cluster.client.patch(f"/api/v1/namespaces/{namespace}", {"metadata": {"labels": {"team": "a"}}})

    def all_there(one: snapshot.Snapshot) -> bool:
        """Tell whether the last change of every resource is in; each comes by a watch of its own."""
        pod = one.pods.get((namespace, "p"))
        return (
            one.namespaces[namespace].labels.get("team") == "a"
            and pod is not None
            and bool(pod.addresses)
            and any(ref.namespace == namespace for ref in one.policies)
            and (namespace, "s") in one.services
            and (namespace, "s-1") in one.endpoint_slices
            and namespace in one.nodes
        )

    found = seen.until(all_there).snapshot
    pod = found.pods[namespace, "p"]
    assert [str(address) for address in pod.addresses] == ["10.0.0.1", "fd00::1"]
    assert (pod.ports[0].name, pod.ports[0].protocol) == ("http", net.Protocol.TCP)
    assert [ref.name for ref in found.policies if ref.namespace == namespace] == ["deny"]
    assert len(found.services[namespace, "s"].cluster_addresses) == 1
    assert found.endpoint_slices[namespace, "s-1"].service == "s"
    assert [str(one) for one in found.nodes[namespace].pod_ranges] == ["10.0.0.0/24"]
    cluster.delete_pod("p")
    seen.until(lambda one: (namespace, "p") not in one.pods)
    cluster.client.delete(f"/api/v1/nodes/{namespace}")
    seen.until(lambda one: namespace not in one.nodes)
    assert seen.source.counters["whole", "pods"] == 0


def test_nothing_is_yielded_before_every_list_is_in(
    follow: conftest.Follow, cluster: conftest.Cluster, proxied: proxy.Proxy
) -> None:
    cluster.pod("p")
    proxied.answering = False
    seen = follow(port=proxied.port)
    seen.eventually(lambda: all(state.error for state in seen.source.states))
    assert seen.updates == []
    assert seen.source.lost_unix_ns is not None
    proxied.answering = True
    seen.synced()
    assert (cluster.namespace, "p") in seen.updates[0].snapshot.pods


def test_a_list_comes_in_pages(follow: conftest.Follow, cluster: conftest.Cluster) -> None:
    for number in range(7):
        cluster.pod(f"p{number}")
    seen = follow(page_limit=2)
    seen.synced()
    assert sum(namespace == cluster.namespace for namespace, _ in seen.snapshot.pods) == 7
    assert seen.count("pages", PODS) >= 4
    assert seen.count("lists", PODS) == 1


def test_a_watch_that_is_cut_is_resumed_without_a_list(
    follow: conftest.Follow, cluster: conftest.Cluster, proxied: proxy.Proxy
) -> None:
    seen = follow(port=proxied.port)
    seen.synced()
    for number in range(3):
        proxied.cut()
        cluster.pod(f"p{number}")
        seen.until(lambda one, name=f"p{number}": (cluster.namespace, name) in one.pods)  # type: ignore[misc]
    assert seen.count("lists", PODS) == 1
    assert seen.count("watches", PODS) >= 4


def test_bookmarks_carry_a_quiet_watch_on(
    follow: conftest.Follow, cluster: conftest.Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server sends one 2 s before it ends a watch, besides those each minute.
    monkeypatch.setattr(connection, "WATCH_S", 4.0)
    seen = follow()
    seen.synced()
    cluster.pod("p")
    seen.until(lambda one: (cluster.namespace, "p") in one.pods)
    version = int(seen.source.store.versions[PODS])
    seen.eventually(lambda: int(seen.source.store.versions[api.Resource.NODES]) >= version)
    seen.eventually(lambda: seen.count("watches", api.Resource.NODES) > 1)
    assert seen.count("bookmarks", api.Resource.NODES) > 0
    assert seen.count("lists", api.Resource.NODES) == 1


def test_the_server_is_killed_and_restarted(
    follow: conftest.Follow, cluster: conftest.Cluster, plane: control.ControlPlane
) -> None:
    cluster.pod("before")
    seen = follow()
    seen.synced()
    before = seen.snapshot
    plane.kill()
    try:
        seen.eventually(lambda: not any(state.connected for state in seen.source.states))
        lost = seen.source.lost_unix_ns
        assert lost is not None
        assert 0 <= time.time_ns() - lost < 30e9
        time.sleep(1)
        assert seen.snapshot is before
        assert seen.source.lost_unix_ns == lost
    finally:
        plane.start()
    cluster.pod("after")
    seen.until(lambda one: (cluster.namespace, "after") in one.pods, seconds=60)
    seen.eventually(lambda: seen.source.lost_unix_ns is None, seconds=60)


def test_an_absent_server_is_not_stormed(
    follow: conftest.Follow, cluster: conftest.Cluster, proxied: proxy.Proxy
) -> None:
    seen = follow(port=proxied.port)
    seen.synced()
    asked, connections = seen.requests(), proxied.accepted
    proxied.answering = False
    proxied.cut()
    time.sleep(8)
    # A resource asks after 0.1 s at the earliest, then half of 0.2, 0.4, ... s later each.
    most, waited = 1, backoff.FIRST_S * (1 - backoff.SPREAD)
    while waited < 8:
        most, waited = most + 1, waited + backoff.FIRST_S * (1 - backoff.SPREAD) * 2**most
    assert len(api.Resource) * 2 <= proxied.accepted - connections <= len(api.Resource) * most
    assert seen.requests() - asked <= len(api.Resource) * most
    proxied.answering = True
    cluster.pod("p")
    seen.until(lambda one: (cluster.namespace, "p") in one.pods, seconds=backoff.MOST_S * 2)


def test_a_version_that_was_compacted_is_listed_anew_with_the_difference(
    follow: conftest.Follow, cluster: conftest.Cluster, plane: control.ControlPlane, proxied: proxy.Proxy
) -> None:
    for name in ("stays", "goes", "changes"):
        cluster.pod(name)
    seen = follow(port=proxied.port)
    seen.synced()
    stays = seen.snapshot.pods[cluster.namespace, "stays"]
    proxied.answering = False
    proxied.cut()
    cluster.delete_pod("goes")
    cluster.relabel("changes", app="new")
    cluster.pod("comes")
    version = int(cluster.client.get(cluster.path("pods"))["metadata"]["resourceVersion"])
    plane.kill()  # so that its cache forgets, too
    plane.compact(version)
    plane.start()
    proxied.answering = True
    found = seen.until(lambda one: (cluster.namespace, "comes") in one.pods, seconds=60).snapshot
    assert (cluster.namespace, "goes") not in found.pods
    assert dict(found.pods[cluster.namespace, "changes"].labels) == {"app": "new"}
    assert found.pods[cluster.namespace, "stays"] is stays
    assert seen.count("gone", PODS) == 1
    assert seen.count("relists", PODS) == 1


def test_a_continue_token_that_was_compacted_starts_the_list_again(
    cluster: conftest.Cluster, plane: control.ControlPlane, tmp_path: pathlib.Path
) -> None:
    for number in range(3):
        cluster.pod(f"p{number}")
    granted = access.Access(kubeconfig=plane.kubeconfig(tmp_path / "kubeconfig"))
    made = connection.HTTPConnection(PODS, access_=granted, clock=clock.SystemClock())
    first = json.loads(made.page(limit=1, continue_=""))["metadata"]
    cluster.delete_pod("p0")
    version = int(cluster.client.get(cluster.path("pods"))["metadata"]["resourceVersion"])
    plane.kill()
    plane.compact(version)
    plane.start()
    with pytest.raises(connection.Gone, match="410 Expired"):
        made.page(limit=1, continue_=first["continue"])
    assert json.loads(made.page(limit=1, continue_=""))["items"]
    made.close()


def test_a_first_list_that_trickles_is_given_up_and_asked_for_again(
    follow: conftest.Follow, proxied: proxy.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PAGE_S", 1.0)
    monkeypatch.setattr(source, "WATCHDOG_S", 0.2)
    seen = follow(port=proxied.port)
    proxied.trickle_bytes = 3
    seen.eventually(lambda: seen.count("failures", PODS) > 0)
    assert seen.updates == []
    proxied.trickle_bytes = 0
    seen.synced()


def test_a_silent_watch_is_opened_anew(
    follow: conftest.Follow, cluster: conftest.Cluster, proxied: proxy.Proxy
) -> None:
    seen = follow(port=proxied.port, idle_s=2.0)
    seen.synced()
    proxied.silence()
    cluster.pod("p")
    seen.eventually(lambda: seen.count("idle", PODS) > 0)
    proxied.cut()
    proxied.speak()
    seen.until(lambda one: (cluster.namespace, "p") in one.pods)
    assert seen.count("lists", PODS) == 1


def test_a_trickling_watch_says_all_the_same(
    follow: conftest.Follow, cluster: conftest.Cluster, proxied: proxy.Proxy
) -> None:
    seen = follow(port=proxied.port)
    seen.synced()
    proxied.trickle_bytes = 200
    cluster.pod("p")
    seen.until(lambda one: (cluster.namespace, "p") in one.pods)


def test_the_end_is_quick_whatever_the_server_does(follow: conftest.Follow, proxied: proxy.Proxy) -> None:
    seen = follow(port=proxied.port)
    seen.synced()
    proxied.silence()
    assert seen.stop() < QUICK_S
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]


def test_a_burst_of_changes_ends_as_a_fresh_list_does(follow: conftest.Follow, cluster: conftest.Cluster) -> None:
    seen = follow()
    seen.synced()
    for number in range(100):
        cluster.pod(f"p{number}", app="a")
    for round_ in range(7):
        for number in range(100):
            cluster.relabel(f"p{number}", app=f"v{round_}")
    for number in range(100):
        cluster.address(f"p{number}", f"10.1.0.{number}")
    for number in range(0, 100, 2):
        cluster.delete_pod(f"p{number}")
    for number in range(50):
        cluster.policy(f"n{number}", policyTypes=["Ingress", "Egress"])
    seen.until(lambda one: sum(ref.namespace == cluster.namespace for ref in one.policies) == 50)
    seen.until(lambda one: sum(namespace == cluster.namespace for namespace, _ in one.pods) == 50)
    fresh = follow()
    fresh.synced()
    assert seen.snapshot == fresh.snapshot
    assert list(seen.snapshot.pods) == list(fresh.snapshot.pods)
    assert list(seen.snapshot.policies) == list(fresh.snapshot.policies)
    assert seen.count("lists", PODS) == 1
    assert seen.count("events", PODS) >= 950
