"""The real helm, the chart it renders, and what is shipped beside it, all as parsed documents."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

SHIPPED = pathlib.Path(__file__).parents[2] / "daemonset"
CHART = SHIPPED / "helm"
NAMESPACE = "kube-system"
RELEASE = "nodewall"
AGENT = "DaemonSet/nodewall-agent"
UNINSTALL = "DaemonSet/nodewall-uninstall"
WAIT = "Job/nodewall-uninstall-wait"
LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")
"""What Helm's conventions ask for on every object, and no other installer knows."""
HOOK = "helm.sh/hook"
CHECKSUM = "checksum/config"
PATIENCE_S = 120

Object = dict[str, Any]
Objects = dict[str, Object]
"""By kind and name, as `DaemonSet/nodewall-agent`; no two objects here differ by their namespace alone."""


class Helm:
    """The program, with nothing of whoever runs the tests: no plugins, repositories or clusters."""

    def __init__(self, program: pathlib.Path, home: pathlib.Path) -> None:
        """Take the program and an empty directory."""
        self._program = program
        mine = {name: value for name, value in os.environ.items() if not name.startswith(("HELM", "KUBE"))}
        own = {f"HELM_{name}_HOME": str(home / name) for name in ("CACHE", "CONFIG", "DATA")}
        self.environment = mine | own | {"HOME": str(home), "GOGC": "off"}  # a life this short needs no collector

    def run(self, *words: object, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run it, with `values` for what the chart has by default."""
        given = () if values is None else ("--values", "-")
        return subprocess.run(
            [self._program, *map(str, words), *given],
            env=self.environment,
            input=json.dumps(values or {}),
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Run it beside the test."""
        command = [str(self._program), *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def template(self, *words: object, chart: pathlib.Path = CHART, release: str = RELEASE, **values: Any) -> Objects:
        """Return what a release is made of, hooks among it; fails where helm complains."""
        done = self.run("template", release, chart, "--namespace", NAMESPACE, *words, values=values)
        assert done.returncode == 0, done.stderr
        assert not done.stderr, "helm warns"
        return read(done.stdout)

    def refusal(self, **values: Any) -> str:
        """Return why helm does not render these values; fails where it does."""
        done = self.run("template", RELEASE, CHART, "--namespace", NAMESPACE, values=values)
        assert done.returncode, "rendered"
        return done.stderr


def read(text: str) -> Objects:
    """Return documents by kind and name; fails where one is there twice."""
    found: Objects = {}
    for document in yaml.safe_load_all(text):
        if document:
            key = f"{document['kind']}/{document['metadata']['name']}"
            assert key not in found, key
            found[key] = document
    return found


def nested(dotted: str, value: object) -> dict[str, Any]:
    """Return `{"a": {"b": value}}` for `a.b`."""
    for key in reversed(dotted.split(".")):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def merged(*several: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with those that come later put over those before, as helm does."""
    whole: dict[str, Any] = {}
    for one in several:
        for key, value in one.items():
            both = isinstance(value, dict) and isinstance(whole.get(key), dict)
            whole[key] = merged(whole[key], value) if both else copy.deepcopy(value)
    return whole


def at(objects: Objects, key: str, path: Iterable[str | int]) -> Any:
    """Return what is at a path of an object."""
    found: Any = objects[key]
    for step in path:
        found = found[step]
    return found


def pod(objects: Objects, key: str = AGENT) -> dict[str, Any]:
    """Return the pod that an object makes."""
    spec: dict[str, Any] = objects[key]["spec"]["template"]["spec"]
    return spec


def is_hook(one: Object) -> bool:
    """Whether helm keeps an object for a moment of a release, and it is no part of what is installed."""
    return HOOK in one["metadata"].get("annotations", {})


def plain(one: Object) -> Object:
    """Return an object without what Helm alone has: labels of the release, hooks, and the checksum of the settings."""
    bare = copy.deepcopy(one)
    metadata = bare["metadata"]
    for label in LABELS:
        del metadata["labels"][label]
    kept = {key: value for key, value in metadata.get("annotations", {}).items() if not key.startswith(HOOK)}
    metadata |= {"annotations": kept}
    made = bare.get("spec", {}).get("template", {}).get("metadata", {})
    made.get("annotations", {}).pop(CHECKSUM, None)
    for each in (metadata, made):
        for key in ("labels", "annotations"):
            if each.get(key) == {}:
                del each[key]
    return bare
