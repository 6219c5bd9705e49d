"""A real API server takes what the chart makes: installed, upgraded, refused a second time, uninstalled.

There are no nodes and no controllers, so no pod ever runs; the job that helm waits for is ended by the test.
"""

from __future__ import annotations

import contextlib
import http
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.chart import charts
from tests.kube import control

pytestmark = [pytest.mark.kube, pytest.mark.slow]

EVERYTHING: dict[str, Any] = {
    "iptables": {"enabled": True},
    "olderKernel": True,
    "runtimeSocket": "/run/containerd/containerd.sock",
    "mountBpffs": True,
    "brNetfilter": True,
    "imagePullSecrets": [{"name": "x"}],
    "hubble": {"enabled": True, "address": "[::]"},
    "otlp": {"endpoint": "collector:4317"},
    "audit": {"namespaces": ["x"], "policies": ["x/p"], "allowAnnotations": True},
    "resources": {"limits": {"memory": "1Gi"}},
    "extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "k8s.cluster.name=x"}],
}
ROOTS = {
    "ConfigMap": "/api/v1/namespaces/kube-system/configmaps",
    "Service": "/api/v1/namespaces/kube-system/services",
    "ServiceAccount": "/api/v1/namespaces/kube-system/serviceaccounts",
    "DaemonSet": "/apis/apps/v1/namespaces/kube-system/daemonsets",
    "Job": "/apis/batch/v1/namespaces/kube-system/jobs",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
}
PATIENCE_S = 60.0


class Cluster:
    """Helm and plain requests to the same API server."""

    def __init__(self, helm: charts.Helm, client: control.Client, kubeconfig: pathlib.Path) -> None:
        """Act as administrator."""
        self.client = client
        self._helm = helm
        self._where = ("--kubeconfig", kubeconfig)

    def helm(self, *words: object, namespace: str = charts.NAMESPACE, **values: Any) -> str:
        """Run helm and return what it says; fails where it complains."""
        done = self._helm.run(*words, *self._where, "--namespace", namespace, values=values or None)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refusal(self, *words: object, namespace: str = charts.NAMESPACE) -> str:
        """Run helm and return what it complains of; fails where it does not."""
        done = self._helm.run(*words, *self._where, "--namespace", namespace)
        assert done.returncode, done.stdout
        return done.stderr

    def uninstalled(self) -> str:
        """Uninstall as an operator does, and play the node and the job's controller; return what helm says."""
        beside = self._helm.start("uninstall", charts.RELEASE, *self._where, "--namespace", charts.NAMESPACE)
        try:
            self.wait(lambda: self.has(charts.WAIT) or beside.poll() is not None)
            assert self.has(charts.UNINSTALL), beside.communicate()[0]
            assert not self.has(charts.AGENT)
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            ended = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
            status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": ended}
            self.client.patch(f"{path(charts.WAIT)}/status", {"status": status})
            said, _ = beside.communicate(timeout=PATIENCE_S)
        finally:
            beside.kill()
            beside.communicate()
        assert beside.returncode == 0, said
        return said

    def has(self, key: str) -> bool:
        return self.client.status("GET", path(key)) == http.HTTPStatus.OK

    def get(self, key: str) -> charts.Object:
        found: charts.Object = self.client.get(path(key))
        return found

    def here(self) -> set[str]:
        """Return what there is of all that the chart has a name for."""
        return {key for key in NAMES if self.has(key)}

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.05)


INSTALLED = {
    "ConfigMap/nodewall-agent",
    "ServiceAccount/nodewall-agent",
    "ClusterRole/nodewall-agent",
    "ClusterRoleBinding/nodewall-agent",
    charts.AGENT,
}
NAMES = INSTALLED | {"Service/hubble-peer", charts.UNINSTALL, charts.WAIT}


def path(key: str) -> str:
    kind, _, name = key.partition("/")
    return f"{ROOTS[kind]}/{name}"


