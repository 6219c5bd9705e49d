"""The program dial.c: compiled to need no library, run in pods that are nothing else, and by processes in pods."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tests.cluster import api, archives, bed, commands, programs, settings

IMAGE = "nodewall.test/dial:1"
SOURCE = pathlib.Path(__file__).with_name("dial.c")
BUILT = programs.ROOT / "build" / "dial"
NEVER = "never"
"""The beginning of a target's name that nobody waits for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of one target."""

    tries: int
    successes: int
    first_ms: float
    """From the program's first instruction to the first success; negative where there was none."""
    last_error: int


def build() -> pathlib.Path:
    """Compile it, if the source is newer, and return the program."""
    if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILT.parent.mkdir(parents=True, exist_ok=True)
        # Another test process may do the same.
        new = BUILT.with_suffix(f".{os.getpid()}")
        command = ["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(new), str(SOURCE)]
        subprocess.run(command, check=True)
        new.rename(BUILT)
    return BUILT


def load(cluster: bed.Bed) -> None:
    """Give the image to every node."""
    archive = cluster.shape.state / "dial.tar"
    archives.write(archive, name=IMAGE, files={"dial": build()}, links={}, entrypoint=["/dial"])
    cluster.load(archive)


def pod(
    name: str,
    *,
    where: str,
    node: str,
    labels: Mapping[str, str],
    targets: Mapping[str, tuple[str, int]],
    seconds: int = 30,
) -> dict[str, Any]:
    """Return a pod that dials from its first instruction until every target has answered, and is then done."""
    words = ["first", str(seconds), *(f"{target}={address},{port}" for target, (address, port) in targets.items())]
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "args": words}
    spec = {
        "nodeName": node,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
    }
    metadata = {"name": name, "namespace": where, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def seen(pod: Mapping[str, Any]) -> Mapping[str, Seen]:
    """Return what a pod that is done has seen, by target. Raises ValueError if it has said nothing."""
    ended = pod["status"]["containerStatuses"][0]["state"].get("terminated") or {}
    try:
        said = json.loads(ended["message"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"pod {pod['metadata']['name']} ended without a word: {ended}") from error
    return MappingProxyType({target: Seen(**one) for target, one in said.items()})


def is_done(pod: Mapping[str, Any]) -> bool:
    """Tell whether a pod has ended."""
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value that a part of all are at most."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def wave(
    shape: settings.Shape, where: str, documents: Iterable[Mapping[str, Any]], *, count: int, limit_s: float = 180.0
) -> list[dict[str, Any]]:
    """Create what makes pods in a namespace, wait until `count` are done that were not there, and return those.

    Raises TimeoutError.
    """
    with api.Api(shape) as asked:
        before = {pod["metadata"]["uid"] for pod in asked.get(api.pods(where))["items"]}

    def create(document: Mapping[str, Any]) -> Callable[[api.Api], None]:
        return lambda asked: asked.create(document)

    api.in_parallel(shape, map(create, documents))
    done: list[dict[str, Any]] = []
    with api.Api(shape) as asked:

        def all_done() -> bool:
            found = asked.get(api.pods(where))["items"]
            done[:] = [pod for pod in found if pod["metadata"]["uid"] not in before and is_done(pod)]
            return len(done) >= count

        commands.wait(f"{count} pods of {where} to end", all_done, limit_s=limit_s, pause_s=0.5)
    return done
