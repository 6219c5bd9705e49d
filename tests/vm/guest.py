"""Runs inside another kernel: `python -m tests.vm.guest KERNEL TABLES DIRECTORY PATIENCE`, the first two as in `jobs`.

For each engine the kernel has a job for: agents start and say in their status and their log what they enforce with, and
why; every connection between the demo's pods is made; the guided tour is played; names are learned from a real server;
truth tables are run by real sockets, those of SCTP among them. Nothing here knows what a kernel lacks: the agent has to
find out.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from xml.etree import ElementTree as ET

from agent import errors, patience
from agent.lab import comparison, files, lab
from agent.rpc import client, views
from tests.vm import jobs, report

MODULES = ("sctp", "br_netfilter", "bridge", "veth", "nf_tables", "nf_conntrack")
BPFFS = pathlib.Path("/sys/fs/bpf")
DEMO = pathlib.Path("agent/lab/demo")
LAB = "vm"
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""They write beside the tests."""


class Guest:
    """Makes checks, and writes each down before the next begins."""

    def __init__(self, kernel: str, directory: pathlib.Path) -> None:
        """Nothing is checked yet; reports go to `directory`."""
        self._kernel = kernel
        self._directory = directory
        self._checks: list[report.Check] = []
        self._engines: list[report.Engine] = []

    def run(self, extent: jobs.Extent) -> int:
        """Do everything, the later checks too when one fails; return the exit status."""
        self._check("SCTP sockets", "", has_sctp)
        for wanted, mode in jobs.JOBS[self._kernel].items():
            self._in_a_lab(wanted, mode)
            self._check(f"demo, {wanted}", wanted, functools.partial(demo, wanted))
            for what, tests in (
                ("names", jobs.names(self._kernel, mode, extent)),
                ("tables", jobs.tables(self._kernel, mode, extent)),
            ):
                results = self._directory / f"{what}-{wanted}.xml"
                if tests:
                    self._check(f"{what}, {wanted}", wanted, functools.partial(tested, results, tests))
        self._write(finished=True)
        return 1 if any(check.found.problem for check in self._checks) else 0

    def _in_a_lab(self, wanted: str, mode: str) -> None:
        """Start agents in the demo's cluster, ask what they are, and make its connections."""
        with lab.Lab(name=LAB, engine=wanted) as running:
            if self._check(f"agents, {wanted}", wanted, lambda: self._started(running, wanted, mode)):
                self._check(f"connections, {wanted}", wanted, lambda: connections(running))

    def _started(self, running: lab.Lab, wanted: str, mode: str) -> report.Found:
        try:
            running.up(files.load([DEMO]))
        except errors.LabError as error:
            print(error, flush=True)
            return report.Found(problem=str(error).splitlines()[0])
        told = [said(running, node) for node in running.plan.nodes]
        for status in told[:1]:
            engine = report.Engine(
                wanted=wanted, mode=status.mode, variant=status.iptables, reasons=status.mode_reasons
            )
            self._engines.append(engine)
        modes = {status.mode for status in told}
        shown = ", ".join(sorted(f"{one.mode} ({one.iptables})" if one.iptables else one.mode for one in told))
        return report.Found(found=shown, problem="" if modes == {mode} else f"{mode} was expected, not {shown}")

    def _check(self, name: str, engine: str, look: Callable[[], report.Found]) -> bool:
        begin = time.monotonic()
        print(f"--- {name}", flush=True)
        try:
            found = look()
        except (errors.NodewallError, OSError) as error:
            found = report.Found(problem=f"{type(error).__name__}: {error}")
        seconds = time.monotonic() - begin
        self._checks.append(report.Check(name=name, engine=engine, found=found, seconds=seconds))
        self._write(finished=False)
        print(f"--- {name}: {found.problem or found.found} in {seconds:.0f} s", flush=True)
        return not found.problem

    def _write(self, *, finished: bool) -> None:
        release = os.uname().release
        one = report.Report(release=release, finished=finished, checks=self._checks, engines=self._engines)
        one.write(self._directory)


def has_sctp() -> report.Found:
    """Without them the lab would craft packets, and prove nothing that other machines do not."""
    socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    return report.Found(found="there")


def said(running: lab.Lab, node: str) -> views.Status:
    """Return what the agent of a node says of itself; what it logged is shown."""
    with client.AgentClient(running.paths.agent_socket(node)) as agent:
        status = agent.status()
    log = running.paths.agent_log(node).read_text(errors="replace")
    print(f"{node}: {status.mode} {status.iptables} {list(status.mode_reasons)}\n{log}", flush=True)
    return status


def connections(running: lab.Lab) -> report.Found:
    """Connect every pair of the demo's pods, on every port, and compare with what the evaluator says."""
    rows = comparison.compare(running)
    wrong = [
        f"{row.expected.source} -> {row.expected.destination} {row.expected.port}: {row.measured}"
        for row in comparison.disagreements(rows)
    ]
    print("\n".join(wrong), flush=True)
    return report.counted(len(rows) - len(wrong), len(rows))


def demo(wanted: str) -> report.Found:
    """Play the guided tour."""
    command = [".venv/bin/agentctl", "lab", "demo", "--no-input", "--name", f"{LAB}-tour", "--engine", wanted]
    done = subprocess.run(command, check=False)
    return report.Found(found="played", problem=f"exit status {done.returncode}" if done.returncode else "")


def tested(results: pathlib.Path, tests: tuple[str, ...]) -> report.Found:
    """Run truth tables or other tests; what pytest says is shown as it says it, for it takes minutes."""
    command = [sys.executable, "-m", "pytest", *PLUGINS, "-v", "--durations=10", f"--junitxml={results}", *tests]
    status = subprocess.run(command, check=False).returncode
    if not results.exists():
        return report.Found(problem=f"pytest ended with {status}")
    return outcome(ET.parse(results).getroot(), status, len(tests))  # noqa: S314 - written by pytest just now


def outcome(results: ET.Element, status: int, wanted: int) -> report.Found:
    """Count what pytest has written down; a test that was skipped or not found counts as one that failed."""
    suites = list(results.iter("testsuite"))

    def count(*names: str) -> int:
        return sum(int(suite.get(name, "0")) for suite in suites for name in names)

    passed = count("tests") - count("skipped", "failures", "errors")
    found = report.counted(passed, wanted)
    if status and not found.problem:
        return report.Found(problem=f"{found.found}, and pytest ended with {status}", passed=passed, total=wanted)
    return found


def _prepared() -> Iterator[str]:
    """Load modules and mount a bpffs, as the init system of a node does; yield what could not be."""
    for module in MODULES:
        if subprocess.run(["modprobe", module], check=False).returncode:
            yield module
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], check=True)


def main(kernel: str, extent: str, directory: str, times: str) -> int:
    """Be the guest; return the exit status."""
    os.environ.update({patience.ENVIRONMENT: times, "PYTHONDONTWRITEBYTECODE": "1"})
    print(json.dumps({"kernel": os.uname().release, "modules missing": list(_prepared())}), flush=True)
    return Guest(kernel, pathlib.Path(directory)).run(jobs.Extent(extent))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
