"""A cluster on this machine: bring it up, use it, take it down.

    with bed.Bed(settings.Shape(cni=settings.Cni.BRIDGE)) as cluster:
        cluster.load(archive)
        cluster.kubectl("apply", "-k", "daemonset/base")
        cluster.enter("node1", "bpftool", "link", "list")

`down` works from names alone, so that it also removes what a killed run left. Everything is in a control group, a
network namespace or the directory of the cluster's name.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from tests.cluster import cgroups, commands, control, fabric, images, overlay, pki, programs, settings

READY_S = 180.0
DNS = pathlib.Path(__file__).with_name("coredns.yaml")


class Bed:
    """One cluster. Not for several threads."""

    def __init__(self, shape: settings.Shape) -> None:
        """Take what it is like; nothing is started yet."""
        self.shape = shape

    @classmethod
    def running(cls, name: str) -> Self:
        """Return the cluster of that name. Raises FileNotFoundError."""
        return cls(settings.read(settings.Shape(name=name).state / "shape.json"))

    def __enter__(self) -> Self:
        """Bring it up."""
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.down()

    @property
    def overlay(self) -> pathlib.Path:
        """Kustomizations `agent` and `uninstall`: what daemonset/ ships, for this machine."""
        return self.shape.state / "overlay"

    def up(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Bring it up and wait until every node is ready. Raises Missing, FileExistsError, TimeoutError."""
        programs.require()
        programs.directories(build=True)
        try:
            (self.shape.state / "log").mkdir(parents=True)
        except FileExistsError as error:
            raise FileExistsError(f"{self.shape.state} is there already; take that cluster down first") from error
        try:
            self._start(tell)
        except BaseException:
            if "NODEWALL_CLUSTER_KEEP" not in os.environ:
                self.down()
            raise

    def down(self) -> None:
        """Take it down, whatever there is of it; what is not there is down."""
        cgroups.remove(self.shape.name)
        fabric.remove(self.shape.name)
        # Mounts end with the namespaces they were made in, and those a moment after their last process.
        commands.wait("removal of the cluster's directory", self._removed, limit_s=20)

    def kubectl(self, *arguments: str, text: str | None = None, limit_s: float = 300.0) -> str:
        """Run kubectl as administrator. Raises Failed."""
        return control.kubectl(self.shape, *arguments, text=text, limit_s=limit_s)

    def json(self, *arguments: str) -> Any:
        """Run kubectl and return the JSON it printed."""
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """Apply documents. Raises Failed."""
        self.kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))

    def entering(self, member: str) -> list[str]:
        """Return how a command gets into a node's namespaces; `cp` has only a network of its own."""
        if member == fabric.CONTROL:
            return ["ip", "netns", "exec", self.shape.netns(member)]
        process = (self.shape.state / member / "pid").read_text()
        return ["nsenter", "--target", process, "--mount", "--uts", "--net", "--cgroup", "--"]

    def enter(self, member: str, *command: str, text: str | None = None) -> str:
        """Run a command in a node. Raises Failed."""
        return commands.run(*self.entering(member), *command, text=text)

    def load(self, archive: pathlib.Path) -> None:
        """Give an image, an OCI or Docker archive, to every node."""
        bring = ["ctr", "-n", "k8s.io", "images", "import", str(archive.absolute())]

        def load(member: settings.Member) -> None:
            commands.run(*self.entering(member.name), *bring, limit_s=600)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            for _ in pool.map(load, self.shape.members()):
                pass

    def log(self, name: str, lines: int = 40) -> str:
        """Return the end of a log."""
        return "\n".join((self.shape.state / "log" / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])

    def _start(self, tell: Callable[[str], None]) -> None:
        begin = time.monotonic()

        def said(what: str) -> None:
            tell(f"{time.monotonic() - begin:5.1f} s  {what}")

        state = self.shape.state
        settings.write(self.shape, state / "shape.json")
        pki.write(self.shape)
        fabric.make(self.shape)
        control.start(self.shape)
        said("control plane")
        images.make(state / "images")
        cgroups.write(state / "hierarchies.json")
        overlay.write(self.overlay)
        for member in self.shape.members():
            self._node(member)
        if self.shape.dns:
            self.kubectl("apply", "-f", str(DNS))
        commands.wait("nodes ready", self._ready, limit_s=READY_S, pause_s=0.5)
        said(f"{self.shape.nodes} nodes ready")
        if self.shape.dns:
            self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s")
            said("cluster DNS")

    def _node(self, member: settings.Member) -> None:
        group = f"{self.shape.name}/{member.name}"
        cgroups.make(group)
        module = [sys.executable, "-m", "tests.cluster.node", str(self.shape.state), str(member.number)]
        # The namespace of control groups is unshared in the node's group, so that this is its root.
        apart = ["unshare", "--cgroup", "--mount", "--uts", "--propagation", "private", "--"]
        command = ["ip", "netns", "exec", self.shape.netns(member.name), *apart, *module]
        log = self.shape.state / "log" / f"{member.name}.log"
        commands.detach(cgroups.inside(group, command), log=log, directory=programs.ROOT)

    def _ready(self) -> bool:
        for member in self.shape.members():
            has_begun = (self.shape.state / member.name / "pid").exists()
            if has_begun and not cgroups.processes(f"{self.shape.name}/{member.name}"):
                raise commands.Failed(f"{member.name} ended:\n{self.log(member.name)}")
        with contextlib.suppress(commands.Failed):
            conditions = [
                condition["status"]
                for node in self.json("get", "nodes")["items"]
                for condition in node["status"].get("conditions", ())
                if condition["type"] == "Ready"
            ]
            return conditions.count("True") == self.shape.nodes
        return False

    def _removed(self) -> bool:
        shutil.rmtree(self.shape.state, ignore_errors=True)
        return not self.shape.state.exists()
