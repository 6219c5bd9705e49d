"""The Kubernetes source: 10,000 pods from the first request to the first update, one change, and what that weighs.

An HTTP server in a process of its own stands in for the API server, so that only the agent's share is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import multiprocessing
import multiprocessing.connection
import pathlib
import time
from typing import Any

from agent import clock, decode
from agent.sources.kubernetes import api, objects, source, wire
from tests.bench import figures
from tests.sources.kubernetes import scripted, server

PODS = 10_000
PAGE = 500
CHANGES = 60
MEBIBYTE = 1024


def pod(number: int, version: int) -> dict[str, Any]:
    """Return a pod as a cluster holds it: 3 KB, of which a tenth says something about the network."""
    app, address = f"web-{number // 20}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    moment = "2026-11-21T08:00:00Z"
    conditions = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    managed: dict[str, Any] = {
        f"f:field{one}": {"f:inner": {}, 'k:{"name":"web"}': {".": {}, "f:image": {}}} for one in range(12)
    }
    container = {
        "name": "web",
        "image": "registry.example/web:1.2.3",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m"}},
        "volumeMounts": [{"name": "token", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io"}],
    }
    return {
        "metadata": {
            "name": f"{app}-7d9c5b8f6d-{number:05d}",
            "namespace": f"ns-{number % 1000}",
            "uid": f"3f6a1c5e-0000-4000-8000-{number:012d}",
            "resourceVersion": str(version),
            "labels": {"app": app, "pod-template-hash": "7d9c5b8f6d", "v": str(version)},
            "managedFields": [{"manager": "kubelet", "operation": "Update", "time": moment, "fieldsV1": managed}],
        },
        "spec": {"containers": [container], "nodeName": f"node-{number % 100}", "restartPolicy": "Always"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": one, "status": "True", "lastTransitionTime": moment} for one in conditions],
            "podIP": address,
            "podIPs": [{"ip": address}, {"ip": f"fd00::{number:x}"}],
            "containerStatuses": [{"name": "web", "ready": True, "containerID": "containerd://" + "1" * 64}],
        },
    }


def serve(pipe: multiprocessing.connection.Connection) -> None:
    """Serve the lists; send a change of a pod for each number that comes, until None does."""
    pages = [
        scripted.page(
            *(pod(number, 0) for number in range(begin, begin + PAGE)),
            version=1,
            continue_=str(begin + PAGE) if begin + PAGE < PODS else "",
        )
        for begin in range(0, PODS, PAGE)
    ]
    watching: dict[str, server.Request] = {}

    def answer(request: server.Request) -> None:
        path = request.path.partition("?")[0]
        if "watch" in request.query:
            request.begin()
            watching[path] = request
            request.server.released.wait()
        elif path == api.Resource.PODS.path:
            request.say(pages[int(request.query.get("continue", "0")) // PAGE])
        else:
            request.say(scripted.page(version=1))

    with server.Server(answer) as between:
        pipe.send((between.url, pages[0]))
        while (number := pipe.recv()) is not None:
            while api.Resource.PODS.path not in watching:
                time.sleep(0.01)
            said = scripted.event("MODIFIED" if number < PODS else "ADDED", pod(number, number + 1))
            watching[api.Resource.PODS.path].chunk(said + b"\n")


def run() -> list[figures.Figure]:
    """Follow that cluster."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        url, page = ours.recv()
        found = asyncio.run(_follow(url, ours))
        ours.send(None)
        process.join(10)
    finally:
        process.kill()
    return [*found, _whole(page)]


async def _follow(url: str, pipe: multiprocessing.connection.Connection) -> list[figures.Figure]:
    gc.collect()
    before = _weight()
    made = source.KubernetesSource(access=server.Plain(url), clock=clock.SystemClock())
    wall, processor = time.perf_counter(), time.process_time()
    async with contextlib.aclosing(made.watch()) as updates:
        first = await anext(updates)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        assert len(first.snapshot.pods) == PODS
        assert made.counters["whole", "pods"] == 0
        weight = _weight() - before
        changed = [await _change(updates, pipe, number * 37) for number in range(CHANGES)]
        added = [await _change(updates, pipe, PODS + number) for number in range(CHANGES)]
    return [
        figures.Figure(name=f"{PODS} pods, first request to first update", value=wall * 1000, unit="ms"),
        figures.Figure(name="of it processor time of the agent", value=processor * 1000, unit="ms"),
        figures.Figure(name=f"memory that {PODS} pods take", value=weight, unit="MiB"),
        figures.Figure(name="one pod changed, arrival to update, p50", value=figures.median(changed), unit="ms"),
        figures.Figure(name="one pod added, arrival to update, p50", value=figures.median(added), unit="ms"),
    ]


async def _change(updates: Any, pipe: multiprocessing.connection.Connection, number: int) -> float:
    """Return the milliseconds from an event's arrival in the agent to the update that shows it."""
    pipe.send(number)
    update = await anext(updates)
    return (time.time_ns() - int(update.changed_unix_ns)) / 1e6


def _whole(page: bytes) -> figures.Figure:
    """Read one page as documents, as manifests are read, for comparison with what the source does."""
    reader = objects.Reader(api.Resource.PODS)
    read = wire.read(page, wire.Page)
    began = time.process_time()
    for item in read.items or ():
        reader.read(item)
    fast = time.process_time() - began
    began = time.process_time()
    for item in json.loads(page)["items"]:
        decode.decode({"apiVersion": "v1", "kind": "Pod"} | item)
    whole = time.process_time() - began
    scale = 1e6 / PAGE
    return figures.Figure(
        name="one pod read (baseline: as a document)", value=fast * scale, baseline=whole * scale, unit="us"
    )


def _weight() -> float:
    """Return this process's RSS in MiB."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / MEBIBYTE