@pytest.fixture
def cluster(helm: charts.Helm, plane: control.ControlPlane, tmp_path: pathlib.Path) -> Iterator[Cluster]:
    """With nothing of the chart in it, before and after."""
    with contextlib.closing(plane.admin()) as client:
        one = Cluster(helm, client, plane.kubeconfig(tmp_path / "kubeconfig"))
        one.wait(lambda: client.status("GET", f"/api/v1/namespaces/{charts.NAMESPACE}") == http.HTTPStatus.OK)
        assert not one.here()
        yield one
        one.helm("uninstall", charts.RELEASE, "--no-hooks", "--ignore-not-found")
        for key in NAMES:
            client.status("DELETE", path(key), {"propagationPolicy": "Background"})
        one.wait(lambda: not one.here())


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_server_takes_every_object_and_knows_every_field(
    cluster: Cluster, helm: charts.Helm, values: dict[str, Any]
) -> None:
    strictly = "?dryRun=All&fieldValidation=Strict&fieldManager=test"
    for key, one in helm.template(**values).items():
        status, answer = cluster.client._send(
            "PATCH", path(key) + strictly, one, content_type="application/apply-patch+yaml"
        )
        assert status == http.HTTPStatus.CREATED, (key, answer)
    assert not cluster.here()


def test_from_an_installation_over_an_upgrade_to_nothing(cluster: Cluster) -> None:
    said = cluster.helm("install", charts.RELEASE, charts.CHART)
    assert "agentctl status" in said
    assert cluster.here() == INSTALLED
    before = cluster.get(charts.AGENT)
    cluster.helm("upgrade", "--install", charts.RELEASE, charts.CHART, **EVERYTHING)
    assert cluster.here() == INSTALLED | {"Service/hubble-peer"}
    after = cluster.get(charts.AGENT)
    assert before["metadata"]["uid"] == after["metadata"]["uid"], "changed, and never away"
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    [secret] = [
        one["secret"] for one in after["spec"]["template"]["spec"]["volumes"] if one["name"].startswith("hubble")
    ]
    assert secret == {"secretName": "nodewall-hubble", "optional": True, "defaultMode": 0o400}
    assert 'release "nodewall" uninstalled' in cluster.uninstalled()
    assert not cluster.here()


def test_an_upgrade_that_changes_nothing_restarts_nothing(cluster: Cluster) -> None:
    cluster.helm("install", charts.RELEASE, charts.CHART)
    before = cluster.get(charts.AGENT)["metadata"]["generation"]
    cluster.helm("upgrade", "--install", charts.RELEASE, charts.CHART)
    assert cluster.get(charts.AGENT)["metadata"]["generation"] == before


def test_a_rollback_leads_back(cluster: Cluster) -> None:
    cluster.helm("install", charts.RELEASE, charts.CHART)
    before = cluster.get(charts.AGENT)["spec"]
    cluster.helm("upgrade", charts.RELEASE, charts.CHART, **EVERYTHING)
    assert cluster.get(charts.AGENT)["spec"] != before
    cluster.helm("rollback", charts.RELEASE, "1")
    assert cluster.get(charts.AGENT)["spec"] == before
    assert cluster.here() == INSTALLED


@pytest.mark.parametrize(
    ("release", "namespace"), [("second", "kube-system"), ("nodewall", "default"), ("second", "default")]
)
def test_a_second_release_is_refused_and_told_which_is_the_first(
    cluster: Cluster, release: str, namespace: str
) -> None:
    cluster.helm("install", charts.RELEASE, charts.CHART)
    told = cluster.refusal("install", release, charts.CHART, namespace=namespace)
    assert "release nodewall in namespace kube-system" in told
    assert "helm upgrade nodewall" in told
    assert cluster.here() == INSTALLED


def test_what_was_installed_without_helm_is_not_taken_unasked(cluster: Cluster) -> None:
    for key, one in charts.read((charts.SHIPPED / "install.yaml").read_text()).items():
        if key.startswith(("ClusterRole", "ServiceAccount", "DaemonSet")):
            cluster.client.post(ROOTS[one["kind"]], one)
    told = cluster.refusal("install", charts.RELEASE, charts.CHART)
    assert "nodewall-agent" in told
    assert "invalid ownership metadata" in told
    uid = cluster.get(charts.AGENT)["metadata"]["uid"]
    cluster.helm("install", charts.RELEASE, charts.CHART, "--take-ownership")
    assert cluster.get(charts.AGENT)["metadata"]["uid"] == uid


def test_without_hooks_what_is_enforced_stays(cluster: Cluster) -> None:
    cluster.helm("install", charts.RELEASE, charts.CHART)
    cluster.helm("uninstall", charts.RELEASE, "--no-hooks")
    assert not cluster.here()
