"""One API server for all tests here; each test has a namespace of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent import clock
from agent.sources.kubernetes import access, api, connection, reflector, source
from tests.kube import control, definitions, following, proxy

ROOT = pathlib.Path(__file__).parents[2]
NONE = 3
"""What scripts/kube ends with where there are no programs."""
_NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the API server."""
    for item in items:
        if pathlib.Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kube)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def assets() -> pathlib.Path:
    """Where etcd and kube-apiserver are; `make test-kube` builds them the first time, which takes minutes."""
    found = subprocess.run([ROOT / "scripts" / "kube", "--find"], check=False, capture_output=True, text=True)
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["scripts/kube failed"])[-1]
        if found.returncode == NONE:
            pytest.skip(reason)
        pytest.fail(found.stderr)
    return pathlib.Path(found.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def plane(assets: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.ControlPlane]:
    with control.ControlPlane(directory=tmp_path_factory.mktemp("plane"), assets=assets) as started:
        with contextlib.closing(started.admin()) as client:
            for resource in api.Resource:
                if resource.custom:
                    definitions.install(client, resource)
        yield started


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The API server, as administrator, in one namespace."""

    client: control.Client
    namespace: str

    def path(self, plural: str, name: str = "", *, root: str = "/api/v1") -> str:
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def pod(self, name: str, **labels: str) -> None:
        """Create a pod on a node that nobody runs."""
        containers = [{"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]}]
        self.client.post(
            self.path("pods"),
            {
                "metadata": {"name": name, "labels": labels},
                "spec": {"nodeName": "n1", "containers": containers, "automountServiceAccountToken": False},
            },
        )

    def relabel(self, name: str, **labels: str) -> None:
        self.client.patch(self.path("pods", name), {"metadata": {"labels": labels}})

    def address(self, name: str, *addresses: str) -> None:
        status = {"phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": one} for one in addresses]}
        self.client.patch(f"{self.path('pods', name)}/status", {"status": status})

    def delete_pod(self, name: str) -> None:
        self.client.delete(self.path("pods", name))

    def policy(self, name: str, **spec: Any) -> None:
        self.client.post(
            self.path("networkpolicies", root="/apis/networking.k8s.io/v1"),
            {"metadata": {"name": name}, "spec": {"podSelector": {}} | spec},
        )


@pytest.fixture
def cluster(plane: control.ControlPlane) -> Iterator[Cluster]:
    client = plane.admin()
    with contextlib.closing(client):
        namespace = f"test-{next(_NUMBERS)}"
        client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
        yield Cluster(client, namespace)
        # Its namespace stays, since nothing here finishes the deletion of one; what is in it goes.
        for one in (api.Resource.PODS, api.Resource.SERVICES, *api.POLICIES):
            root, _, plural = one.path.rpartition("/")
            path = f"{root}/namespaces/{namespace}/{plural}" if one.namespaced else one.path
            client.status("DELETE", path, {"gracePeriodSeconds": 0})


@pytest.fixture
def proxied(plane: control.ControlPlane) -> Iterator[proxy.Proxy]:
    with proxy.Proxy(target=plane.port) as between:
        yield between


Follow = Callable[..., following.Following]


@pytest.fixture
def follow(plane: control.ControlPlane, tmp_path: pathlib.Path) -> Iterator[Follow]:
    """Start sources as administrator, each through the port it is given; all are ended."""
    with contextlib.ExitStack() as stack:

        def start(
            *,
            port: int | None = None,
            page_limit: int = reflector.PAGE_LIMIT,
            idle_s: float = connection.IDLE_S,
            as_: access.Access | None = None,
        ) -> following.Following:
            kubeconfig = tmp_path / f"kubeconfig-{next(_NUMBERS)}"
            granted = as_ or access.Access(kubeconfig=plane.kubeconfig(kubeconfig, port=port))
            made = source.KubernetesSource(
                access=granted, clock=clock.SystemClock(), page_limit=page_limit, idle_s=idle_s
            )
            return stack.enter_context(following.Following(made))

        yield start
