"""One lab: build it, change its manifests, probe it, take it down.

The lab's manifests directory is the cluster's API here: `apply` writes the difference, and returns when every agent
enforces it. A lab outlives the process that built it (`Lab.open`), and is taken down when building or changing it
fails, so that nothing is left but what works.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from agent import errors
from agent.datapath import engines
from agent.lab import agents as agents_
from agent.lab import exchange, files, kernel, orders, plan, removal, resolve, rundir
from agent.model import audit as audit_
from agent.model import net

Progress = Callable[[str], None]

ENGINES = tuple(engine.value for engine in engines.Engine if engine is not engines.Engine.MEMORY)
VARIANTS = tuple(variant.value for variant in engines.Iptables)
BPFFS = pathlib.Path("/sys/fs/bpf")
DEFAULT_NAME = "lab"
DEFAULT_TIMEOUT_S = 1.0


def silent(_step: str) -> None:
    """Report progress to nobody."""


class Lab:
    """A cluster of network namespaces; a context manager that takes it down."""

    def __init__(
        self,
        *,
        name: str = DEFAULT_NAME,
        topology: plan.Topology = plan.Topology.ROUTED,
        families: Sequence[net.Family] = (),
        engine: str = "auto",
        iptables: str = "auto",
        agents: bool = True,
        progress: Progress = silent,
    ) -> None:
        """Build nothing yet. `families`: what every pod shall have; empty: what the manifests say, else IPv4.

        `engine` and `iptables` are the agents' flags; the nodes' Services are made with the same iptables.
        """
        for field, value, known in (("engine", engine, ENGINES), ("iptables", iptables, VARIANTS)):
            if value not in known:
                remedy = f"choose {', '.join(known[:-1])} or {known[-1]}"
                raise errors.InvalidInput(field=field, value=value, remedy=remedy)
        self.paths = rundir.RunDirectory(name)
        self.topology = topology
        self.families = tuple(families)
        self.engine = engine
        self.iptables = iptables
        self.agents = agents
        self._progress = progress
        self._watch: agents_.Watch | None = None
        self._documents: list[resolve.Document] = []
        self._plan: plan.LabPlan | None = None

    @classmethod
    def open(cls, name: str = DEFAULT_NAME, *, progress: Progress = silent) -> Lab:
        """Return the running lab of that name; LabError if there is none."""
        paths = rundir.RunDirectory(name)
        try:
            record = json.loads(paths.record.read_text())
        except OSError as error:
            raise errors.LabError(f"there is no lab {name!r}: agentctl lab up -f MANIFESTS --name {name}") from error
        lab = cls(
            name=name,
            topology=plan.Topology(record["topology"]),
            families=[net.Family(number) for number in record["families"]],
            engine=record["engine"],
            iptables=record["iptables"],
            agents=record["agents"],
            progress=progress,
        )
        lab._documents = files.load([paths.manifests])
        lab._plan = plan.plan(lab._documents, lab.topology)
        return lab

    def __enter__(self) -> Self:
        """Return itself; `up` is called by whoever has the manifests."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the lab down."""
        self.down()

    @property
    def plan(self) -> plan.LabPlan:
        """What the lab consists of; LabError before `up`."""
        if self._plan is None:
            raise errors.LabError(f"lab {self.paths.name!r} is not up")
        return self._plan

    @property
    def documents(self) -> list[resolve.Document]:
        """The resolved manifests."""
        return list(self._documents)

    def up(self, documents: Sequence[resolve.Document]) -> None:
        """Build the lab and wait until its agents enforce; on any failure, an interrupt too, it is taken down."""
        if self.paths.path.exists() or self.paths.cgroup.exists():
            name = self.paths.name
            raise errors.LabError(f"lab {name!r} is there already: agentctl lab down --name {name}")
        try:
            self._up(documents)
        except BaseException:
            self.down()
            raise

    def _up(self, documents: Sequence[resolve.Document]) -> None:
        self._progress("planning")
        resolved = resolve.resolve(documents, families=self.families)
        wanted = plan.plan(resolved, self.topology)
        for directory in (self.paths.manifests, self.paths.path / "s"):
            directory.mkdir(parents=True)
        for node in wanted.nodes:
            (self.paths.node(node) / "state").mkdir(parents=True, mode=0o700)
            self.paths.cni_results(node).mkdir()
            self.paths.node_cgroup(node).mkdir(parents=True)
        self._mount_bpffs()
        self._write_manifests(resolved)
        change = orders.compare(None, wanted)
        count = f"{len(wanted.nodes)} nodes, {len(wanted.pods)} pods, {len(wanted.hosts)} hosts"
        self._progress(f"building {count}")
        built = orders.build(change, self.paths, self.iptables)
        if self.agents:
            self.paths.bpffs.mkdir(exist_ok=True)
            built["processes"] += agents_.orders(wanted, self.paths, self.engine, self.iptables)
        self._run(built)
        self._documents, self._plan = resolved, wanted
        self._enforced("waiting for the agents", agents_.START_TIMEOUT_S)
        shape = {"topology": self.topology.value, "families": [family.value for family in self.families]}
        enforcement = {"engine": self.engine, "iptables": self.iptables, "agents": self.agents}
        self.paths.record.write_text(json.dumps(shape | enforcement))

    def apply(self, documents: Sequence[resolve.Document]) -> None:
        """Make `documents` the whole content of the cluster; return when every agent enforces it.

        LabError if that would change the nodes. Pods keep allocated addresses; pods whose spec or addresses differ
        are rebuilt. The lab stays up, with the old parties, if the manifests are refused.
        """
        resolved = resolve.resolve(documents, families=self.families, previous=self._documents)
        wanted = plan.plan(resolved, self.topology)
        if dict(wanted.nodes) != dict(self.plan.nodes) and not _same_machines(self.plan, wanted):
            raise errors.LabError("nodes cannot come, go or change address in a running lab: lab down, then lab up")
        change = orders.compare(self.plan, wanted)
        if change.gone_pods or change.gone_hosts:
            self._progress(f"removing {len(change.gone_pods)} pods, {len(change.gone_hosts)} hosts")
            self._remove_parties(change)
        self._write_manifests(resolved)
        self._documents, self._plan = resolved, wanted
        if change.new_pods or change.new_hosts or change.services:
            self._progress(f"building {len(change.new_pods)} pods, {len(change.new_hosts)} hosts")
            self._run(orders.build(change, self.paths, self.iptables))
        self._enforced("waiting for the agents", agents_.APPLY_TIMEOUT_S)

    def probe(
        self, requests: Sequence[exchange.ProbeRequest], timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> list[exchange.ProbeResult]:
        """Really connect, all at once; results are in the order of `requests`. A lost packet counts as denied."""
        return exchange.probe([(request, self._address(request)) for request in requests], self.paths, timeout_s)

    def exec(self, party: str, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as a process of a party; `options` are those of subprocess.run."""
        return subprocess.run(self.exec_command(party, command), text=True, check=False, **options)

    def exec_command(self, party: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` as a process of a party, with its exit status."""
        netns = orders.party_netns(party, self.plan, self.paths)
        cgroup = orders.party_cgroup(party, self.plan, self.paths)
        return [*_python("agent.lab.enter"), str(netns), str(cgroup), *command]

    def status(self) -> Mapping[str, Any]:
        """Return what the lab consists of and what its agents say, as JSON can hold it."""
        nodes = []
        for node in self.plan.nodes.values():
            pods = [pod for pod in self.plan.pods.values() if pod.node == node.name]
            shown = {"node": node.name, "addresses": list(map(str, node.addresses)), "pods": len(pods)}
            nodes.append(shown | self._agent(node.name))
        parties: Mapping[str, plan.PodPlan | plan.HostPlan] = {**self.plan.pods, **self.plan.hosts}
        return {
            "lab": self.paths.name,
            "topology": self.topology.value,
            "directory": str(self.paths.path),
            "nodes": nodes,
            "parties": [
                {
                    "party": party,
                    "node": getattr(one, "node", ""),
                    "addresses": list(map(str, one.addresses)),
                    "ports": [f"{number}/{protocol.name}" for number, protocol in one.ports],
                    "alive": bool(removal.processes(orders.party_cgroup(party, self.plan, self.paths))),
                }
                for party, one in parties.items()
            ],
        }

    def audits(self) -> Mapping[str, audit_.Audit]:
        """Return what is in audit on each node: by the manifests, and what its agent was told."""
        found = dict.fromkeys(self.plan.nodes, audit_.Audit(annotations=True))
        for node in self.plan.nodes if self.agents else ():
            with contextlib.suppress(errors.Unreachable):  # what it enforced last stays, and only manifests are known
                found[node] = self._watching().audit(node)
        return found

    def down(self) -> bool:
        """Take the lab down, whatever is left of it; tell whether there was anything."""
        if self._watch is not None:
            self._watch.close()
        self._watch, self._plan, self._documents = None, None, []
        return removal.remove(self.paths)

    def _agent(self, node: str) -> dict[str, Any]:
        if not self.agents:
            return {"agent": "none"}
        try:
            status = self._watching().status(node)
        except errors.Unreachable as error:
            return {"agent": "down", "error": str(error)}
        mode = f"{status.mode} ({status.iptables})" if status.iptables else status.mode
        return {"agent": "up", "mode": mode, "endpoints": status.endpoints, "policies": status.policies}

    def _address(self, request: exchange.ProbeRequest) -> net.Address:
        self.plan.addresses(request.source)
        if request.address is not None:
            return request.address
        for address in self.plan.addresses(request.destination):
            if net.family_of(address) is request.family:
                return address
        raise errors.LabError(f"{request.destination} has no {request.family.name} address")

    def _enforced(self, step: str, timeout_s: float) -> None:
        if self.agents:
            self._progress(step)
            self._watching().wait(self.plan, timeout_s)

    def _watching(self) -> agents_.Watch:
        if self._watch is None:
            self._watch = agents_.Watch(self.paths)
        return self._watch

    def _mount_bpffs(self) -> None:
        if self.agents and kernel.mount_of("bpf") is None:
            self.paths.mounted_bpffs.write_text(str(BPFFS))
            kernel.mount("bpf", BPFFS, "bpf")

    def _write_manifests(self, documents: Sequence[resolve.Document]) -> None:
        """Write what differs, each file in one step, and delete what is gone."""
        before, after = files.names(self._documents), files.names(documents)
        changed = {name: files.dump(document) for name, document in after.items() if before.get(name) != document}
        for name in before.keys() - after.keys():
            (self.paths.manifests / name).unlink(missing_ok=True)
        for name, text in changed.items():
            scratch = self.paths.path / "scratch"
            scratch.write_text(text)
            scratch.rename(self.paths.manifests / name)

    def _remove_parties(self, change: orders.Change) -> None:
        parties = [*(pod.party for pod in change.gone_pods), *(host.party for host in change.gone_hosts)]
        removal.kill_cgroups([orders.party_cgroup(party, self.plan, self.paths) for party in parties])
        for party in parties:
            self.paths.server_socket(plan.key(party)).unlink(missing_ok=True)
        self._run(orders.tear_down(change, self.paths))
        for pod in change.gone_pods:
            for file in orders.cni_files(pod, self.plan, self.paths):
                pathlib.Path(file["path"]).unlink(missing_ok=True)
            if not pod.host_network:
                removal.remove_namespace(self.paths.pod_netns(pod.node, pod.container))
            removal.remove_cgroup(orders.pod_cgroup(pod, self.paths))
        for host in change.gone_hosts:
            removal.remove_namespace(self.paths.host_netns(host.name))
            removal.remove_cgroup(orders.party_cgroup(host.party, self.plan, self.paths))

    def _run(self, wanted: orders.Orders) -> None:
        """Have the runner carry out orders; LabError with what it refused."""
        command = _python("agent.lab.runner")
        done = subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True, check=False)
        try:
            answer = json.loads(done.stdout)
        except ValueError as error:
            raise errors.LabError(f"the runner failed ({done.returncode}): {done.stderr.strip()}") from error
        if "error" in answer:
            raise errors.LabError(f"lab {self.paths.name!r} could not be built: {answer['error']}")


def _python(module: str) -> list[str]:
    """Return the command that runs a module that needs the standard library alone: no site, no environment."""
    start = f"import sys; sys.path.insert(0, {os.fspath(agents_.PACKAGE)!r}); from {module} import main; main()"
    return [sys.executable, "-I", "-S", "-c", start]


def _same_machines(old: plan.LabPlan, new: plan.LabPlan) -> bool:
    """Tell whether nodes differ only in what grows with their pods: ranges, and gateways on the bridge."""
    return {n.name: n.addresses for n in old.nodes.values()} == {n.name: n.addresses for n in new.nodes.values()}
