"""The definitions of custom resources, as they are shipped, at a real API server."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import yaml

from agent.sources.kubernetes import api
from tests.kube import control

SHIPPED = pathlib.Path(__file__).parents[2] / "daemonset" / "crds"
PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PATIENCE_S = 30.0
_SERVED = 200
_NOT_FOUND = 404


def document(resource: api.Resource) -> dict[str, Any]:
    """Return the definition of one."""
    found: dict[str, Any] = yaml.safe_load((SHIPPED / f"{resource.value}.yaml").read_text())
    return found


def install(client: control.Client, resource: api.Resource) -> None:
    """Install one and wait until it is served."""
    client.post(PATH, document(resource))
    _until(client, resource, _SERVED)


def remove(client: control.Client, resource: api.Resource) -> None:
    """Take one away with all its objects, and wait until it is not served any more."""
    client.delete(f"{PATH}/{document(resource)['metadata']['name']}")
    _until(client, resource, _NOT_FOUND)


def _until(client: control.Client, resource: api.Resource, status: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.status("GET", resource.path) != status:
        if time.monotonic() > deadline:
            raise AssertionError(f"{resource.path} is not answered with {status} within {PATIENCE_S} s")
        time.sleep(0.1)
